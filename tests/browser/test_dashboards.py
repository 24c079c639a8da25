"""The dashboards under a person's hands: JupyterLab, a browser, the keyboard and the mouse."""

import json
import re
import time

import lab
import pytest
from playwright.sync_api import expect

from sahelpers.config import CHECKOUT
from sahelpers.live.forget import KNOBS

FOCUSED = """board => {
    const e = document.activeElement;
    if (!board.contains(e)) return null;
    const label = e.closest('.widget-inline-hbox')?.querySelector('.widget-label');
    return label?.innerText.trim() || e.innerText.trim();
}"""


def press(where, name):
    where.get_by_role("button", name=name, exact=True).click()


def status(where):
    return where.locator("[role=status], [role=alert]")


def says(where, text):
    expect(status(where)).to_contain_text(text)


def rests(board):
    """Wait until nothing runs: Stop can be pressed only while something does."""
    expect(board.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def row(board, name):
    """A control with its label and its readout."""
    label = board.page.locator(".widget-label", has_text=re.compile(f"^{name}$"))
    return board.locator(".widget-inline-hbox", has=label)


def slider(board, name):
    """The handle of a slider, by the slider's label."""
    return row(board, name).locator(".noUi-handle")


def forget_for_long(board):
    """Start a run that ends only with its budget: nothing pulls the class to its surrogate."""
    slider(board, "NEG_LOSS_WEIGHT").focus()
    board.page.keyboard.press("Home")
    expect(row(board, "NEG_LOSS_WEIGHT").locator(".widget-readout")).to_have_text("0")
    press(board, "Forget")
    says(board, "Forgetting, step")


def wait_until(condition):
    deadline = time.monotonic() + lab.PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def changed(image, seen):
    """Wait until the picture is one that was not seen before."""
    wait_until(lambda: lab.picture_of(image) not in seen)
    seen.add(lab.picture_of(image))


def fits(page, board, shot, name):
    """In a wide and in a narrow window nothing is cut and nothing lies over something else."""
    for size in (lab.SIZE, {"width": 1000, "height": 1400}):
        page.set_viewport_size(size)
        wait_until(lambda: lab.crowding(board.locator(".widget-vbox").first) == [])
        shot(page, f"{name}-{size['width']}")
    page.set_viewport_size(lab.SIZE)


def beside_their_rows(board, *names):
    """Whether each name stands to the left of its row of the first picture."""
    picture = board.locator("img").first.bounding_box()
    for k, name in enumerate(names):
        box = board.get_by_text(name, exact=True).bounding_box()
        middle = picture["y"] + picture["height"] * (k + 0.5) / len(names)
        if not (
            box["x"] + box["width"] <= picture["x"] + 1
            and box["y"] <= middle <= box["y"] + box["height"]
        ):
            return False
    return True


def test_forgetting_by_mouse(scratch, shot):
    board = lab.run_cell(scratch, lab.AMNESIA)
    grid = board.locator("img").last
    before = lab.picture_of(grid)
    lab.record(board)
    press(board, "Forget")
    says(board, "Forgotten: 3.")
    expect(board.locator("table tr")).to_have_count(3)
    assert lab.picture_of(grid) != before
    said, pictures = lab.recorded(board)
    assert any(re.search(r"step \d+: [\d.]+ from the surrogate", text) for text in said)
    assert pictures >= 4  # both grids and two frames at least
    fits(scratch, board, shot, "amnesia")
    scratch.set_viewport_size({"width": 1280, "height": 900})  # with the file browser beside it
    wait_until(lambda: beside_their_rows(board, "3 forget", "0 kept"))
    shot(scratch, "amnesia-1280")


def test_stop_in_the_middle_and_forget_again(scratch):
    board = lab.run_cell(scratch, lab.AMNESIA)
    forget_for_long(board)
    press(board, "Stop")
    says(board, "Stopped")
    expect(board.locator("table tr")).to_have_count(3)
    rests(board)
    press(board, "Reset")
    says(board, "baseline")
    press(board, "3")
    press(board, "5")
    press(board, "Forget")
    says(board, "Forgotten: 5.")


def test_every_control_by_keyboard_alone(scratch):
    board = lab.run_cell(scratch, lab.AMNESIA)
    board.get_by_role("button", name="0", exact=True).focus()
    reached = []
    while (name := board.evaluate(FOCUSED)) is not None:
        reached.append(name)
        scratch.keyboard.press("Tab")
    sliders = [k.upper() for k in KNOBS]  # each has a handle and a number to type into
    assert reached == [  # the other three buttons rest as long as there is nothing to stop or keep
        *"0123456789", "SURROGATE", *sorted(2 * sliders, key=sliders.index), "Forget", "Reset",
        "AS CODE", "What the knobs do",
    ]  # fmt: skip
    code = board.locator("textarea")
    slider(board, "GRAY_VALUE").focus()
    for _ in range(3):
        scratch.keyboard.press("ArrowRight")
    expect(code).to_have_value(re.compile(r"gray_value=0\.65"))
    slider(board, "NEG_LOSS_WEIGHT").focus()
    scratch.keyboard.press("Home")  # a long run
    expect(code).to_have_value(re.compile(r"neg_loss_weight=0\.0"))
    board.get_by_role("button", name="Forget", exact=True).focus()
    scratch.keyboard.press("Space")
    says(board, "Forgetting, step")
    scratch.keyboard.press("Tab")
    assert board.evaluate(FOCUSED) == "Stop"
    scratch.keyboard.press("Space")
    says(board, "Stopped")
    rests(board)
    press(board, "Reset")
    expect(code).to_have_value(re.compile(r"AmnesiaConfig\(\)"))


def test_an_error_is_shown_in_the_status_line(scratch, shot):
    board = lab.run_cell(scratch, lab.AMNESIA)
    board.get_by_label("SURROGATE").select_option("class:3")
    press(board, "Forget")
    expect(board.locator("[role=alert]")).to_contain_text("not a kept class")
    fits(scratch, board, shot, "error")
    board.get_by_label("SURROGATE").select_option("class:8")
    press(board, "Forget")
    says(board, "Forgotten: 3.")


def test_twenty_quick_moves_while_it_runs(scratch):
    board = lab.run_cell(scratch, lab.AMNESIA)
    press(board, "Forget")
    says(board, "Forgotten: 3.")
    rests(board)
    before = lab.kernel_threads()
    forget_for_long(board)
    slider(board, "NEG_LOSS_WEIGHT").focus()
    for _ in range(3):  # 0.001, 0.002 and back to 0.003
        scratch.keyboard.press("ArrowRight")
    handle = slider(board, "GRAY_VALUE")
    for k in range(20):
        handle.focus()
        scratch.keyboard.press("ArrowLeft" if k % 4 else "ArrowRight")
        if k % 5 == 4:
            press(board, "Forget")
    press(board, "5")
    press(board, "Forget")
    says(board, "Forgotten: 3, 5.")
    rests(board)
    # from 0.5 up and three down, five times, in steps of 0.05, never below 0
    expect(board.locator("textarea")).to_have_value(
        "result = sa.forget(story.baseline.model, story.fishers.without((3, 5)), (3, 5), "
        "sa.AmnesiaConfig(gray_value=0.0))"
    )
    expect(row(board, "GRAY_VALUE").locator(".widget-readout")).to_have_text("0")
    wait_until(lambda: lab.kernel_threads() <= before)


def test_the_explorer_by_keyboard_and_mouse(scratch, shot):
    walk = lab.run_cell(scratch, lab.WALK)
    image = walk.locator("img")
    seen = {lab.picture_of(image)}
    slider(walk, "direction 1").focus()
    for _ in range(3):
        scratch.keyboard.press("ArrowRight")
    expect(row(walk, "direction 1").locator(".widget-readout")).to_have_text("0.30")
    changed(image, seen)
    track = row(walk, "direction 2").locator(".noUi-target").bounding_box()
    scratch.mouse.click(track["x"] + 0.9 * track["width"], track["y"] + track["height"] / 2)
    changed(image, seen)
    walk.get_by_label("MIX WITH").select_option("5")
    says(walk, "class 5")
    press(walk, "Draw z")
    changed(image, seen)
    fits(scratch, walk, shot, "explorer")


def test_an_attack(scratch, shot):
    probe = lab.run_cell(scratch, lab.PROBE)
    press(probe, "Attack")
    says(probe, "Done")
    expect(probe.locator("table tr")).to_have_count(3)
    assert lab.picture_of(probe.locator("img"))
    fits(scratch, probe, shot, "probe")
    probe.get_by_label("ATTACK").select_option("blind")
    expect(probe.locator("table tr")).to_have_count(0)
    press(probe, "Attack")
    says(probe, "Attacking")
    press(probe, "Stop")
    says(probe, "Stopped")
    rests(probe)


def test_reload_in_the_middle_and_run_again(scratch):
    board = lab.run_cell(scratch, lab.AMNESIA)
    press(board, "Forget")
    scratch.reload()
    lab.idle(scratch)
    lab.run_all(scratch, len(lab.SCRATCH))
    press(board, "Forget")
    says(board, "Forgotten: 3.")


def test_the_app_shows_the_same_dashboards_without_code(page, tmp_path, shot):
    lab.write_scratch(tmp_path)
    with lab.server(tmp_path, tmp_path / "settings", ("voila", "scratch.ipynb")) as address:
        page.goto(address)
        press(page, "Forget")
        expect(page.get_by_text("Forgotten: 3.").first).to_be_visible()
        expect(page.locator("table tr").first).to_be_visible()
        expect(page.get_by_text("AmnesiaDashboard(")).to_have_count(0)
        shot(page, "app")
        # of the kernel's only: Voila's page has errors of its own (fonts from the web, a loader)
        assert [p for p in page.problems if "Traceback" in p] == []


def notebooks_with_a_dashboard():
    found = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    return [n.name for n in found if "sa.live." in json.dumps(json.loads(n.read_text()))]


@pytest.mark.parametrize("name", notebooks_with_a_dashboard())
def test_every_notebook_shows_its_dashboard(page, address, name, shot):
    lab.open_notebook(page, address, name)
    lab.run_all(page, page.locator(".jp-CodeCell").count())
    board = page.locator(".jp-CodeCell", has=page.locator(".widget-vbox")).first
    board.scroll_into_view_if_needed()
    seen = {lab.picture_of(board.locator("img").last)} if "04" not in name else set()
    press(board, {"01": "Draw z", "03": "Forget", "04": "Attack"}[name[:2]])
    says(board, {"01": "Label", "03": "Forgotten:", "04": "Done"}[name[:2]])
    changed(board.locator("img").last, seen)
    shot(page, name.removesuffix(".ipynb"))
    assert page.problems == []
    lab.shut_down(page)
