"""The live notebook under a person's hands: JupyterLab, a browser, the keyboard and the mouse."""

import re
import time
from urllib.parse import urlsplit

import lab
import pytest
from playwright.sync_api import expect

from sahelpers.live.forgetting import KNOBS

FOCUSED = r"""board => {
    const e = document.activeElement;
    if (!board.contains(e)) return null;
    const label = e.closest('.widget-inline-hbox')?.querySelector('.widget-label');
    const words = [label, e, e.parentElement].map(x => x?.innerText.replace('\u200b', '').trim());
    return words.find(text => text);
}"""
ROW = """name => {
    const picture = name.nextElementSibling.getBoundingClientRect();
    const text = name.getBoundingClientRect();
    const middle = (picture.top + picture.bottom) / 2;
    return text.right <= picture.left && text.top <= middle && middle <= text.bottom;
}"""


def press(where, name):
    where.get_by_role("button", name=name, exact=True).click()


def says(where, text):
    expect(where.locator("[role=status], [role=alert]")).to_contain_text(text)


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


def to(board, name, key, value):
    """Move a slider by a key, and wait for its readout."""
    slider(board, name).focus()
    board.page.keyboard.press(key)
    expect(row(board, name).locator(".widget-readout")).to_have_text(value)


def forget_tab(page):
    """The tab of forgetting at the first settings, with nothing running."""
    board = lab.open_tab(page, "Forget")
    press(board, "Reset")
    says(board, "Back at the baseline")
    rests(board)
    again = board.get_by_label("forget again on release")
    again.uncheck()
    return board


def run_shortly(board):
    """Forget with a budget of one pass over the replay samples: seconds, and not to the end."""
    to(board, "EPOCHS_UNL", "Home", "1")
    press(board, "Forget")


def forget_for_long(board):
    """Start a run that ends only with its budget: nothing pulls the class to its surrogate."""
    to(board, "NEG_LOSS_WEIGHT", "Home", "0")
    press(board, "Forget")
    says(board, "Forgetting, step")


def wait_until(condition):
    deadline = time.monotonic() + lab.PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def changed(image, seen):
    """Wait until the picture is one that was not seen before."""
    wait_until(lambda: lab.picture_of(image) not in seen)
    seen.add(lab.picture_of(image))


def fits(page, board, shot, name):
    """In a wide and in a narrow window nothing is cut, nothing lies over something else, and the
    name of every row of pictures stands beside it."""
    for size in (lab.SIZE, {"width": 1000, "height": 1400}, {"width": 800, "height": 1700}):
        page.set_viewport_size(size)
        wait_until(lambda: lab.crowding(board) == [])
        names = board.locator("span:has(+ img)")
        wait_until(lambda names=names: names.count() and all(n.evaluate(ROW) for n in names.all()))
        shot(page, f"{name}-{size['width']}")
    page.set_viewport_size(lab.SIZE)


def test_a_click_ten_seconds_after_run_all_is_answered(live, shot):
    live.wait_for_timeout(10_000)
    walk = lab.open_tab(live, "Explore")
    image = walk.locator("img").first
    seen = {lab.picture_of(image)}
    press(walk, "Draw z")
    changed(image, seen)
    fits(live, walk, shot, "explore")


def test_the_layout_at_two_widths(live):
    """The buttons stand in two rows of more than one, no code is cut, and the picture of Explore
    stands over its sliders where it cannot stand beside them."""
    board = forget_tab(live)
    walk = lab.open_tab(live, "Explore")
    for width, beside in ((1280, True), (1000, False)):
        live.set_viewport_size({"width": width, "height": 1200})
        lab.open_tab(live, "Explore")
        picture = walk.locator("img").first.bounding_box()
        handle = slider(walk, "direction 1").bounding_box()
        assert (picture["x"] > handle["x"]) == beside
        assert beside or picture["y"] + picture["height"] < handle["y"]
        lab.open_tab(live, "Forget")
        names = ("Forget", "Forget these too", "Stop", "Reset", "Save")
        buttons = [board.get_by_role("button", name=n, exact=True) for n in names]
        tops = [round(b.bounding_box()["y"]) for b in buttons]
        assert len(set(tops[:3])) == len(set(tops[3:])) == 1
        digits = [board.get_by_role("button", name=d, exact=True) for d in "0123456789"]
        assert len({round(d.bounding_box()["y"]) for d in digits}) == 1
        whole = "e => e.scrollHeight <= e.clientHeight + 1 && e.scrollWidth <= e.clientWidth + 1"
        assert board.locator("pre").evaluate(whole)


