"""The dashboards without a browser: values are set, buttons clicked, pictures and texts read."""

import ast
import base64
import html
import io
import re
import sys
import threading
import time
import types
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import torch
from IPython.core.events import EventManager, available_events

import sahelpers as sa
from sahelpers import live
from sahelpers.config import CHECKOUT
from sahelpers.live import attacking, base
from sahelpers.live import forgetting as module
from sahelpers.live.base import Dashboard, Tabs, bars, curves, png, sheet, table
from sahelpers.live.worker import Stopped, release_idle_threads, steps_of
from sahelpers.store.files import part_path

# Their stories begin with a model that is given, and its recipe is of no interest here.
pytestmark = pytest.mark.filterwarnings("ignore:How the given baseline was trained")

QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=160, batch_size=8, cooldown=5, tolerance=0.0)
LONG = replace(QUICK, epochs_unl=100_000)


@pytest.fixture(params=["thread", "colab"])
def where(request, monkeypatch):
    """Both ways of running: a worker thread, and Colab's main thread."""
    if request.param == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    return request.param


@pytest.fixture
def story(tiny, tiny_fishers, scoring, give_judges, mnist, monkeypatch, tmp_path):
    """A story whose models are all there, untrained."""
    monkeypatch.setattr(module, "JUDGED", 4)
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.1)
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    made = sa.Story((mnist, mnist), baseline=tiny, amnesia=QUICK)
    made.fishers = tiny_fishers
    give_judges(made, scoring)
    return made


@pytest.fixture
def board(story):
    made = live.AmnesiaDashboard(story)
    yield made
    made.worker.stop()
    assert made.worker.wait(20)


def done(dashboard):
    assert dashboard.worker.wait(120)
    assert dashboard.error is None, dashboard.error
    return dashboard.status.value


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def pictures(widget):
    """The pictures in a piece of HTML, row by row, as arrays."""
    found = re.findall(r"data:image/png;base64,([^\"]*)", widget.value)
    return [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(f)), format="png")[..., 0]
        for f in found
    ]


def every_widget(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every_widget(child)


def test_only_what_works_everywhere_is_used():
    files = sorted((CHECKOUT / "sahelpers" / "live").glob("*.py"))
    assert len(files) == 6
    for file in files:
        names = {
            n.attr for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Attribute)
        }
        assert not names & {"Output", "interact", "interactive", "pyplot", "plt", "show"}, file


def test_the_text_beside_the_widget_is_the_same_everywhere(board):
    assert repr(board) == "AmnesiaDashboard: live where this notebook runs"


# Forgetting


def test_sliders_are_the_fields(board):
    for name, slider in board.knobs.items():
        assert slider.description == name.upper()
        assert tuple(v for _, v in slider.options) == steps_of(QUICK, name)
        assert slider.value == getattr(QUICK, name)


def test_every_control_has_a_label(board):
    named = 0
    for widget in every_widget(board):
        if type(widget).__name__ in ("SelectionSlider", "Dropdown", "ToggleButton", "Button",
                                     "FloatProgress", "Checkbox"):  # fmt: skip
            assert widget.description
            named += 1
    assert named == 10 + 1 + 11 + 1 + 5 + 1


