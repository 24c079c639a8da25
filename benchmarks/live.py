"""How live the dashboards are: seconds from a click or a key to the picture, in a real browser.

    python benchmarks/live.py
    python benchmarks/live.py --picture

Needs Chromium and the extra `browser`.  JupyterLab and Voila show the live notebook; the clock is
the page's own, from the mouse button or the key going down to the change on screen.  Writes
results/benchmarks/live.json and, after a run with the default settings, the picture
results/live_amnesia.png; with --picture only pictures, this one and results/live_attack.png.
"""

import itertools
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

sys.path.insert(0, str(CHECKOUT / "tests" / "browser"))
import lab

CLICKS, KEYS = 5, 30
START_CLOCK = """(board, [event, words]) => {
    const watched = words ? board.querySelector('[role=status]').parentElement
                          : board.querySelector('img').parentElement.parentElement;
    window.took = new Promise(done => addEventListener(event, () => {
        const begin = performance.now();
        const end = () => done((performance.now() - begin) / 1000);
        if (words) new MutationObserver((_, observer) => {
            if (!watched.innerText.includes(words)) return;
            observer.disconnect();
            end();
        }).observe(watched, {childList: true, subtree: true});
        else new MutationObserver((_, observer) => { observer.disconnect(); end(); })
            .observe(watched, {childList: true, subtree: true, characterData: true});
    }, {capture: true, once: true}));
}"""
START_FRAMES = """board => {
    window.frames = new Promise(done => addEventListener('pointerdown', () => {
        const begin = performance.now(), times = [];
        const now = () => board.querySelector('img[alt=now]').src;
        let shown = now();
        new MutationObserver((_, observer) => {
            if (now() !== shown) {
                shown = now();
                times.push((performance.now() - begin) / 1000);
            }
            if (!board.querySelector('[role=status]').innerText.includes('looking')) return;
            observer.disconnect();
            done(times);
        }).observe(board, {childList: true, subtree: true, attributes: true});
    }, {capture: true, once: true}));
}"""


def timed(page, board, event, act, words=None):
    """Seconds from the event that `act` causes to these words in the status line, or to a new
    picture."""
    board.evaluate(START_CLOCK, [event, words])
    act()
    return page.evaluate("window.took")


def frames(page, board, act):
    """Seconds from the click that `act` makes to every changed picture of the run."""
    board.evaluate(START_FRAMES)
    act()
    return page.evaluate("window.frames")


def measure(page):
    """Name -> seconds, once per click or key."""
    walk = lab.open_tab(page, "Explore")
    handle = walk.locator(".noUi-handle").nth(1)
    handle.focus()
    keys = ["ArrowRight"] * (KEYS // 2) + ["ArrowLeft"] * (KEYS // 2)
    moved = [timed(page, walk, "keydown", lambda key=key: page.keyboard.press(key)) for key in keys]
    board = lab.open_tab(page, "Forget")
    forget, stop = (
        board.get_by_role("button", name=name, exact=True) for name in ("Forget", "Stop")
    )
    first, apart, shown, table, alone, stopped = [], [], [], [], [], []
    for _ in range(CLICKS):
        times = frames(page, board, forget.click)
        first.append(times[0])
        apart.append(max(after - before for before, after in itertools.pairwise(times)))
        shown.append(times[-1])
        begin = time.perf_counter()
        board.get_by_text("class 3 is in the table").wait_for()
        table.append(shown[-1] + time.perf_counter() - begin)
        said = board.locator("[role=status]").inner_text()
        alone.append(float(re.search(r"steps in ([\d.]+) s", said)[1]))
        lab.expect(stop).to_be_disabled()
    keep_picture(board, "amnesia")
    for _ in range(CLICKS):
        timed(page, board, "pointerdown", forget.click, "step 1")
        stopped.append(timed(page, board, "pointerdown", stop.click, "Stopped"))
        lab.expect(stop).to_be_disabled()
    return {
        "click to first changed picture": first, "longest wait for the next": apart,
        "click to new model": shown, "click to final table": table,
        "of which forgetting and its frames": alone, "Stop to 'Stopped'": stopped,
        "key to picture": moved,
    }  # fmt: skip


def keep_picture(board, name):
    """The dashboard as it is, for README and notebook 05."""
    board.screenshot(path=CHECKOUT / "results" / f"live_{name}.png")


def keep_pictures(page):
    """The dashboards after one run each."""
    board = lab.open_tab(page, "Forget")
    board.get_by_role("button", name="Forget", exact=True).click()
    board.get_by_text("class 3 is in the table").wait_for()
    keep_picture(board, "amnesia")
    probe = lab.open_tab(page, "Attack")
    probe.get_by_role("button", name="Attack", exact=True).click()
    probe.get_by_text("Done").wait_for()
    lab.idle(page)
    keep_picture(probe, "attack")


def first_answer(page, begin):
    """Seconds from `begin` to the first dashboard, and to the answer to a click on it."""
    draw = page.get_by_role("button", name="Draw z", exact=True)
    draw.wait_for()
    shown = time.perf_counter() - begin
    before = page.locator(".widget-tab img").first.get_attribute("src")
    draw.click()
    page.wait_for_function(
        "before => document.querySelector('.widget-tab img').src !== before", arg=before
    )
    return shown, time.perf_counter() - begin


def main():
    """Print medians and keep them."""
    with tempfile.TemporaryDirectory() as folder, lab.chromium() as browser:
        root = Path(folder)
        lab.copy_notebook(root)
        with lab.server(root, root / "settings") as address:
            page = lab.new_page(browser)
            lab.open_notebook(page, address, lab.NOTEBOOK)
            begin = time.perf_counter()
            lab.start_all(page)
            if "--picture" in sys.argv:
                keep_pictures(page)
                return
            shown, answered = first_answer(page, begin)
            found = {"Run All to dashboard": [shown], "Run All to a click's answer": [answered]}
            found |= measure(page)
            assert page.problems == [], page.problems
            page.close()
        begin = time.perf_counter()
        with lab.server(root, root / "app", ("voila", lab.NOTEBOOK)) as address:
            page = lab.new_page(browser)
            page.goto(address)
            shown, answered = first_answer(page, begin)
            found |= {"Voila's command to dashboard": [shown], "and to an answer": [answered]}
    figures = {
        what: {"median": round(statistics.median(s), 3), "max": round(max(s), 3), "n": len(s)}
        for what, s in found.items()
    }
    for what, f in figures.items():
        print(f"{what}: median {f['median']:.2f} s, slowest {f['max']:.2f} s (n = {f['n']})")
    figures["threads"] = torch.get_num_threads()
    kept = CHECKOUT / "results" / "benchmarks" / "live.json"
    replace_text(kept, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