def test_the_explorer_by_keyboard_and_mouse(live):
    walk = lab.open_tab(live, "Explore")
    expect(walk.locator("img")).to_have_count(8)  # four models, two pictures each
    press(walk, "z = 0")
    expect(row(walk, "direction 1").locator(".widget-readout")).to_have_text("0.00")
    image = walk.locator("img").first
    seen = {lab.picture_of(image)}
    slider(walk, "direction 1").focus()
    for _ in range(3):
        live.keyboard.press("ArrowRight")
    expect(row(walk, "direction 1").locator(".widget-readout")).to_have_text("0.30")
    changed(image, seen)
    track = row(walk, "direction 2").locator(".noUi-target").bounding_box()
    live.mouse.click(track["x"] + 0.9 * track["width"], track["y"] + track["height"] / 2)
    changed(image, seen)
    walk.get_by_label("MIX WITH").select_option("5")
    says(walk, "class 5")
    to(walk, "SHARE OF IT", "End", "1.00")
    changed(image, seen)


def test_forgetting_by_mouse(live, shot):
    board = forget_tab(live)
    now = board.locator("img[alt=now]")
    assert lab.picture_of(now) == lab.picture_of(board.locator("img[alt=before]"))
    names = board.locator("span:has(+ img)").all_inner_texts()
    assert re.fullmatch("(shipped|kept), forgotten 3", names[2])
    lab.record(board)
    press(board, "Forget")
    says(board, "The judges are looking")
    assert lab.picture_of(now) != lab.picture_of(board.locator("img[alt=before]"))
    kept = lab.picture_of(now)
    says(board, "class 3 is in the table")
    assert lab.picture_of(now) == kept  # it was the new model's all the time
    expect(board.locator("table tr")).to_have_count(3)
    expect(board.locator("svg rect")).to_have_count(9)
    said, pictures = lab.recorded(board)
    assert any(re.search(r"step \d+: [\d.]+ from the surrogate", text) for text in said)
    assert pictures >= 4
    names = board.locator("span:has(+ img)").all_inner_texts()
    assert names == ["baseline", "hidden", "forgotten 3", "retrained", "before", "now"]
    fits(live, board, shot, "forget")


def test_stop_in_the_middle_and_forget_another(live):
    board = forget_tab(live)
    forget_for_long(board)
    press(board, "Stop")
    says(board, "Stopped")
    expect(board.locator("table tr")).to_have_count(3)
    rests(board)
    said = board.locator("[role=status]").inner_text()
    steps = re.search(r"Stopped: (\d+) steps", said)[1]
    expect(board.locator("span:has(+ img)").nth(2)).to_have_text(f"stopped at {steps}")
    press(board, "Forget")  # what the judges said of the last one leaves no gap meanwhile
    says(board, "Forgetting, step")
    expect(board.locator("table")).to_be_hidden()
    for _ in range(60):  # a picture may be exchanged between two looks
        places = [board.locator(part).first.bounding_box() for part in ("pre", "svg", "summary")]
        if all(places):
            code, curves, knobs = places
            above = max(code["y"] + code["height"], curves["y"] + curves["height"])
            if 0 <= knobs["y"] - above < 60:
                break
        board.page.wait_for_timeout(250)
    else:
        raise AssertionError(f"a gap above the knobs, or none of them is there: {places}")
    press(board, "Stop")
    says(board, "Stopped")
    rests(board)
    press(board, "Reset")
    says(board, "baseline")
    press(board, "3")
    press(board, "5")
    run_shortly(board)
    says(board, "class 5 is in the table")


def test_every_control_by_keyboard_alone(live):
    board = forget_tab(live)
    board.get_by_role("button", name="0", exact=True).focus()
    reached = []
    while (name := board.evaluate(FOCUSED)) is not None:
        reached.append(name)
        live.keyboard.press("Tab")
    sliders = [k.upper() for k in KNOBS]  # each has a handle and a number to type into
    assert reached == [  # the other three buttons rest as long as there is nothing to stop or keep
        *"0123456789", "SURROGATE", *sorted(2 * sliders, key=sliders.index),
        "forget again on release", "Forget", "Reset", "What the knobs do",
    ]  # fmt: skip
    code = board.locator("pre")
    slider(board, "GRAY_VALUE").focus()
    for _ in range(3):
        live.keyboard.press("ArrowRight")
    expect(code).to_contain_text("gray_value=0.65")
    to(board, "NEG_LOSS_WEIGHT", "Home", "0")  # a long run
    expect(code).to_contain_text("neg_loss_weight=0.0")
    board.get_by_role("button", name="Forget", exact=True).focus()
    live.keyboard.press("Space")
    says(board, "Forgetting, step")
    live.keyboard.press("Tab")
    assert board.evaluate(FOCUSED) == "Stop"
    live.keyboard.press("Space")
    says(board, "Stopped")
    rests(board)
    press(board, "Reset")
    expect(code).to_contain_text("AmnesiaConfig()")


