"""The dashboards under a person's hands: JupyterLab, a browser, the keyboard and the mouse."""

import json
import re
import time

import lab
import pytest
from playwright.sync_api import expect

from sahelpers.data import CHECKOUT


@pytest.fixture
def scratch(page, address):
    lab.open_notebook(page, address, "scratch.ipynb")
    lab.run_all(page, len(lab.SCRATCH))
    yield page
    assert page.problems == []


def cell(page, index):
    found = page.locator(".jp-CodeCell").nth(index)
    found.scroll_into_view_if_needed()
    return found


def press(where, name):
    where.get_by_role("button", name=name, exact=True).click()


def status(where):
    return where.locator("[role=status], [role=alert]")


def test_forgetting_by_mouse(scratch, shot):
    board = cell(scratch, lab.AMNESIA)
    grid = board.locator("img").last
    before = lab.picture_of(grid)
    press(board, "Forget")
    expect(status(board)).to_contain_text("from the surrogate", timeout=60_000)
    expect(board.locator("img")).to_have_count(2)
    expect(status(board)).to_contain_text("Forgotten: 3.", timeout=60_000)
    expect(board.locator("table tr")).to_have_count(3)
    assert lab.picture_of(grid) != before
    shot(scratch, "amnesia-1600")
    scratch.set_viewport_size({"width": 1000, "height": 1400})
    shot(scratch, "amnesia-1000")
    box = grid.bounding_box()
    assert box["x"] + box["width"] <= 1000


def test_stop_in_the_middle_and_forget_again(scratch):
    board = cell(scratch, lab.AMNESIA)
    board.get_by_role("button", name="3", exact=True).click()
    board.get_by_role("button", name="5", exact=True).click()
    press(board, "Forget")
    expect(status(board)).to_contain_text("Forgetting, step", timeout=60_000)
    press(board, "Stop")
    expect(status(board)).to_contain_text("Stopped", timeout=60_000)
    expect(board.locator("table tr")).to_have_count(3, timeout=60_000)
    expect(board.get_by_role("button", name="Stop", exact=True)).to_be_disabled(timeout=60_000)
    press(board, "Forget")
    expect(status(board)).to_contain_text("Forgotten: 5.", timeout=60_000)


def test_sliders_by_keyboard(scratch):
    board = cell(scratch, lab.AMNESIA)
    code = board.locator("textarea")
    expect(code).to_have_value(re.compile(r"AmnesiaConfig\(\)"))
    handle = board.locator(".noUi-handle").first  # GRAY_VALUE, at 0.5
    handle.focus()
    scratch.keyboard.press("ArrowRight")
    expect(code).to_have_value(re.compile(r"gray_value=0\.55"))
    scratch.keyboard.press("ArrowRight")
    scratch.keyboard.press("ArrowRight")
    expect(code).to_have_value(re.compile(r"gray_value=0\.65"))
    press(board, "Reset")
    expect(code).to_have_value(re.compile(r"AmnesiaConfig\(\)"))


def test_an_error_is_shown_in_the_status_line(scratch, shot):
    board = cell(scratch, lab.AMNESIA)
    board.locator("select").first.select_option("class:3")
    press(board, "Forget")
    expect(board.locator("[role=alert]")).to_contain_text("not a kept class", timeout=60_000)
    shot(scratch, "error")
    board.locator("select").first.select_option("class:8")
    press(board, "Forget")
    expect(status(board)).to_contain_text("Forgotten: 3.", timeout=60_000)


def test_twenty_quick_moves_while_it_runs(scratch):
    board = cell(scratch, lab.AMNESIA)
    press(board, "Forget")
    expect(status(board)).to_contain_text("Forgetting, step", timeout=60_000)
    handle = board.locator(".noUi-handle").first
    for k in range(20):
        handle.focus()
        scratch.keyboard.press("ArrowRight" if k % 4 else "ArrowLeft")
        if k % 5 == 4:
            press(board, "Forget")
    # 15 steps to the right and 5 to the left of 0.5, held at the end of the range: see the code
    settled = board.locator(".widget-readout").first.inner_text()
    press(board, "Forget")
    expect(status(board)).to_contain_text("Forgotten: 3.", timeout=90_000)
    expected = rf"gray_value={float(settled):g}"
    expect(board.locator("textarea")).to_have_value(re.compile(re.escape(expected)))


