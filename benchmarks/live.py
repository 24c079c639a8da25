"""How live the dashboards are: seconds from a click or a key to the picture, in a real browser.

    python benchmarks/live.py

Needs Chromium and the extra `browser`.  JupyterLab shows a scratch notebook with the dashboards;
the clock is the page's own, from the mouse button or the key going down to the change on screen.
Writes results/benchmarks/live.json and, after a run with the default settings, the picture
results/live_amnesia.png.
"""

import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from sahelpers.config import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests" / "browser"))
import lab

CLICKS, KEYS = 5, 30
START_CLOCK = """(board, [event, words]) => {
    const watched = words ? board.querySelector('[role=status]').parentElement
                          : board.querySelector('img');
    window.took = new Promise(done => addEventListener(event, () => {
        const begin = performance.now();
        const end = () => done((performance.now() - begin) / 1000);
        if (words) new MutationObserver((_, observer) => {
            if (!watched.innerText.includes(words)) return;
            observer.disconnect();
            end();
        }).observe(watched, {childList: true, subtree: true});
        else watched.addEventListener('load', end, {once: true});
    }, {capture: true, once: true}));
}"""


def timed(page, board, event, act, words=None):
    """Seconds from the event that `act` causes to these words in the status line, or to a new
    picture."""
    board.evaluate(START_CLOCK, [event, words])
    act()
    return page.evaluate("window.took")


def measure(page):
    """Name -> seconds, once per click or key."""
    board, walk = (page.locator(".jp-CodeCell").nth(k) for k in (lab.AMNESIA, lab.WALK))
    forget, stop = (
        board.get_by_role("button", name=name, exact=True) for name in ("Forget", "Stop")
    )
    table, alone, stopped = [], [], []
    for _ in range(CLICKS):
        table.append(timed(page, board, "pointerdown", forget.click, "Forgotten: 3."))
        said = board.locator("[role=status]").inner_text()
        alone.append(float(re.search(r"steps in ([\d.]+) s", said)[1]))
        lab.expect(stop).to_be_disabled()
    board.locator(".jp-OutputArea-output").last.screenshot(
        path=CHECKOUT / "results" / "live_amnesia.png"
    )
    for _ in range(CLICKS):
        timed(page, board, "pointerdown", forget.click, "step 1")
        stopped.append(timed(page, board, "pointerdown", stop.click, "Stopped"))
        lab.expect(stop).to_be_disabled()
    handle = walk.locator(".noUi-handle").nth(1)
    handle.focus()
    keys = ["ArrowRight"] * (KEYS // 2) + ["ArrowLeft"] * (KEYS // 2)
    moved = [timed(page, walk, "keydown", lambda key=key: page.keyboard.press(key)) for key in keys]
    return {
        "click to final table": table, "of which forgetting and its frames": alone,
        "Stop to 'Stopped'": stopped, "key to picture": moved,
    }  # fmt: skip


def first_forget(page):
    """Seconds from Run All Cells in notebook 03 to its dashboard, and to the table of a click."""
    board = page.locator(".jp-CodeCell", has=page.locator(".widget-vbox")).first
    begin = time.perf_counter()
    lab.start_all(page)
    forget = board.get_by_role("button", name="Forget", exact=True)
    forget.wait_for()
    shown = time.perf_counter() - begin
    forget.click()  # the cells below are still at work, and the kernel finishes them first
    board.get_by_text("Forgotten: 3.").first.wait_for()
    return {"Run All to dashboard": [shown], "and to a table": [time.perf_counter() - begin]}


def main():
    """Print medians and keep them."""
    with tempfile.TemporaryDirectory() as folder, lab.chromium() as browser:
        root = Path(folder)
        lab.write_scratch(root)
        shutil.copy(CHECKOUT / "notebooks" / "03_amnesia.ipynb", root)
        with lab.server(root, root / "settings") as address:
            page = lab.new_page(browser)
            lab.open_notebook(page, address, "scratch.ipynb")
            lab.run_all(page, len(lab.SCRATCH))
            found = measure(page)
            lab.shut_down(page)
            lab.open_notebook(page, address, "03_amnesia.ipynb")
            found |= first_forget(page)
            assert page.problems == [], page.problems
    figures = {
        what: {"median": round(statistics.median(s), 3), "max": round(max(s), 3), "n": len(s)}
        for what, s in found.items()
    }
    for what, f in figures.items():
        print(f"{what}: median {f['median']:.2f} s, slowest {f['max']:.2f} s (n = {f['n']})")
    figures["threads"] = torch.get_num_threads()
    kept = CHECKOUT / "results" / "benchmarks" / "live.json"
    kept.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