def test_an_error_is_shown_in_the_status_line(live):
    board = forget_tab(live)
    board.get_by_label("SURROGATE").select_option("class:3")
    press(board, "Forget")
    expect(board.locator("[role=alert]")).to_contain_text("not a kept class")
    board.get_by_label("SURROGATE").select_option("class:8")
    run_shortly(board)
    says(board, "class 3 is in the table")


def test_sliders_released_while_it_runs(live):
    board = forget_tab(live)
    run_shortly(board)
    says(board, "class 3 is in the table")
    rests(board)
    before = lab.kernel_threads()
    to(board, "EPOCHS_UNL", "End", "100")
    forget_for_long(board)
    to(board, "EPOCHS_UNL", "Home", "1")
    board.get_by_label("forget again on release").check()
    handle = slider(board, "GRAY_VALUE")
    for k in range(20):
        handle.focus()
        live.keyboard.press("ArrowLeft" if k % 4 else "ArrowRight")
    says(board, "class 3 is in the table")
    rests(board)
    # from 0.5 up and three down, five times, in steps of 0.05, never below 0
    expect(board.locator("pre")).to_contain_text(re.compile(r"\(gray_value=0\.0, .*epochs_unl=1"))
    expect(row(board, "GRAY_VALUE").locator(".widget-readout")).to_have_text("0")
    wait_until(lambda: lab.kernel_threads() <= before)


def test_an_attack(live, shot):
    probe = lab.open_tab(live, "Attack")
    press(probe, "Reset")
    says(probe, "Ready: press Attack.")
    to(probe, "STEPS", "Home", "10")
    press(probe, "Attack")
    says(probe, "Done")
    expect(probe.locator("table tr")).to_have_count(4)
    expect(probe.locator("img")).to_have_count(3)
    fits(live, probe, shot, "attack")
    full = probe.locator(".progress-bar").bounding_box()["width"]
    probe.get_by_label("ATTACK").select_option("blind")
    expect(probe.locator("table tr")).to_have_count(0)
    bar = probe.locator(".progress-bar")
    wait_until(lambda: (bar.bounding_box() or {"width": 0})["width"] < 0.01 * full)
    press(probe, "Attack")
    says(probe, "Attacking")
    press(probe, "Stop")
    says(probe, "Stopped")
    rests(probe)


def test_two_browsers_at_once_and_a_reload_in_the_middle(live, address, page):
    """Both see one kernel; each has its own dashboards, and both are served."""
    board = forget_tab(live)
    lab.open_notebook(page, address, lab.NOTEBOOK)
    lab.run_all(page, page.locator(".jp-CodeCell").count())
    other = forget_tab(page)
    forget_for_long(board)
    run_shortly(other)
    says(other, "class 3 is in the table")
    press(board, "Stop")
    says(board, "Stopped")
    assert page.problems == []
    press(other, "Forget")
    page.reload()
    lab.idle(page)
    lab.run_all(page, page.locator(".jp-CodeCell").count())
    run_shortly(forget_tab(page))
    says(lab.open_tab(page, "Forget"), "class 3 is in the table")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    lab.copy_notebook(folder)
    with lab.server(folder, folder / "settings", ("voila", lab.NOTEBOOK)) as address:
        yield address


def test_the_app_shows_the_same_without_code_to_two_people(browser, app, shot):
    first, second = lab.new_page(browser), lab.new_page(browser)
    elsewhere = []  # what the page wants of other hosts
    for page in (first, second):
        page.on("request", lambda r: elsewhere.append(r) if urlsplit(r.url).netloc else None)
        page.goto(app)
    boards = [lab.open_tab(page, "Forget") for page in (first, second)]
    for board in boards:
        run_shortly(board)
    for page, board in zip((first, second), boards, strict=True):
        says(board, "class 3 is in the table")
        expect(page.get_by_text("AmnesiaDashboard(")).to_have_count(0)
        # of the kernel's only: Voila's page has errors of its own (fonts that it may not fetch)
        assert [p for p in page.problems if "Traceback" in p] == []
    shot(first, "app")
    own = urlsplit(app).netloc
    others = [r for r in elsewhere if urlsplit(r.url).netloc != own]
    # None was sent: the browser refuses each by the rule in voila.json, before any look-up.
    assert {r.url: r.failure for r in others if r.failure != "csp"} == {}
    assert own in {urlsplit(r.url).netloc for r in elsewhere}
    first.close()
    second.close()