def test_the_explorer_by_keyboard_and_mouse(scratch, shot):
    walk = cell(scratch, lab.WALK)
    image = walk.locator("img")
    seen = {lab.picture_of(image)}
    handles = walk.locator(".noUi-handle")
    handles.nth(1).focus()  # the first direction; the handle before it mixes labels
    for _ in range(3):
        scratch.keyboard.press("ArrowRight")
    expect(walk.locator(".widget-readout").nth(1)).to_have_text("0.30")
    changed(image, seen)
    track = walk.locator(".noUi-target").nth(2).bounding_box()
    scratch.mouse.click(track["x"] + 0.9 * track["width"], track["y"] + track["height"] / 2)
    changed(image, seen)
    walk.locator("select").nth(1).select_option("5")
    expect(status(walk)).to_contain_text("class 5")
    press(walk, "Draw z")
    changed(image, seen)
    shot(scratch, "explorer-1600")


def changed(image, seen):
    """Wait until the picture is one that was not seen before."""
    deadline = time.monotonic() + 30
    while (now := lab.picture_of(image)) in seen:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen.add(now)


def test_an_attack(scratch, shot):
    probe = cell(scratch, lab.PROBE)
    press(probe, "Attack")
    expect(status(probe)).to_contain_text("Done", timeout=120_000)
    expect(probe.locator("table tr")).to_have_count(3)
    assert lab.picture_of(probe.locator("img"))
    shot(scratch, "probe-1600")
    probe.locator("select").first.select_option("blind")
    expect(probe.locator("table tr")).to_have_count(0)
    press(probe, "Attack")
    expect(status(probe)).to_contain_text("Attacking", timeout=60_000)
    press(probe, "Stop")
    expect(status(probe)).to_contain_text("Stopped", timeout=60_000)


def test_reload_and_run_again(page, address):
    lab.open_notebook(page, address, "scratch.ipynb")
    for _ in range(2):
        lab.run_all(page, len(lab.SCRATCH))
        board = cell(page, lab.AMNESIA)
        press(board, "Forget")
        expect(status(board)).to_contain_text("Forgotten: 3.", timeout=60_000)
        page.reload()
        lab.idle(page)
    assert page.problems == []


def test_the_app_shows_the_same_dashboards_without_code(page, tmp_path, shot):
    lab.write_scratch(tmp_path)
    with lab.server(tmp_path, tmp_path / "settings", ("voila", "scratch.ipynb")) as address:
        page.goto(address, timeout=120_000)
        press(page, "Forget")
        expect(page.get_by_text("Forgotten: 3.").first).to_be_visible(timeout=90_000)
        expect(page.locator("table tr").first).to_be_visible()
        expect(page.get_by_text("AmnesiaDashboard(")).to_have_count(0)
        shot(page, "app")


def notebooks_with_a_dashboard():
    found = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    return [n.name for n in found if "sa.widgets." in json.dumps(json.loads(n.read_text()))]


@pytest.mark.parametrize("name", notebooks_with_a_dashboard())
def test_every_notebook_shows_its_dashboard(page, address, name, shot):
    lab.open_notebook(page, address, name)
    cells = page.locator(".jp-CodeCell").count()
    lab.run_all(page, cells, seconds=400)
    board = page.locator(".jp-CodeCell", has=page.locator(".widget-vbox")).first
    board.scroll_into_view_if_needed()
    seen = {lab.picture_of(board.locator("img").last)} if "04" not in name else set()
    press(board, {"01": "Draw z", "03": "Forget", "04": "Attack"}[name[:2]])
    expect(status(board)).to_contain_text(
        {"01": "Label", "03": "Forgotten:", "04": "Done"}[name[:2]], timeout=120_000
    )
    changed(board.locator("img").last, seen)
    shot(page, name.removesuffix(".ipynb"))
    assert page.problems == []
