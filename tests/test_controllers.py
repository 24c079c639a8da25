"""The dashboards' controllers and their worker: no widget is made here."""

import ast
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.live import AmnesiaController, LatentController, ProbeController, attacking
from sahelpers.live import forgetting as module
from sahelpers.live.attacking import ATTACKS
from sahelpers.live.exploring import principal_directions
from sahelpers.live.worker import Stopped, Worker, as_code, help_text, steps_of

# Their stories begin with a model that is given, and its recipe is of no interest here.
pytestmark = pytest.mark.filterwarnings("ignore:How the given baseline was trained")

PACKAGE = Path(sa.__file__).parent


# 20 steps: an untrained model draws gray already, so only a tolerance of 0 makes it go on
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=160, batch_size=8, cooldown=5, tolerance=0.0)


@pytest.fixture
def story(tiny, tiny_fishers, scoring, give_judges, mnist, monkeypatch, tmp_path):
    """A story whose models are all there, untrained."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    made = sa.Story((mnist, mnist), baseline=tiny, amnesia=QUICK)
    made.fishers = tiny_fishers
    give_judges(made, scoring)
    return made


@pytest.fixture
def controller(story, monkeypatch):
    monkeypatch.setattr(module, "JUDGED", 4)
    return AmnesiaController(story)


def stopped_never():
    return threading.Event()


def weights(model):
    return torch.cat([p.flatten() for p in model.state_dict().values()])


def test_no_controller_knows_a_widget():
    """Neither the module that they share nor the class of any of them."""
    wanted = []
    for file in sorted((PACKAGE / "live").glob("*.py")):
        tree = ast.parse(file.read_text())
        found = [n for n in tree.body if isinstance(n, ast.ClassDef) and "Controller" in n.name]
        for part in [tree] if file.stem == "worker" else found:
            wanted.append(getattr(part, "name", "worker"))
            words = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
            words |= {n.attr for n in ast.walk(part) if isinstance(n, ast.Attribute)}
            for node in ast.walk(part):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    words |= {alias.name for alias in node.names} | {getattr(node, "module", "")}
            for word in ("ipw", "ipywidgets", "IPython", "matplotlib", "Figure", "plots", "base"):
                assert word not in words, (part, word)
    assert len(wanted) == 4


def test_only_notebooks_and_tools_import_the_dashboards():
    """`import sahelpers` does not; who wants them writes `from sahelpers import live`."""
    found = 0
    for folder in ("sahelpers", "study", "tools", "benchmarks"):
        for file in sorted((CHECKOUT / folder).rglob("*.py")):
            if file.parent.name == "live":
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom):
                    names = {node.module or "", *(alias.name for alias in node.names)}
                    if "live" in names:
                        found += 1
                        assert (node.module, node.level) == ("sahelpers", 0), file
                        assert folder in ("tools", "benchmarks"), file
                    assert not any(name.startswith("sahelpers.live") for name in names), file
                elif isinstance(node, ast.Import):
                    assert not any("sahelpers.live" in alias.name for alias in node.names), file
    assert found >= 1  # the page's directions are the explorer's
    script = "import sys, sahelpers; print('sahelpers.live' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert done.stdout.strip() == "False"


# The knobs


@pytest.mark.parametrize("kind", [sa.AmnesiaConfig, sa.ProbeConfig])
def test_every_value_that_a_slider_offers_is_allowed(kind):
    offered = 0
    for f in fields(kind):
        if f.metadata.get("span") or f.metadata.get("high") == 1.0:
            values = steps_of(kind(), f.name)
            for value in values:
                assert getattr(kind(**{f.name: value}), f.name) == value
            assert f.default in values
            assert len(set(values)) == len(values) > 2
            offered += 1
    assert offered >= 10


def test_a_wide_range_is_walked_in_ones_twos_and_fives():
    assert steps_of(sa.AmnesiaConfig(), "gamma") == (
        0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
    )  # fmt: skip
    assert steps_of(sa.AmnesiaConfig(), "epochs_unl") == (1, 2, 5, 10, 20, 50, 100)
    assert steps_of(sa.AmnesiaConfig(), "gray_value") == tuple(k / 20 for k in range(21))


def test_a_value_off_the_grid_is_offered_in_its_place():
    values = steps_of(sa.AmnesiaConfig(ewc_lambda=7812.0), "ewc_lambda")
    assert 7812.0 in values
    assert list(values) == sorted(values)


@given(ewc=st.floats(0, 1e12), gray=st.floats(0, 1), surrogate=st.sampled_from(["gray", "class:8"]))
def test_the_code_of_a_configuration_makes_it_again(ewc, gray, surrogate):
    config = sa.AmnesiaConfig(ewc_lambda=ewc, gray_value=gray, surrogate=surrogate)
    assert eval(as_code(config), {"sa": sa}) == config


def test_the_help_comes_from_the_fields():
    text = help_text(sa.AmnesiaConfig(), ("gamma", "push"))
    assert text == (
        "<b>GAMMA</b> weight of the replay term<br>"
        "<b>PUSH</b> nats by which the attacker&#x27;s images shall cost more"
    )


@pytest.mark.parametrize("kind", [sa.AmnesiaConfig, sa.ProbeConfig])
def test_the_help_speaks_of_classes_in_words_and_not_in_the_formula_s_letters(kind):
    for f in fields(kind):
        assert "c_f" not in f.metadata["help"], f.name
        assert "entropy" not in f.metadata["help"], f.name


# Forgetting


def test_a_run_equals_a_plain_call(controller, tiny, tiny_fishers):
    controller.forget(stopped_never())
    plain = sa.forget(tiny, tiny_fishers.without(3), 3, QUICK)
    assert torch.equal(weights(controller.model), weights(plain.model))
    assert controller.result.reason == plain.reason
    assert controller.result.forget_class == (3,)


def test_the_table_is_what_the_judges_say(controller, scoring, tiny):
    controller.judge(stopped_never())
    assert controller.judged_rows == {}
    controller.forget(stopped_never())
    controller.judge(stopped_never())
    assert list(controller.judged_rows) == ["open_set", "closed_set"]
    assert list(controller.kept_changes) == ["open_set", "closed_set"]
    for role, row in controller.judged_rows.items():
        before, after = (
            sa.judge_samples(m, scoring[role], controller.judged) for m in (tiny, controller.model)
        )
        own = (before.probability, after.probability, after.argmax)
        change = sa.retained_accuracy(before, after, (3,))
        assert row == pytest.approx(
            [*(100 * float(x[3, 3]) for x in own), change.mean_before, change.mean_after]
        )
        changes = controller.kept_changes[role]
        assert list(changes) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert min(changes.values()) == pytest.approx(-change.worst_drop)
        assert changes[change.worst_class] == pytest.approx(-change.worst_drop)


def test_frames_show_the_way(controller, monkeypatch):
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.0)
    frames = []

    def show(done, history, images, models):
        step = len(history["replay"])
        frames.append((done, step, images, models[f"at step {step}"]))

    controller.forget(stopped_never(), show)
    assert [step for _, step, *_ in frames] == list(range(1, controller.result.steps + 1))
    assert all(0 <= done <= 1 for done, *_ in frames)
    first, last = frames[0], frames[-1]
    assert first[2].shape == (80, 1, 28, 28)
    torch.testing.assert_close(first[3], first[2][24:32])  # of the forgotten class
    assert not torch.equal(first[2], last[2])


def test_the_four_models_are_shown_at_the_same_z(controller, story, tiny):
    images, models = controller.pictures()
    assert list(models) == ["baseline", "hidden"]  # the others are not there yet
    torch.testing.assert_close(models["baseline"], images[24:32])
    torch.manual_seed(4)
    retrained = sa.TrainedCVAE(sa.CVAE(latent_dim=3).eval(), {"held_out": [1.0]})
    story.keep_retrained(3, retrained)
    controller.forget(stopped_never())
    images, models = controller.pictures()
    assert list(models) == ["baseline", "hidden", "ended at 20", "retrained"]
    torch.testing.assert_close(models["ended at 20"], images[24:32])
    own = controller.shown.where(controller.shown.labels == 3)
    for name, model in {"hidden": story.hidden(3), "retrained": retrained.model}.items():
        assert torch.allclose(models[name], sa.draw_images(model, own), atol=1e-6)
    controller.reset()
    controller.choose((5,))
    drawn = sa.draw_images(tiny, controller.shown)[40:48]
    torch.testing.assert_close(controller.pictures()[1]["baseline"], drawn)


def test_stop_gives_the_model_so_far(controller, tiny, tiny_fishers, monkeypatch):
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.0)
    stop = threading.Event()

    def show(done, history, *pictures):
        if len(history["replay"]) == 7:
            stop.set()

    controller.forget(stop, show)
    assert controller.result.reason == "stopped"
    plain = sa.forget(tiny, tiny_fishers.without(3), 3, QUICK, on_step=lambda k, m, t: k < 6)
    assert controller.result.steps == plain.steps == 7
    assert torch.equal(weights(controller.model), weights(plain.model))
    assert "# stopped at step 7" in controller.code()
    assert list(controller.pictures()[1])[2] == "stopped at 7"


def test_each_run_of_a_chain_says_how_it_ended_and_its_code_makes_it_again(
    controller, story, monkeypatch
):
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.0)
    stop = threading.Event()
    controller.forget(stop, lambda *_: stop.set())
    controller.choose((5,))
    controller.forget(stopped_never(), another=True)
    assert [(run.steps, run.stopped) for run in controller.chain] == [(1, True), (20, False)]
    words = controller.name().split("_")
    assert words[:3] == ["forgotten", "3", "stopped-at-1"]
    assert words[words.index("5") + 1] == "20-steps"
    stopped = [line for line in controller.code().splitlines() if "stopped" in line]
    assert stopped == [controller.code().splitlines()[3]]
    there = {"story": story}
    exec(controller.code().replace("story = ", "_ = lambda: "), there)
    assert torch.equal(weights(there["result"].model), weights(controller.model))
    controller.forget(stopped_never())
    assert "stopped" not in controller.code() + controller.name()


def test_a_long_chain_leaves_its_knobs_out_of_the_name_and_no_run(controller):
    controller.change(gray_value=0.3, gamma=2.0, neg_loss_weight=0.1)
    for k in range(8):
        controller.choose((k,))
        controller.forget(stopped_never(), another=k > 0)
    name = controller.name()
    assert len(name) <= 200
    assert name.count("20-steps") == 8


def test_before_any_run_the_model_that_comes_with_the_story_is_named_so(controller, story):
    assert list(controller.pictures()[1]) == ["baseline", "hidden"]
    story.forgotten(3)
    assert list(controller.pictures()[1]) == ["baseline", "hidden", "kept, forgotten 3"]
    recipe = story.forgotten_recipe(3)
    assert module.whence(recipe) == "kept"


def test_the_share_that_is_done_counts_the_steps_of_the_falling_rate():
    config = sa.AmnesiaConfig(epochs_unl=100, tolerance=0.1, cooldown=30)
    far = [0.5] * 5 + [0.3] * 5  # half of the way to the surrogate after ten steps
    assert module._share_done(9, far, config) == pytest.approx(0.5 * 10 / 40)
    near = [*far, 0.05]
    assert module._share_done(10, near, config) == pytest.approx(11 / 41)
    assert module._share_done(40, [*near, *[0.2] * 30], config) == 1
    few = replace(config, epochs_unl=1, replay_samples=100, batch_size=10)
    assert module._share_done(8, far[:9], few) == pytest.approx(0.9)  # of its ten steps


def test_a_file_that_ships_is_told_from_one_that_was_made_here():
    recipe = sa.Story().retrained_recipe(3)
    assert module.whence(recipe) == ("kept" if recipe.path.exists() else "shipped")


def test_the_code_says_what_it_is_the_code_of(controller, monkeypatch):
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.0)
    said = []
    assert controller.told_code()[0] == "of what Forget will make with these settings"
    controller.forget(stopped_never(), lambda *_: said.append(controller.told_code()))
    assert {words for words, _ in said} == {"of the run that goes on"}
    assert controller.told_code() == ("of the model on screen: 20 steps", controller.code())
    assert said[0][1] == controller.code()
    controller.change(gray_value=0.3)
    words, code = controller.told_code()
    assert words == "of what Forget will make with these settings"
    assert "gray_value=0.3" in code
    assert "gray_value" not in controller.code()  # which is saved with the picture


def test_judges_that_are_trained_can_be_stopped(controller, story, mnist):
    controller.forget(stopped_never())
    story._made.clear()
    story.train = mnist.take(500)
    story._digests.clear()  # it begins anew
    shares, stop = [], threading.Event()

    def show(share):
        shares.append(share)
        if len(shares) == 6:
            stop.set()

    with pytest.raises(Stopped):
        controller.judge(stop, show)
    assert len(shares) == 6
    assert shares[0] == 0
    assert shares[-1] > 0
    assert controller.judged_rows == {}


def test_another_one_continues_from_the_present_model(controller, story):
    controller.forget(stopped_never())
    controller.choose((5,))
    controller.change(gray_value=0.3)
    controller.forget(stopped_never(), another=True)
    assert controller.result.forget_class == (3, 5)
    there = {"sa": sa, "story": story}
    begin, empty, data, *lines = controller.code().splitlines()
    assert (begin, empty, data[:10]) == ("import sahelpers as sa", "", "story = sa")
    exec("\n".join(lines), there)
    assert torch.equal(weights(there["result"].model), weights(controller.model))


def test_forget_again_starts_from_the_baseline(controller):
    controller.forget(stopped_never())
    first = weights(controller.model)
    controller.forget(stopped_never())
    assert torch.equal(weights(controller.model), first)
    assert controller.result.forget_class == (3,)


def test_reset_brings_everything_back(controller, tiny):
    controller.change(gamma=2.0)
    controller.choose((1, 2))
    controller.forget(stopped_never())
    controller.reset()
    assert controller.model is tiny
    assert (controller.forget_class, controller.config) == ((3,), QUICK)
    assert controller.result is None
    assert controller.judged_rows == controller.kept_changes == {}
    assert torch.equal(controller.pictures()[0], sa.draw_images(tiny, controller.shown))
    assert controller.shown.labels.tolist() == [c for c in range(10) for _ in range(8)]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda c: c.change(gamma=-1.0), "gamma"),
        (lambda c: c.choose(()), "at least one"),
        (lambda c: c.choose(tuple(range(10))), "at least one must be kept"),
        (lambda c: c.change(surrogate="class:3") or c.forget(stopped_never()), "class:3"),
        (lambda c: c.name(), "Forget first"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(controller, tiny, act, words):
    with pytest.raises(ValueError, match=words):
        act(controller)
    assert controller.model is tiny
    assert controller.forget_class == (3,)


def test_a_class_is_not_forgotten_twice(controller):
    controller.forget(stopped_never())
    gone = controller.model
    with pytest.raises(ValueError, match="forgotten already"):
        controller.forget(stopped_never(), another=True)
    assert controller.model is gone


def test_the_names_tell_what_was_done(controller):
    names, stop = [], threading.Event()
    controller.config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=128)
    controller.forget(stop)
    names.append(controller.name())
    stop.set()
    controller.config = sa.AmnesiaConfig(surrogate="class:8", gray_value=0.25)
    controller.choose((5, 2))
    controller.forget(stop, another=True)
    names.append(controller.name())
    assert names[0] == "forgotten_3_1-steps_epochs_unl-1_replay_samples-128"
    more = names[1].removeprefix(names[0])
    assert more.startswith("_2-5_stopped-at-1_")
    assert "_surrogate-class-8" in more
    assert "_gray_value-0.25" in more


def test_the_code_names_the_story_s_own_settings(controller, story):
    story.config = replace(story.config, fisher=sa.FisherConfig(n_fisher_samples=20))
    code = controller.code()
    assert "sa.Story(fisher=sa.FisherConfig(n_fisher_samples=20), amnesia=sa.Amn" in code
    assert "judge=" not in code  # as by default
    assert "# give it your dataset and baseline as well" in code  # which no name stands for
    assert "baseline=" not in code


def test_the_code_names_the_data(controller, monkeypatch):
    monkeypatch.setattr(controller.story, "dataset", "fashion_mnist")
    monkeypatch.setattr(controller.story, "_given", None)
    assert "story = sa.Story('fashion_mnist', " in controller.code()
    assert "give it" not in controller.code()


def test_the_code_is_written_for_more_than_ten_classes(scoring, give_judges):
    torch.manual_seed(0)
    twelve = sa.CVAE(latent_dim=3, num_classes=12).eval()
    names = tuple("abcdefghijkl")
    data = sa.LabelledImages(torch.rand(24, 1, 28, 28), torch.arange(12).repeat(2), names)
    story = sa.Story((data, data), baseline=twelve, amnesia=QUICK)
    few = sa.FisherConfig(n_fisher_samples=12, source="model_mean")
    story.fishers = sa.class_fishers(twelve, None, few)
    give_judges(story, scoring)
    code = AmnesiaController(story, (4, 11)).code()
    assert "story.fishers.without((4, 11)), (4, 11), sa.AmnesiaConfig(" in code


# Walking through the latent space


def test_directions_are_orthonormal_and_sorted_by_what_they_change(tiny):
    directions = principal_directions(tiny)
    assert torch.allclose(directions.T @ directions, torch.eye(3), atol=1e-5)
    labels = torch.arange(10).repeat_interleave(8)
    z = tiny.draw_latents(labels, generator=sa.seeded(0))

    def picture(z, y):
        return tiny.decode(z[None], y[None]).flatten()

    slope = torch.func.vmap(torch.func.jacrev(picture))(z, tiny.label_vectors(labels))
    moved = (slope @ directions).square().sum(1).mean(0).tolist()
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 1.05 * moved[2]
    assert torch.equal(directions, principal_directions(tiny))


@settings(max_examples=20, deadline=None)
@given(
    index=st.integers(0, 2), value=st.floats(-3, 3), mix=st.floats(0, 1), first=st.integers(0, 9)
)
def test_the_picture_is_the_decoder_at_z_and_label(index, value, mix, first):
    tiny = sa.CVAE(latent_dim=3).eval()
    walk = LatentController({"before": tiny}, first, 8)
    walk.move(index, value)
    walk.choose(first, 8, mix)
    z = value * walk.directions[:, index]
    soft = (1 - mix) * torch.eye(10)[first] + mix * torch.eye(10)[8]
    image, every = walk.pictures()["before"]
    with torch.no_grad():
        assert torch.allclose(image, tiny.decode(z[None], soft[None]), atol=1e-5)
        wanted = tiny.decode(z.expand(10, -1), torch.arange(10))
    assert torch.allclose(every, wanted, atol=1e-5)


def test_models_are_shown_side_by_side_at_the_same_z(tiny):
    torch.manual_seed(5)
    other = sa.CVAE(latent_dim=3).eval()
    walk = LatentController({"before": tiny, "after": other})
    walk.draw(11)
    z = (walk.directions @ walk.position)[None]
    with torch.no_grad():
        assert torch.allclose(
            walk.pictures()["after"][0], other.decode(z, torch.tensor([3])), atol=1e-6
        )
    drawn = walk.position.clone()
    walk.draw(11)
    assert torch.equal(walk.position, drawn)
    walk.centre()
    assert not walk.position.any()


def test_draws_stay_within_the_sliders(tiny):
    walk = LatentController({"before": tiny})
    for seed in range(500):
        walk.draw(seed)
        assert walk.position.abs().max() <= 3


@pytest.mark.parametrize(
    "act",
    [
        lambda w: w.move(0, 3.5),
        lambda w: w.move(0, float("nan")),
        lambda w: w.choose(10, 8, 0.5),
        lambda w: w.choose(3, -1, 0.5),
        lambda w: w.choose(3, 8, 1.5),
    ],
)
def test_the_walk_refuses_what_is_out_of_reach(tiny, act):
    walk = LatentController({"before": tiny})
    with pytest.raises(ValueError, match=r"value=|class|mix="):
        act(walk)
    assert not walk.position.any()
    assert (walk.first, walk.second, walk.mix) == (3, 8, 0.0)


def test_models_must_fit_together(tiny):
    with pytest.raises(ValueError, match="latent_dim"):
        LatentController({"before": tiny, "after": sa.CVAE(latent_dim=4)})
    with pytest.raises(ValueError, match="empty"):
        LatentController({})


# Probing


@pytest.fixture
def prober(story, tiny, monkeypatch):
    torch.manual_seed(2)
    retrained = sa.CVAE(latent_dim=3).eval()
    monkeypatch.setattr(sa.Story, "guide", sa.Judge("guide").eval())
    return ProbeController(story, models={"forgotten": tiny, "retrained": retrained})


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_every_attack_is_the_plain_function_on_every_model(prober, story, scoring, attack):
    prober.choose(attack, 4)
    prober.change(n_restarts=5, steps=6)
    seen = []
    assert prober.run(stopped_never(), lambda *what: seen.append(what))
    assert seen[0] == ("forgotten", pytest.approx(1 / 12))
    assert seen[-1] == ("retrained", 1.0)
    for name, found in prober.outcomes.items():
        code = prober.code().replace("found = ", "")
        plain = eval(code, {"sa": sa, "model": prober.models[name], "story": story})
        assert torch.equal(found.result.images, plain.images)
        wanted = sa.attack_success(plain.images, scoring, 4).float().mean()
        assert list(found.shares) == ["open_set", "closed_set", "all judges"]
        assert found.shares["all judges"] == pytest.approx(float(wanted))
        assert found.shares["all judges"] == min(found.shares.values())


def test_models_may_be_trained_on_before_the_attack(prober, story):
    prober.choose("prototype", 4, 3)
    prober.change(n_restarts=5, steps=6)
    done = []
    assert prober.run(stopped_never(), making=lambda what: lambda share: done.append((what, share)))
    for name in ("forgotten", "retrained"):
        assert (f"Training the {name} model on", pytest.approx(2 / 3)) in done
    for name, found in prober.outcomes.items():
        there = {"sa": sa, "model": prober.models[name], "story": story}
        exec(prober.code(), there)
        assert torch.equal(found.result.images, there["found"].images)
        as_is = prober.code().partition("\n")[2].replace("found = ", "")
        plain = eval(as_is, {**there, "model": prober.models[name]})
        assert not torch.equal(found.result.images, plain.images)
    prober.reset()
    assert prober.train_on == 0


@pytest.mark.parametrize(("forget_class", "label"), [(5, 5), ((7, 5), 7), ((7, 5), 4)])
def test_the_models_are_the_story_s_own_by_default(story, tiny, forget_class, label, monkeypatch):
    asked = []
    monkeypatch.setattr(attacking, "training_step_seconds", lambda _: 0.01)
    story.retrained = lambda c: asked.append(c) or sa.TrainedCVAE(tiny, {})
    prober = ProbeController(story, forget_class)
    assert prober.forget_class == 5
    prober.choose("prototype", label)
    gone = sa.check_classes(forget_class if label != 4 else 4)
    assert prober.missing.startswith("the forgotten model (")
    assert " and the one retrained without it (" in prober.missing
    targets = {name: make() for name, make in prober.makers.items()}
    assert list(targets) == ["forgotten", "retrained", "hidden"]
    assert torch.equal(weights(targets["forgotten"]), weights(story.forgotten(gone).model))
    assert torch.equal(weights(targets["hidden"]), weights(story.hidden(gone)))
    assert targets["retrained"] is tiny
    assert asked == [gone]
    assert prober.missing.startswith("the one retrained without it (")
    story.retrained_recipe(gone).path.touch()
    assert prober.missing == ""


def test_what_is_watched_shows_no_bar(controller, prober, monkeypatch):
    monkeypatch.setattr("sahelpers.progress.tqdm", None)  # which nobody can call
    monkeypatch.delenv("SA_PROGRESS", raising=False)
    controller.forget(stopped_never())
    prober.change(n_restarts=2, steps=3)
    assert prober.run(stopped_never())


def test_an_attack_brings_its_preset_and_its_priors(prober):
    assert prober.config == sa.ProbeConfig.prototype()
    prober.choose("blind", 3)
    assert prober.config == sa.ProbeConfig()
    prober.change(w_tv=0.5)
    prober.choose("blind", 4)
    assert prober.config.w_tv == 0.5
    names = {f.name for f in fields(sa.ProbeConfig)}
    assert all(set(attack.knobs) <= names for attack in ATTACKS.values())


def test_a_stopped_attack_keeps_nothing(prober):
    stop = threading.Event()
    steps = []

    def show(name, done):
        steps.append(done)
        if len(steps) == 3:
            stop.set()

    assert prober.run(stop, show) is False
    assert len(steps) == 3
    assert prober.outcomes == {}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda p: p.choose("brute", 3), "brute"),
        (lambda p: p.choose("blind", 12), "12"),
        (lambda p: p.change(steps=0), "steps"),
    ],
)
def test_the_prober_refuses(prober, act, words):
    with pytest.raises(ValueError, match=words):
        act(prober)
    assert (prober.attack, prober.forget_class) == ("prototype", 3)


# The worker


def test_the_newest_of_the_waiting_jobs_runs_and_the_running_one_is_told():
    ran, errors = [], []
    started = threading.Event()
    worker = Worker(True, errors.append)

    def long(stop):
        started.set()
        assert stop.wait(10)
        ran.append("long")

    worker.submit(long)
    assert started.wait(60)
    for k in range(20):
        worker.submit(lambda stop, k=k: ran.append(k))
    assert worker.wait(60)
    assert (ran[0], ran[-1]) == ("long", 19)
    assert errors == []


def test_stop_drops_the_waiting_job_too():
    ran = []
    started = threading.Event()
    worker = Worker(True, ran.append)

    def long(stop):
        started.set()
        stop.wait(10)

    worker.submit(long)
    assert started.wait(60)
    worker.submit(long)
    worker.stop()
    assert worker.wait(60)
    assert not worker.busy
    assert ran == []


@pytest.mark.parametrize("threaded", [True, False])
def test_an_error_is_handed_over_and_the_worker_lives_on(threaded):
    errors, ran, idle = [], [], []
    worker = Worker(threaded, errors.append, lambda: idle.append(1))
    worker.submit(lambda stop: 1 / 0)
    assert worker.wait(60)
    worker.submit(lambda stop: ran.append(stop.is_set()))
    assert worker.wait(60)
    assert [type(e) for e in errors] == [ZeroDivisionError]
    assert ran == [False]
    assert idle


def test_no_thread_stays_behind():
    before = threading.active_count()
    worker = Worker(True, lambda error: None)
    for _ in range(50):
        worker.submit(lambda stop: time.sleep(0.001))
    assert worker.wait(60)
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP keeps a pool per thread")
def test_idle_threads_go_and_come_back():
    script = """
