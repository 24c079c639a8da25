"""How live the dashboards are: seconds from a click or a key to the picture, in a real browser.

`python benchmarks/live.py` needs Chromium and the extra `browser`.  It starts JupyterLab with a
scratch notebook, and it writes `results/live.json`.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from sahelpers.data import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests" / "browser"))
import lab

CLICKS, KEYS = 5, 30


def wait_for(condition):
    """Seconds until the condition holds, looked at every few milliseconds."""
    begin = time.perf_counter()
    while not condition():
        if time.perf_counter() - begin > 120:
            raise TimeoutError("nothing happened for two minutes")
        time.sleep(0.005)
    return time.perf_counter() - begin


def measure(page):
    """Forget, Stop and slider times of the dashboards in the scratch notebook."""
    board, walk = (page.locator(".jp-CodeCell").nth(k) for k in (lab.AMNESIA, lab.WALK))
    said = board.locator("[role=status]")
    forget, stop = (
        board.get_by_role("button", name=name, exact=True) for name in ("Forget", "Stop")
    )
    table, stopped, moved = [], [], []
    for _ in range(CLICKS):
        board.scroll_into_view_if_needed()
        forget.click()
        begun = wait_for(lambda: "Forgotten: 3." not in said.inner_text())
        table.append(begun + wait_for(lambda: "Forgotten: 3." in said.inner_text()))
        wait_for(lambda: not stop.is_enabled())
    for _ in range(CLICKS):
        forget.click()
        wait_for(lambda: "step" in said.inner_text() and stop.is_enabled())
        time.sleep(0.5)
        stop.click()
        stopped.append(wait_for(lambda: "Stopped" in said.inner_text()))
        wait_for(lambda: not stop.is_enabled())
    image, handle = walk.locator("img"), walk.locator(".noUi-handle").nth(1)
    handle.focus()
    for key in ["ArrowRight"] * (KEYS // 2) + ["ArrowLeft"] * (KEYS // 2):
        before = image.get_attribute("src")
        page.keyboard.press(key)
        moved.append(wait_for(lambda before=before: image.get_attribute("src") != before))
    return {"click to final table": table, "Stop to 'Stopped'": stopped, "key to picture": moved}


def main():
    """Print medians and write them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lab.write_scratch(root)
        with lab.server(root, root / "settings") as address, lab.browser_page() as page:
            lab.open_notebook(page, address, "scratch.ipynb")
            lab.run_all(page, len(lab.SCRATCH))
            found = measure(page)
    figures = {
        what: {"median": round(statistics.median(s), 3), "max": round(max(s), 3), "n": len(s)}
        for what, s in found.items()
    }
    for what, f in figures.items():
        print(f"{what}: median {f['median']:.2f} s, slowest {f['max']:.2f} s (n = {f['n']})")
    figures["threads"] = torch.get_num_threads()
    (CHECKOUT / "results" / "live.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