def test_a_click_forgets(where, board, tiny, tiny_fishers):
    before, now = pictures(board.grid)
    assert np.array_equal(before, now)
    board.knobs["gray_value"].value = 0.25
    board.forget.click()
    assert "Stopped" not in (said := done(board))
    assert f"{board.controller.result.steps} steps" in said
    plain = sa.forget(tiny, tiny_fishers.without(3), 3, board.controller.config)
    assert board.controller.config.gray_value == 0.25
    for a, b in zip(board.controller.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert np.array_equal(pictures(board.grid)[0], before)
    after = pictures(board.grid)[1]
    assert after.shape == (180, 600)
    images, _ = board.controller.pictures()
    for k in range(80):  # class k // 8, and of each class the first three
        c, r = divmod(k, 8)
        if r < 3:
            tile = after[60 * r + 2 : 60 * r + 58 : 2, 60 * c + 2 : 60 * c + 58 : 2]
            assert np.abs(tile - images[k, 0].numpy()).max() <= 2 / 255
    assert re.findall('alt="([^"]*)"', board.models.value) == ["baseline", "hidden", "ended at 20"]
    assert "replay" in board.curves.value
    assert "distance" not in board.curves.value
    assert board.cost.value.count("<rect") == 9
    assert board.table.layout.display is board.cost.layout.display is None
    assert board.table.value.count("<tr>") == 3
    assert board.progress.value == 1
    assert board.stop.disabled
    assert not board.save.disabled


def test_in_colab_the_click_itself_does_the_work(monkeypatch, story):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    board = live.AmnesiaDashboard(story)
    threads = []
    board.progress.observe(lambda _: threads.append(threading.current_thread()), "value")
    board.forget.click()
    assert board.controller.judged_rows
    assert not board.worker.busy
    assert len(threads) >= 2
    assert set(threads) == {threading.main_thread()}


def test_the_grid_is_new_before_the_judges_look(board, monkeypatch):
    grid, seen = board.grid.value, []
    judge = board.controller.judge

    def looking(*given):
        seen.append(board.grid.value)
        judge(*given)

    monkeypatch.setattr(board.controller, "judge", looking)
    for _ in range(2):
        board.forget.click()
        done(board)
    assert seen == [board.grid.value] * 2
    assert seen[0] != grid
    assert board.table.value


def test_buttons_say_what_can_be_done(board):
    assert board.stop.disabled
    assert board.another.disabled
    assert board.save.disabled
    board.controller.config = LONG
    board.forget.click()
    until(lambda: board.curves.value)
    assert not board.stop.disabled
    board.stop.click()
    done(board)
    assert board.stop.disabled
    assert not board.another.disabled


def test_stop_keeps_the_model_so_far(board, tiny):
    board.controller.config = LONG
    board.forget.click()
    until(lambda: board.progress.value > 0)
    board.stop.click()
    assert "Stopped" in done(board)
    result = board.controller.result
    assert result.reason == "stopped"
    assert result.steps < 100_000
    assert board.table.value
    assert f"of the model on screen: stopped at step {result.steps}" in board.code.value
    assert f'alt="stopped at {result.steps}"' in board.models.value
    assert 0 < board.progress.value < 1


def test_another_one_too(board):
    board.forget.click()
    done(board)
    board.classes[3].value, board.classes[7].value = False, True
    board.another.click()
    assert "class 3, 7 is in the table" in done(board)
    assert board.code.value.count("sa.forget(") == 2


@pytest.mark.parametrize("button", ["forget", "another"])
def test_an_error_reaches_the_status_line(where, board, button):
    board.surrogate.value = "class:3"
    getattr(board, button).click()
    assert board.worker.wait(20)
    assert 'role="alert"' in board.status.value
    assert "class:3" in board.status.value
    assert "Traceback" not in board.status.value
    board.error = None
    board.surrogate.value = "class:8"
    board.forget.click()
    assert "steps" in done(board)


def test_no_class_at_all_is_refused(board, tiny):
    board.classes[3].value = False
    assert "at least one" in board.status.value
    assert board.error is None
    board.forget.click()
    assert 'role="alert"' in board.status.value
    assert "at least one" in board.status.value
    assert not board.worker.busy
    assert board.controller.model is tiny


def test_the_last_of_many_quick_moves_wins(board):
    board.controller.config = LONG
    board.forget.click()
    until(lambda: board.curves.value)
    threads = threading.active_count()
    for k in range(20):
        board.knobs["gray_value"].value = k % 7 / 20
        board.controller.change(epochs_unl=1)
        board.classes[k % 10].value = not board.classes[k % 10].value
        board.forget.click()
        assert threading.active_count() <= threads + 1
    done(board)
    chosen = tuple(k for k, b in enumerate(board.classes) if b.value)
    (run,) = board.controller.chain
    assert run.forget_class == chosen == board.controller.result.forget_class
    assert run.config.gray_value == board.knobs["gray_value"].value == 19 % 7 / 20
    assert board.controller.result.reason != "stopped"
    until(lambda: threading.active_count() < threads)


def test_the_new_model_is_shown_before_the_judges_look(board, monkeypatch):
    seen = []

    def judge(*_):
        seen.append(pictures(board.grid)[1])
        assert board.table.layout.display == "none"  # what it says is of the model before

    board.forget.click()
    done(board)
    monkeypatch.setattr(board.controller, "judge", judge)
    monkeypatch.setattr(board, "_fill_table", lambda: None)
    board.knobs["gray_value"].value = 0.0
    board.forget.click()
    done(board)
    wanted = png(board.controller.pictures()[0][::8], 10)  # the first of each class
    wanted = matplotlib.image.imread(io.BytesIO(wanted), format="png")[..., 0]
    assert np.array_equal(seen[0][:60], wanted)


def test_a_released_slider_forgets_again_if_asked_to(board):
    board.knobs["gray_value"].value = 0.25
    assert not board.worker.busy
    assert board.controller.result is None
    board.again.value = True
    board.knobs["gray_value"].value = 0.3
    done(board)
    assert [run.config.gray_value for run in board.controller.chain] == [0.3]
    board.another.disabled = False
    board.classes[3].value, board.classes[7].value = False, True
    board.another.click()
    done(board)
    board.knobs["gray_value"].value = 0.4  # what was added is not thrown away
    assert not board.worker.busy
    assert len(board.controller.chain) == 2


def test_a_slider_released_in_a_run_ends_it_and_one_run_follows(board):
    runs, forget = [], board.controller.forget
    board.controller.forget = lambda *given: runs.append(1) or forget(*given)
    board.again.value = True
    board.controller.config = LONG
    board.forget.click()
    until(lambda: board.curves.value)
    for k in range(10):
        board.controller.config = replace(board.controller.config, epochs_unl=1)
        board.knobs["gray_value"].value = k / 20
    said = done(board)
    assert "Done" in said or "used up" in said
    assert len(runs) < 11  # those that came while one ended became one
    (run,) = board.controller.chain
    assert run.config.gray_value == 9 / 20
    assert board.controller.result.reason != "stopped"


@pytest.mark.parametrize(("limit", "on"), [(1e9, True), (0.0, False)])
def test_the_last_run_s_time_decides_unless_the_person_did(board, monkeypatch, limit, on):
    monkeypatch.setattr(module, "QUICK", limit)
    assert board.again.value is False
    board.forget.click()
    done(board)
    assert board.again.value is on
    board.again.value = not on
    board.forget.click()
    done(board)
    assert board.again.value is not on


def test_reset_while_it_runs(where, board, tiny):
    grid, models = board.grid.value, board.models.value
    if where == "thread":
        board.controller.config = LONG
    board.knobs["gamma"].value = 5.0
    board.classes[4].value = True
    board.again.value = True
    board.forget.click()
    board.reset.click()
    assert "baseline" in done(board)
    assert board.controller.model is tiny
    assert board.controller.config == QUICK
    assert board.knobs["gamma"].value == QUICK.gamma
    assert [k for k, b in enumerate(board.classes) if b.value] == [3]
    assert (board.grid.value, board.models.value) == (grid, models)
    assert board.table.layout.display == "none"
    assert board.curves.value == ""
    assert board.save.disabled


def test_save_writes_a_picture_and_its_code(board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board.knobs["gray_value"].value = 0.25
    board.forget.click()
    done(board)
    board.save.click()
    assert board.error is None
    name = board.controller.name()
    assert "forgotten_3_" in name
    assert "gray_value-0.25" in name
    assert {f"{name}.png", f"{name}.py"} <= {p.name for p in tmp_path.iterdir()}
    assert name in board.status.value
    assert matplotlib.image.imread(tmp_path / f"{name}.png").shape == (500, 1000, 4)
    saved = (tmp_path / f"{name}.py").read_text()
    assert html.escape(saved) in board.code.value
    board.knobs["gray_value"].value = 0.3  # the code on screen is of the next run then
    assert html.escape(saved) not in board.code.value
    board.save.click()
    assert (tmp_path / f"{name}_2.py").read_text() == saved


def test_save_writes_over_nothing_and_leaves_no_half(board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board.forget.click()
    done(board)
    name = board.controller.name()
    (tmp_path / f"{name}.png").write_text("of somebody else")
    (tmp_path / f"{name}_2.py").write_text("too")
    board.save.click()
    assert board.error is None
    assert f"Wrote {name}_3.png and {name}_3.py" in board.status.value
    there = {p.name for p in tmp_path.iterdir() if p.name.startswith("forgotten")}
    assert there == {f"{name}.png", f"{name}_2.py", f"{name}_3.png", f"{name}_3.py"}
    assert (tmp_path / f"{name}.png").read_text() == "of somebody else"
    assert (tmp_path / f"{name}_2.py").read_text() == "too"
    with pytest.raises(OSError, match="nowhere"):
        module.write_both("nowhere/x", b"", "")


def test_what_was_not_stopped_is_not_called_stopped(board):
    board.controller.config = LONG
    board.forget.click()
    until(lambda: board.curves.value)
    board.stop.click()
    done(board)
    stopped = board.controller.result.steps
    board.controller.config = QUICK
    board.classes[3].value, board.classes[7].value = False, True
    board.another.click()
    done(board)
    assert board.controller.name().startswith(f"forgotten_3_stopped-at-{stopped}_")
    assert "_7_20-steps" in board.controller.name()
    assert "of the model on screen: 20 steps" in board.code.value


def test_the_bar_is_empty_beside_an_error(board):
    board.forget.click()
    done(board)
    assert board.progress.value == 1
    board.surrogate.value = "class:3"
    board.forget.click()
    assert board.worker.wait(20)
    assert 'role="alert"' in board.status.value
    assert board.progress.value == 0


def test_the_code_follows_the_sliders_after_a_run(board):
    board.forget.click()
    done(board)
    board.again.value = False
    assert "of the model on screen: 20 steps" in board.code.value
    board.knobs["gray_value"].value = 0.25
    assert "of what Forget will make with these settings" in board.code.value
    assert "gray_value=0.25" in board.code.value
    board.knobs["gray_value"].value = 0.5
    assert "of the model on screen: 20 steps" in board.code.value


def test_the_curves_reach_the_last_step(board, monkeypatch):
    monkeypatch.setattr(module, "FRAME_SECONDS", 100.0)
    board.forget.click()
    done(board)
    assert "up to step 20<" in board.curves.value


def test_stop_ends_the_training_of_a_judge(where, board, monkeypatch):
    def judge(stop, show):
        monkeypatch.setattr(base.time, "perf_counter", lambda: time.monotonic() + 1000)
        show(0.4)
        raise Stopped

    monkeypatch.setattr(board.controller, "judge", judge)
    shares = []
    board.progress.observe(lambda event: shares.append(event["new"]), "value")
    board.forget.click()
    said = done(board)
    assert "Stopped before the judges had looked." in said
    assert 0.4 in shares
    assert board.progress.value == 0
    assert not board.another.disabled


def test_name_picture_and_code_that_are_saved_are_of_one_result(board, tmp_path, monkeypatch):
    """A run that ends while the picture is drawn waits."""
    monkeypatch.chdir(tmp_path)
    board.forget.click()
    done(board)
    pictures, changing = board.controller.pictures, []

    def meanwhile():
        thread = threading.Thread(target=board.controller.reset)
        changing.append(thread)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        return pictures()

    monkeypatch.setattr(board.controller, "pictures", meanwhile)
    board.save.click()
    assert board.error is None
    (thread,) = changing
    thread.join()
    (code,) = tmp_path.glob("forgotten_3*.py")
    assert "sa.forget(" in code.read_text()


# Walking


def test_a_slider_moves_the_picture(where, tiny):
    walk = live.LatentExplorer({"before": tiny, "after": tiny})
    first = walk.picture.value
    walk.z[0].value = 2.5
    done(walk)
    assert walk.picture.value != first
    walk.centre.click()
    done(walk)
    assert walk.z[0].value == 0
    assert walk.picture.value == first


def test_a_mixed_label_is_named_and_drawn(tiny):
    walk = live.LatentExplorer({"before": tiny}, 3, 8)
    walk.mix.value, walk.second.value = 0.25, 5
    said = done(walk)
    assert "0.75 of class 3 and 0.25 of class 5" in said
    assert (walk.controller.second, walk.controller.mix) == (5, 0.25)


def test_draws_move_the_sliders_too(tiny):
    walk = live.LatentExplorer({"before": tiny})
    walk.draw.click()
    done(walk)
    shown = [slider.value for slider in walk.z]
    assert shown == pytest.approx(walk.controller.position.tolist(), abs=0.051)
    assert any(shown)


def test_the_last_position_is_drawn(tiny):
    walk = live.LatentExplorer({"before": tiny})
    for k in range(20):
        walk.z[k % 3].value = k / 10
    done(walk)
    last = walk.picture.value
    walk._show()
    assert walk.picture.value == last
    assert walk.controller.position.tolist() == pytest.approx([1.8, 1.9, 1.7])


def test_one_slider_per_direction_up_to_twenty():
    walk = live.LatentExplorer({"before": sa.CVAE(latent_dim=24).eval()})
    assert len(walk.z) == 20
    walk.draw.click()
    done(walk)
    assert walk.controller.position[20:].abs().sum() > 0


# Probing


@pytest.fixture
def shapes(give_judges, monkeypatch, tmp_path):
    """A story of three classes with names, whose models are all there, untrained."""
    monkeypatch.setattr(module, "JUDGED", 4)
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    torch.manual_seed(0)
    images = torch.rand((36, 1, 8, 8))
    data = sa.LabelledImages.from_arrays(images, [0, 1, 2] * 12, ["bar", "rectangle", "<o>"])
    fisher = sa.FisherConfig(n_fisher_samples=30)
    model = sa.CVAE("mlp", 3, 3, (1, 8, 8))
    made = sa.Story((data, data), baseline=model, fisher=fisher, amnesia=QUICK)
    give_judges(made, {r: sa.Judge(r, 3, (1, 8, 8)).eval() for r in ("open_set", "closed_set")})
    return made


def test_the_dashboards_of_three_classes_open_and_show_their_names(shapes):
    """Class 8 was not a class."""
    names = shapes.train.class_names
    walk = live.LatentExplorer({"baseline": shapes.baseline.model}, names=names)
    assert (walk.first.label, walk.second.label) == ("<o>", "bar")
    assert "1.00 of class &lt;o&gt; and 0.00 of class bar" in walk.status.value
    assert "&lt;o&gt;" in walk.picture.value
    assert "<o>" not in walk.picture.value
    walk.first.label = "rectangle"
    assert walk.controller.first == 1
    with pytest.raises(ValueError, match=r"names=.* give 3, one per class"):
        live.LatentExplorer({"baseline": shapes.baseline.model}, names=("a", "b"))

    prober = live.ProbeDashboard(shapes, "rectangle")
    assert (prober.label.label, prober.controller.forget_class) == ("rectangle", 1)
    assert live.ProbeDashboard(shapes).label.label == "<o>"


def test_a_run_says_the_names_of_what_it_forgets(shapes):
    board = live.AmnesiaDashboard(shapes, "rectangle")
    assert [b.description for b in board.classes] == ["bar", "rectangle", "<o>"]
    assert [b.value for b in board.classes] == [False, True, False]
    assert ("class:2 <o>", "class:2") in board.surrogate.options
    assert '<abbr title="rectangle">recta…</abbr>' in board.grid.value
    board.classes[2].value = True
    assert "Chosen: rectangle, &lt;o&gt;." in board.status.value
    board.classes[1].value = False
    board.forget.click()
    assert "class &lt;o&gt; is in the table" in done(board)
    assert "rectangle<" in board.cost.value  # on hovering
    assert board.controller.name().startswith("forgotten_2")  # files keep numbers


@pytest.fixture
def prober(story, tiny, monkeypatch):
    torch.manual_seed(2)
    monkeypatch.setattr(sa.Story, "guide", sa.Judge("guide").eval())
    models = {"forgotten": tiny, "retrained": sa.CVAE(latent_dim=3).eval()}
    return live.ProbeDashboard(story, models=models)


@pytest.mark.parametrize("attack", ["prototype", "blind", "guided"])
def test_an_attack_fills_the_table(where, prober, attack):
    prober.attack.value = attack
    prober.knobs["steps"].value = 10
    prober.knobs["n_restarts"].value = 5
    assert prober.picture.value == ""
    prober.run.click()
    assert "Done" in done(prober)
    assert prober.table.value.count("<tr>") == 3
    assert f"Attack {attack}, class 3: restarts out of 5" in prober.table.value
    assert [p.shape for p in pictures(prober.picture)] == 2 * [(60, 300)]
    assert pictures(prober.picture)[0].std() > 0
    assert "steps=10" in prober.code.value


def test_models_are_trained_on_before_the_attack_where_one_says_so(prober):
    prober.train_on.value = 400
    prober.knobs["steps"].value = 10
    assert "sa.heal(model, (3,), story.train, 400)" in prober.code.value
    prober.run.click()
    assert "Done" in done(prober)
    assert "class 3 after 400 steps of further training: restarts" in prober.table.value
    prober.reset.click()
    assert prober.train_on.value == 0
    assert "sa.heal" not in prober.code.value


def test_only_the_priors_of_the_attack_are_shown(prober):
    def shown():
        return {n for n, s in prober.knobs.items() if s.layout.display is None}

    assert shown() == {"n_restarts", "steps", "alpha_tv", "l2z"}
    prober.attack.value = "guided"
    assert shown() == {"n_restarts", "steps", "l2z"}
    prober.attack.value = "blind"
    assert len(shown()) == 9
    assert prober.knobs["steps"].value == 2500
    assert prober.controller.config == sa.ProbeConfig()


def test_an_attack_can_be_stopped_and_changed(prober):
    prober.knobs["steps"].value = 5000
    prober.run.click()
    until(lambda: prober.progress.value > 0)
    prober.stop.click()
    assert "Stopped" in done(prober)
    assert prober.table.value == ""
    assert prober.progress.value == 0
    prober.run.click()
    until(lambda: not prober.stop.disabled)
    prober.label.value = 5
    done(prober)
    assert prober.table.value == ""
    prober.knobs["steps"].value = 10
    prober.run.click()
    done(prober)
    assert "class 5" in prober.table.value
    assert prober.progress.value == 1
    assert "of the table" in prober.code.value
    prober.knobs["steps"].value = 20
    assert "of what Attack will do with these settings" in prober.code.value
    prober.attack.value = "guided"
    assert prober.progress.value == 0
    prober.reset.click()
    assert prober.label.value == 3
    assert prober.table.value == ""
    assert prober.knobs["steps"].value == 800


def test_what_an_attack_makes_first_is_said(story, tiny, monkeypatch):
    monkeypatch.setattr(attacking, "training_step_seconds", lambda _: 0.6)
    prober = live.ProbeDashboard(story)
    steps = 20 * (len(story.train.without(3)) // 128)  # of this story's data and network
    retrained = f"the one retrained without it ({steps} steps, about 14 min)"
    first = f"the forgotten model (at most 20 steps, 30 s) and {retrained}"
    assert f"It first makes {first}." in prober.status.value
    story.forgotten(3)
    prober.label.value = 5
    prober.label.value = 3
    assert f"It first makes {retrained}." in prober.status.value
    story.keep_retrained(3, sa.TrainedCVAE(tiny, {"held_out": [1.0]}))
    prober.reset.click()
    assert "Ready: press Attack.<" in prober.status.value


class Plain(torch.nn.Module):
    """A network of one's own that does not say where the label enters."""

    def __init__(self, ins, outs):
        super().__init__()
        self.line = torch.nn.Linear(ins + 10, outs)

    def forward(self, x, y):
        return self.line(torch.cat([x.flatten(1), y], 1))


def test_of_own_networks_nothing_is_promised_that_cannot_be_attacked(
    story, give_judges, mnist, monkeypatch
):
    torch.manual_seed(3)
    own = sa.CVAE(latent_dim=3, encoder=Plain(784, 6), decoder=Plain(3, 784))
    theirs = sa.Story((mnist, mnist), baseline=own, amnesia=QUICK)
    give_judges(theirs, story.judges)
    theirs.fishers = sa.class_fishers(own, None, sa.FisherConfig(20, "model_mean"))
    prober = live.ProbeDashboard(theirs)
    assert "It first makes the forgotten model (at most 20 steps, " in prober.status.value
    assert "retrained" not in prober.status.value
    prober.knobs["steps"].value = 10
    prober.run.click()
    assert "Without a retrained model beside it, this is no evidence." in done(prober)
    assert list(prober.controller.outcomes) == ["forgotten"]
    prober.reset.click()
    assert "Ready: press Attack.<" in prober.status.value


def test_stop_ends_what_an_attack_makes_first_and_it_goes_on_from_there(
    where, story, give_judges, mnist, tmp_path
):
    few = mnist.take(600)
    base = sa.BaselineConfig(epochs=40, batch_size=20, latent_dim=3)
    theirs = sa.Story((few, few), baseline=base, amnesia=QUICK)
    theirs.baseline = sa.TrainedCVAE(sa.CVAE(latent_dim=3).eval(), {})
    theirs.fishers = story.fishers
    give_judges(theirs, story.judges)
    prober = live.ProbeDashboard(theirs)
    prober.knobs["steps"].value = 10
    said = []

    def look(event):
        share = re.search(r"Making the retrained model: (\d+) %", event["new"])
        if share and int(share[1]) >= 5:  # two of its passes are kept
            said.append(int(share[1]))
            prober.stop.click()

    prober.status.observe(look, "value")
    prober.run.click()
    assert "Stopped" in done(prober)
    assert len(said) == 1
    assert said[0] < 100
    path = theirs.retrained_recipe(3).path
    assert not path.exists()
    assert part_path(path).exists()
    prober.status.unobserve_all()
    prober.run.click()
    assert "Done." in done(prober)
    assert path.exists()
    whole = sa.train_baseline(few, few, replace(base, exclude=(3,)))
    made = theirs.retrained(3).model
    for a, b in zip(made.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


# What they share


def test_after_a_cell_its_idle_threads_go(where, monkeypatch):
    shell = types.SimpleNamespace(events=EventManager(None, available_events))
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    Dashboard()
    Dashboard()
    called = shell.events.callbacks["post_run_cell"]
    assert called == ([release_idle_threads] if where == "thread" else [])


def test_text_is_shown_as_text():
    dashboard = Dashboard()
    dashboard.show_error(ValueError("<script>1</script>"))
    assert "<script>" not in dashboard.status.value
    dashboard.say("a < b")
    assert "a &lt; b" in dashboard.status.value
    assert "&lt;b&gt;" in table("<b>", ("h",), [("r",)])


def test_a_png_shows_every_pixel_in_its_place():
    images = torch.rand(6, 1, 28, 28)
    shown = matplotlib.image.imread(io.BytesIO(png(images, 3)), format="png")[..., 0]
    assert shown.shape == (120, 180)
    for k in range(6):
        r, c = 60 * (k // 3), 60 * (k % 3)
        tile = shown[r : r + 60, c : c + 60]
        assert np.abs(tile[2:58:2, 2:58:2] - images[k, 0].numpy()).max() <= 2 / 255
        assert np.array_equal(tile[2:58:2, 2:58:2], tile[3:58:2, 3:58:2])
        assert (tile[:2] == 1).all()


def test_a_sheet_has_a_name_and_its_pictures_in_each_row():
    one, many = torch.rand(1, 1, 28, 28), torch.rand(4, 1, 28, 28)
    rows = {"a < b": [one, many], "c": [one, many]}
    drawn = ElementTree.fromstring(
        re.sub(r"<img([^>]*)>", r"<img\1/>", sheet(rows, [["one"], [7, 8]], [90, 40]))
    )
    words = ["".join(cell.itertext()) for cell in drawn if cell.tag != "img"]
    assert words == ["", "one", "78", "a < b", "c"]
    assert [cell.get("alt") for cell in drawn.iter("img")] == ["a < b"] * 2 + ["c"] * 2
    shapes = [re.search(r"aspect-ratio: (.*?);", c.get("style"))[1] for c in drawn.iter("img")]
    assert shapes == 2 * ["30 / 30", "60 / 60"]
    assert "fit-content(95px) minmax(0, 90px) minmax(0, 80px)" in drawn.get("style")


def test_bars_are_as_high_as_their_values():
    text = bars({"0": 2.0, "1": -4.0, "5": 0.0}, "Change")
    drawn = ElementTree.fromstring(f"<p>{text}</p>")
    up, down, none = drawn.iter("rect")
    heights = [float(bar.get("height")) for bar in (up, down, none)]
    assert heights[1] == 2 * heights[0] > 0 == heights[2]
    assert float(up.get("y")) + heights[0] == float(down.get("y"))
    assert up.get("fill") != down.get("fill")
    told = drawn.find("svg").get("aria-label")
    assert told == "Change: class 0 +2.0, class 1 -4.0, class 5 +0.0"
    assert ["".join(t.itertext()) for t in drawn.iter("text")][:2] == ["+2.0", "0"]


def test_curves_pass_through_their_values():
    drawn = ElementTree.fromstring(curves({"replay": [90.0, 3.0, 0.0], "ewc": [0.0, 0.1, 0.3]}))
    first, second = (line.get("points") for line in drawn.iter("polyline"))
    assert first == "35.0,10.0 135.0,50.0 235.0,90.0"  # 3 lies halfway from 0.1 to 90
    assert second == "35.0,90.0 135.0,90.0 235.0,77.1"
    assert drawn.get("aria-label") == "Loss, nats per image: replay 0.0, ewc 0.3"
    styles = {line.get("stroke-dasharray") for line in drawn.iter("polyline")}
    assert len(styles) == 2


def test_there_are_curves_for_more_terms_than_colours():
    drawn = curves({str(k): [1.0, 2.0] for k in range(9)})
    assert drawn.count("<polyline") == 9


def test_curves_of_a_first_step_and_of_a_long_run():
    assert "step 1<" in curves({"forget": [0.0]})
    assert "step 0<" in curves({})  # a run that ended before its first step
    (line,) = ElementTree.fromstring(curves({"forget": [1.0] * 5000})).iter("polyline")
    assert len(line.get("points").split()) == 100


def test_a_tab_is_made_when_it_is_opened():
    made = []

    def fails():
        made.append("second")
        if made.count("second") == 1:
            raise ValueError("no <model>")
        return base.ipw.HTML("second")

    tabs = Tabs({"One": lambda: made.append("first") or base.ipw.HTML("first"), "Two": fails})
    assert repr(tabs) == "Tabs: live where this notebook runs"
    assert [tabs.get_title(k) for k in range(2)] == ["One", "Two"]
    assert made == ["first"]
    tabs.selected_index = 1
    (shown,) = tabs.children[1].children
    assert 'role="alert"' in shown.value
    assert "no &lt;model&gt;" in shown.value
    for index in (0, 1, 0, None, 1):  # what failed is tried again, what is there is kept
        tabs.selected_index = index
    assert made == ["first", "second", "second"]
    assert [box.children[0].value for box in tabs.children] == ["first", "second"]


def test_pictures_leave_the_notebooks_own_figures_alone(board):
    import matplotlib.pyplot as plt

    open_figures = plt.get_fignums()
    board.forget.click()
    done(board)
    assert plt.get_fignums() == open_figures