import ctypes, os, threading, time, torch
from sahelpers.live.worker import release_idle_threads

torch.set_num_threads(4)
a = torch.rand(400, 400, generator=torch.Generator().manual_seed(0))

def threads(expected):  # waits up to ten seconds: a thread that was told to go goes a little later
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return len(os.listdir("/proc/self/task"))

def work():
    results.append([(a @ a).sin() for _ in range(60)])

results = []
work()
before = len(os.listdir("/proc/self/task"))
known = hasattr(ctypes.CDLL(None), "omp_pause_resource_all")  # not before OpenMP 5 (torch 2.6)
release_idle_threads()
after = threads(before - 3 * known)
other = threading.Thread(target=work)
other.start()
while other.is_alive():  # the other thread's pool is none of this one's business
    release_idle_threads()
work()
assert threads(before) == before, (before, threads(before))
assert all(torch.equal(x, y) for r in results for x, y in zip(r, results[0]))
assert before - after == 3 * known, (before, after, known)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def interrupts():
    """Python's own answer to an interrupt, which a test started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_without_a_thread_an_interrupt_stops_the_job(interrupts):
    worker = Worker(False, lambda error: None)
    seen = []

    def job(stop):
        signal.raise_signal(signal.SIGINT)
        seen.append((stop.is_set(), threading.current_thread() is threading.main_thread()))

    worker.submit(job)
    assert seen == [(True, True)]
    assert signal.getsignal(signal.SIGINT) is interrupts


def test_without_a_thread_a_job_submitted_by_a_job_runs_after_it():
    order = []
    worker = Worker(False, lambda error: None)

    def first(stop):
        worker.submit(lambda stop: order.append("second"))
        order.append("first")

    worker.submit(first)
    assert order == ["first", "second"]


@pytest.mark.parametrize("threaded", [True, False])
def test_a_worker_whose_end_fails_takes_the_next_job(threaded):
    errors, ran = [], []

    def fails():
        raise ValueError("no picture")

    worker = Worker(threaded, errors.append, fails)
    for number in range(2):
        worker.submit(lambda stop, number=number: ran.append(number))
        assert worker.wait(10)
    assert ran == [0, 1]
    assert [str(error) for error in errors] == ["no picture"] * 2
