"""The grid: every run once, whatever stops it, and what it says about the rest."""

import gzip
import hashlib
import importlib
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import datasets

import sahelpers as sa
from sahelpers import amnesia, fisher, training
from sahelpers.attacks import ladder
from sahelpers.attacks.ladder import FITTED, KEPT, RUNGS, UNFINISHED
from sahelpers.story import Story
from study import METHODS, grid, journal, measures, results_page, scores, tables
from study.grid import Grid
from study.measures import MeasureConfig
from study.methods import (
    DISTILLED,
    HIDDEN,
    KEPT_HEAVILY,
    KEPT_IMAGES,
    KEPT_SLOWLY,
    MASKED,
    OURS,
    PAPER,
    RETRAINED,
    UNDO,
    VERSION3,
    VERSION4,
)

SHORT = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32)
LITTLE = MeasureConfig(samples=20, frechet_samples=20, iwae_images=3, iwae_draws=5)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A grid that runs in seconds: little data, short training, few samples, untrained judges."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    data = sa.load_dataset("digits8").take(300)
    monkeypatch.setattr(grid, "load_dataset", lambda *a: data)
    torch.manual_seed(0)
    judges = {
        role: sa.Judge(role, image_shape=data.image_shape).eval()
        for role in ("open_set", "closed_set")
    }
    monkeypatch.setattr(Story, "judge", lambda story, role: judges[role])

    def make(methods, classes, part="scoreboard", **changes):
        usual = {"seeds": (1,), "baseline": SHORT, "amnesia": QUICK, "measures": LITTLE}
        usual |= {"bounded": (), "folder": tmp_path}
        return Grid(part, tuple(methods), tuple(classes), **{**usual, **changes})

    make.judges = judges
    make.data = data
    yield make
    for kept in (grid._data, grid._baseline, grid._ladder):
        kept.cache_clear()


def costs(nats):
    """What the ladder measures of a model."""
    return {name: [nats] for name in (*RUNGS, *KEPT, UNFINISHED)}


@pytest.fixture
def climbed(monkeypatch):
    """The ladder and the model of every climb, which is not done."""
    found = []

    class Quickly:
        def __init__(self, baseline, label, train, test, config):
            self.baseline, self.label, self.config = baseline, label, config
            self.data = train, test

        def climb(self, model):
            found.append((self, model))
            return costs(0.123456)

    monkeypatch.setattr(grid, "Ladder", Quickly)
    return found


@pytest.fixture
def at_once(monkeypatch):
    """Every run has its values at once: nothing is computed."""
    monkeypatch.setattr(grid, "prepare", lambda run: None)
    monkeypatch.setattr(
        grid,
        "compute",
        lambda run: {"values": dict.fromkeys(run.asked, 0.5), "cell_seconds": 1.0},
    )


def story_of(small, seed=1):
    return Story((small.data, small.data), baseline=replace(SHORT, seed=seed))


def lines_of(made):
    """The journal's lines by method, class and seed."""
    return sorted(
        journal.read(made.journal),
        key=lambda r: (list(METHODS).index(r["method"]), r["class"], r["seed"]),
    )


def rows_of(made):
    """The same without failures, as they stand in scoreboard.json."""
    return [tables.as_row(r) for r in lines_of(made) if "values" in r]


def test_runs_are_done_once_and_a_failing_one_is_a_line(small, monkeypatch, capsys):
    calls, luck = [], []

    def counted(story, forget_class):
        calls.append(forget_class)
        if forget_class == (5,) and not luck:
            raise ArithmeticError("no\nluck")
        return METHODS[HIDDEN](story, forget_class)

    monkeypatch.setitem(METHODS, "counted", counted)
    made = small(["counted", OURS], [3, 5])
    with pytest.raises(RuntimeError, match="1 of 4 runs failed, named above"):
        made.run()
    assert "counted, class 5, seed 1: ArithmeticError: no luck; " in capsys.readouterr().out
    assert [(r["method"], r["class"], r.get("error")) for r in lines_of(made)] == [
        (OURS, 3, None),
        (OURS, 5, None),
        ("counted", 3, None),
        ("counted", 5, "ArithmeticError: no luck"),
    ]
    luck.append("now")
    small(["counted"], [3, 5]).run()
    assert calls == [(3,), (5,), (5,)]  # what failed is tried again, what is done is not
    again = lines_of(made)
    assert len(again) == 4
    assert all("error" not in line for line in again)  # the newer line of the run counts


def test_again_does_a_run_anew_and_the_newest_line_counts(small, monkeypatch):
    seconds = iter((1.0, 2.0, 3.0))
    monkeypatch.setattr(grid, "prepare", lambda run: None)
    monkeypatch.setattr(
        grid,
        "compute",
        lambda run: {"values": dict.fromkeys(run.asked, next(seconds)), "cell_seconds": 1.0},
    )
    made = small([HIDDEN], [3])
    for again, expected in ((False, 1.0), (False, 1.0), (True, 2.0)):
        made.run(again=again)
        (line,) = journal.read(made.journal)
        assert line["values"]["seconds"] == expected
    assert made.journal.read_text().count("\n") == 2
    assert made.plan(again=True).startswith("1 runs are done again\n")


def test_a_line_agrees_with_measuring_by_hand(small):
    made = small([HIDDEN], [3], bounded=(HIDDEN,))
    made.run()
    (row,) = rows_of(made)
    story, data, judges = story_of(small), small.data, small.judges
    model = story.baseline.model
    new = METHODS[HIDDEN](story, (3,)).model
    latents = sa.fixed_latents(model, 20, "standard")
    verdict = sa.judge_samples(new, judges["closed_set"], latents)
    assert row["p_closed_set_standard"] == pytest.approx(float(verdict.probability[3, 3]))
    seen = sa.judge_samples(new, judges["open_set"], latents).argmax[3, 3]
    assert row["argmax_open_set_standard"] == pytest.approx(float(seen))
    mine = data.labels == 3
    change = [sa.dataset_negative_elbo(m, data)[mine].mean() for m in (model, new)]
    assert row["elbo_forgotten_change"] == pytest.approx(float(change[1] - change[0]), 1e-3)
    assert row["elbo_kept_change"] == row["iwae_kept_change"] == 0  # its own weights alone changed
    bits = data.only(3).take(3)
    bits = sa.LabelledImages((bits.images > 0.5).float(), bits.labels)
    bounds = [
        sa.iwae_bound(m, bits.images, bits.labels, 5, [model], sa.seeded(1)).mean()
        for m in (model, new)
    ]
    assert row["iwae_forgotten_change"] == pytest.approx(float(bounds[0] - bounds[1]), 1e-3)
    assert row["version"] == f"{sa.__version__} (torch {torch.__version__})"
    assert set(row) > {*measures.JUDGED, *measures.REAL, *measures.COST, *measures.BOUNDS}


def test_the_bound_is_asked_of_the_chosen_methods_and_a_line_without_it_is_done_again(small):
    cheap = small([HIDDEN, OURS], [3])
    cheap.run()
    assert not any("iwae_kept_change" in row for row in rows_of(cheap))
    dear = small([HIDDEN, OURS], [3], bounded=(HIDDEN,))
    assert cheap.missing() == []
    assert [run.method for run in dear.missing()] == [HIDDEN]
    dear.run()
    found = {row["method"]: "iwae_kept_change" in row for row in rows_of(dear)}
    assert found == {HIDDEN: True, OURS: False}
    assert cheap.missing() == dear.missing() == []


def test_what_a_retrained_model_draws_under_the_label_is_not_reported(small, tmp_path):
    made = small((RETRAINED, HIDDEN), [3])
    made.run()
    rows = {row["method"]: row for row in rows_of(made)}
    assert math.isnan(rows[RETRAINED]["p_open_set_class"])
    assert math.isnan(rows[RETRAINED]["argmax_closed_set_standard"])
    assert not math.isnan(rows[HIDDEN]["p_open_set_class"])
    found = scores.summarise(list(rows.values()))
    told = results_page.by_method(results_page.cells(found), [scores.ARGMAX, "P(c_f)"])
    assert f"| {RETRAINED} | 1 | - | - |\n" in told


def test_the_ladder_gets_the_model_that_the_scoreboard_retrained(small, monkeypatch, climbed):
    small([RETRAINED], [3]).run()
    assert story_of(small, grid.ZERO_SEED).baseline.model  # whose cost is subtracted
    monkeypatch.setattr("sahelpers.story.train_baseline", None)  # no weights are trained twice
    story = story_of(small)
    made = small([RETRAINED], [3], "ladder", baseline=replace(SHORT, seed=1))
    made.run()
    assert made.missing() == []
    ((_, model),) = climbed
    for name, weight in story.retrained(3).model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_what_a_retrained_model_draws_of_kept_classes_comes_from_its_own_gaussians(small):
    made = small([RETRAINED], [3])
    made.run()
    story, judge, distances = story_of(small), small.judges["closed_set"], []
    retrained = story.retrained(3).model
    for model in (retrained, story.baseline.model):
        drawn = sa.fixed_latents(model, 20)
        images = sa.draw_images(retrained, drawn.where(drawn.labels != 3))
        distances.append(sa.frechet_distance(judge, images, small.data.without(3).images))
    found = rows_of(made)[0]["frechet_after"]
    assert found == pytest.approx(distances[0], 1e-4)
    assert found != pytest.approx(distances[1], 1e-4)


@pytest.mark.parametrize("where", [30, -2])
def test_a_torn_last_line_is_done_again(small, at_once, where):
    """Cut in the middle, or so late that only the last bracket is missing."""
    made = small([HIDDEN], [3, 5])
    made.run()
    text = made.journal.read_text()
    last = text.rindex('"label column"')
    made.journal.write_text(text[: last + where] if where > 0 else text[:where])
    assert [r["class"] for r in lines_of(made)] == [3]
    assert [run.forget_class for run in made.missing()] == [5]
    made.run()
    assert [r["class"] for r in lines_of(made)] == [3, 5]
    assert made.missing() == []


def test_a_corrupt_checkpoint_fails_its_runs_and_no_others(small):
    made = small([HIDDEN], [3], seeds=(1, 2))
    story = story_of(small)
    path = story._training_recipe("vae_baseline", story.config.baseline).path
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    with pytest.raises(RuntimeError, match="1 of 2 runs failed"):
        made.run()
    errors = {line["seed"]: line.get("error", "") for line in lines_of(made)}
    assert path.name in errors[1]
    assert errors[2] == ""
    path.unlink()
    made.run()
    assert not any("error" in line for line in lines_of(made))


def test_a_full_disk_stops_the_command_and_loses_no_line(small, at_once, monkeypatch):
    made = small([HIDDEN], [3, 5])
    append = journal.append

    def full(path, record):
        if record["class"] == 5:
            with path.open("a") as stream:
                stream.write('{"part":"scoreboard","meth')  # what still fitted
            raise OSError(28, "No space left on device")
        append(path, record)

    monkeypatch.setattr(journal, "append", full)
    with pytest.raises(OSError, match="No space"):
        made.run()
    monkeypatch.setattr(journal, "append", append)
    assert [r["class"] for r in lines_of(made)] == [3]
    made.run()
    assert [r["class"] for r in lines_of(made)] == [3, 5]


def test_a_method_may_have_seeds_of_its_own(small):
    made = small([HIDDEN, OURS], [3], seeds=(1, 2), own_seeds={OURS: (2, 7)})
    assert [(run.method, run.seed) for run in made.runs()] == [
        (HIDDEN, 1),
        (HIDDEN, 2),
        (OURS, 2),
        (OURS, 7),
    ]


def test_the_plan_counts_and_estimates(small):
    made = small(
        [HIDDEN, PAPER], [3, 5], seeds=(1, 2), only={PAPER: ((5,), (2,))}, bounded=(PAPER,)
    )
    assert [(r.method, r.forget_class, r.seed) for r in made.runs() if r.method == PAPER] == [
        (PAPER, 5, 2)
    ]
    plan = made.plan()
    assert plan.startswith("5 of 5 runs are missing in journal.jsonl\n")
    assert "label column           4 runs, not timed yet\n" in plan
    assert "1 runs, not timed yet, with the bound; classes (5,) of seeds (2,) only" in plan
    assert plan.endswith("5 runs left, of methods not timed yet")
    timed = small([HIDDEN], [9], seeds=(42,)).runs()[0].key
    journal.append(made.journal, timed | {"values": {}, "cell_seconds": 120.0})
    assert "4 runs, 120 s each" in made.plan()
    assert made.plan(jobs=4).endswith("2 min left, and 1 runs not timed yet")
    with pytest.raises(ValueError, match="jobs=0 must be a whole number from 1"):
        made.plan(jobs=0)


def test_what_is_not_there_is_named(small):
    for method in ("magic", "baseline"):
        with pytest.raises(ValueError, match=f"method '{method}' is not one of ours "):
            small([method], [3])
    with pytest.raises(ValueError, match="class 10 is not a class"):
        small([PAPER], [10])
    for part in ("magic", "claim"):
        with pytest.raises(ValueError, match=f"part '{part}' is not one of scoreboard, ladder$"):
            small([PAPER], [3], part)
    with pytest.raises(ValueError, match="dataset 'cifar' is not one of mnist"):
        small([PAPER], [3], dataset="cifar")
    with pytest.raises(ValueError, match="seed=-1 must be a whole number from 0"):
        small([RETRAINED], [3], "ladder", further_seeds=(-1,))


def test_every_model_climbs_once_and_a_command_goes_on_where_it_stopped(small, climbed):
    small([HIDDEN, RETRAINED], [3], "ladder", seeds=(5, 6)).run()
    assert len(climbed) == 4
    made = small([HIDDEN, OURS, RETRAINED], [3], "ladder", seeds=(5,))
    made.run()
    assert len(climbed) == 5
    assert [(r["method"], r["seed"]) for r in journal.read(made.journal)][-1] == (OURS, 5)
    for of, model in climbed:
        assert of.label == 3
        assert not model.prior_mean[3].any()  # nobody's Gaussian of the class is left


def test_models_of_all_seeds_cost_what_they_do_above_one_baseline(small, monkeypatch, climbed):
    """That of seed 42, though no run has it; only retrained models have further seeds."""
    monkeypatch.setattr(Story, "judge", None)  # none is asked, nor is a Fisher
    monkeypatch.setattr(Story, "fishers", None)
    few = sa.LadderConfig(images=7)
    made = small([HIDDEN, RETRAINED], [3], "ladder", seeds=(1, 2), further_seeds=(2, 9), ladder=few)
    assert [(run.method, run.seed) for run in made.runs()] == [
        (HIDDEN, 1), (RETRAINED, 1), (HIDDEN, 2), (RETRAINED, 2), (RETRAINED, 9),
    ]  # fmt: skip
    made.run()
    assert made.missing() == []
    assert len(climbed) == 5
    of_42 = story_of(small, 42).baseline.model.state_dict()
    for of, _ in climbed:
        assert all(torch.equal(v, of_42[k]) for k, v in of.baseline.state_dict().items())
        assert [data.digest for data in of.data] == [small.data.digest] * 2
        assert (of.label, of.config) == (3, few)
    for line in journal.read(made.journal):
        assert line["values"] == costs(0.1235)  # rounded
    baselines = list(made.folder.glob("checkpoints/vae_baseline*.pt"))
    assert len(baselines) == 3  # of the seeds 1, 2 and 42; a retrained model needs none
    assert len({run.key["shared"] for run in made.runs()}) == 1
    only = small([PAPER, RETRAINED], [3], "ladder", further_seeds=(9,), only={PAPER: ((3,), (4,))})
    assert [(run.method, run.seed) for run in only.runs()] == [(RETRAINED, 1), (RETRAINED, 9)]


@pytest.mark.parametrize(
    ("part", "methods", "expected"),
    [
        ("scoreboard", (HIDDEN, OURS), ["judges", "fishers"]),
        ("ladder", (HIDDEN, MASKED, RETRAINED), []),
        ("ladder", (OURS, PAPER), ["fishers"]),
    ],
)
def test_no_judge_or_fisher_is_made_where_none_is_needed(
    small, monkeypatch, part, methods, expected
):
    asked = []
    for name in ("judges", "fishers"):
        monkeypatch.setattr(Story, name, property(lambda _, name=name: asked.append(name)))
    for run in small(methods, [3], part).runs():
        asked.clear()
        grid.prepare(run)
        assert asked == expected, run.method


@pytest.mark.parametrize("method", [OURS, HIDDEN])
def test_the_fishers_are_made_first_where_any_run_of_the_seed_needs_them(
    small, at_once, monkeypatch, method
):
    """Or every process would wait for them in its own first run."""
    prepared = []
    monkeypatch.setattr(grid, "prepare", prepared.append)
    small((method, HIDDEN, MASKED, RETRAINED), [3], "ladder", seeds=(1, 2)).run()
    assert [run.seed for run in prepared] == [1, 2]
    assert all(run.needs_fishers == (method == OURS) for run in prepared)


@pytest.mark.parametrize("part", grid.PARTS)
def test_a_number_that_no_table_can_show_is_an_error_and_is_tried_again(
    small, monkeypatch, capsys, part
):
    """One such line stopped every table."""
    wrong = {FITTED: [1.0, math.nan]} if part == "ladder" else {"frechet_after": math.inf}
    monkeypatch.setattr(grid, "prepare", lambda run: None)
    for name in ("measure", "attack"):
        monkeypatch.setattr(grid, name, lambda run: {key: [0.5] for key in run.asked} | wrong)
    made = small([HIDDEN], [3], part)
    with pytest.raises(RuntimeError, match="1 of 1 runs failed"):
        made.run()
    (line,) = journal.read(made.journal)
    (name,) = wrong
    assert f"ValueError: {name!r} has " in line["error"]
    assert len(made.missing()) == 1
    wrong.clear()
    made.run()
    assert made.missing() == []


def test_times_of_an_accelerator_say_nothing_about_a_processor(small):
    made = small([HIDDEN], [3])
    (run,) = made.runs()
    line = run.key | {"class": 5, "values": {}, "cell_seconds": 7.0, "machine": "NVIDIA H100, CUDA"}
    journal.append(made.journal, line)
    assert "not timed yet" in made.plan()
    assert "7 s each" in replace(made, device="cuda").plan()


def test_one_climb_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def compute(run):
        if run.seed == 43 and not mended:
            raise OSError("disk full")
        nats = {HIDDEN: 70.0, MASKED: 70.0, RETRAINED: 100.0}.get(run.method, 101.0)
        return {"values": costs(nats), "cell_seconds": 1.0}

    mended = False
    monkeypatch.setattr(grid, "compute", compute)
    monkeypatch.setattr(grid, "prepare", lambda run: None)
    made = Grid("ladder", grid.CLIMBED, (3,), (42, 43), folder=tmp_path)
    with pytest.raises(RuntimeError, match="7 of 14 runs failed, named above"):
        made.run()
    assert tables.audit(journal.read(made.journal)) == {}  # one retrained model is too few
    mended = True
    made.run()
    assert made.missing() == []
    replace(made, seeds=(42, 43, 44)).run()
    found = tables.audit(journal.read(made.journal))
    assert found[("mnist", "mlp"), OURS][3][FITTED].n_retrained == 3
    with pytest.raises(ValueError, match="class 12"):
        Grid("ladder", grid.CLIMBED, (3, 12), folder=tmp_path)


def test_the_seed_of_a_run_is_the_baselines_and_the_forgettings(small):
    (run,) = small([OURS], [3], seeds=(43,)).runs()
    config = run.baseline().story.config
    assert (config.baseline.seed, config.amnesia.seed) == (43, 43)
    assert run.key != small([OURS], [3], seeds=(42,)).runs()[0].key


# ---- what a line belongs to


def digests(small, part="ladder", **changes):
    """(shared, own) of each of three methods."""
    runs = small((OURS, HIDDEN, RETRAINED), [3], part, **changes).runs()
    return [(run.key["shared"], run.key["own"]) for run in runs]


def test_the_digests_are_of_the_recipe_and_not_of_the_seed(small):
    usual = digests(small)
    (shared, ours), (_, hidden), (_, retrained) = usual
    assert {entry[0] for entry in usual} == {shared}
    assert hidden == retrained != ours  # neither reads how to forget
    other_seeds = {"seeds": (7,), "amnesia": replace(QUICK, seed=8)}
    assert digests(small, baseline=replace(SHORT, seed=9), **other_seeds) == usual
    changed = digests(small, amnesia=replace(QUICK, gamma=3.0))
    assert changed[1:] == usual[1:]
    assert changed[0][0] == shared
    assert changed[0][1] != ours


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("scoreboard", {"measures": MeasureConfig()}),
        ("ladder", {"ladder": sa.LadderConfig(images=7)}),
        ("ladder", {"baseline": sa.BaselineConfig()}),
        ("scoreboard", {"judge": sa.JudgeConfig(epochs=1)}),
    ],
)
def test_what_all_share_changes_the_shared_digest(small, part, change):
    for before, after in zip(digests(small, part), digests(small, part, **change), strict=True):
        assert before[0] != after[0]
        assert before[1] == after[1]
    other = {
        "ladder": {"measures": MeasureConfig(), "judge": sa.JudgeConfig(epochs=1)},
        "scoreboard": {"ladder": sa.LadderConfig(seed=1)},
    }
    assert digests(small, part, **other[part]) == digests(small, part)  # of the other part alone


def missing(made):
    return {run.method for run in made.missing()}


def test_a_raised_recipe_makes_the_runs_that_use_it_missing_and_no_others(
    small, at_once, monkeypatch
):
    made = small(METHODS, [3])
    made.run()
    forgetting = {m for m in METHODS if "ours" in m or "Amnesia" in m} | {UNDO}
    descending = forgetting | {MASKED, "saliency mask", "projection", DISTILLED}
    for recipe, expected in ((amnesia, descending), (fisher, forgetting), (training, {*METHODS})):
        with monkeypatch.context() as patch:
            patch.setattr(recipe, "VERSION", recipe.VERSION + 1)
            assert missing(made) == expected, recipe.__name__
        assert made.missing() == []


def test_a_raised_version_of_the_ladder_makes_its_runs_missing_and_no_others(
    small, at_once, monkeypatch
):
    scoreboard, climbs = (small([HIDDEN, OURS], [3], part) for part in grid.PARTS)
    for made in (scoreboard, climbs):
        made.run()
        assert missing(made) == set()
    monkeypatch.setattr(ladder, "VERSION", ladder.VERSION + 1)
    assert missing(scoreboard) == set()
    assert missing(climbs) == {HIDDEN, OURS}


@pytest.mark.parametrize("part", grid.PARTS)
def test_lines_of_both_parts_may_be_current(part):
    def key(**changes):
        (run,) = Grid(part, (OURS,), (3,), **changes).runs()
        return run.key

    (other,) = set(grid.PARTS) - {part}
    assert grid.current(key(seeds=(9,)))
    assert not grid.current(key(seeds=(9,)) | {"part": other})
    assert not grid.current(key(seeds=(9,)) | {"part": "published"})
    judged = key(seeds=(9,), judge=sa.JudgeConfig(epochs=1))
    assert grid.current(judged) == (part == "ladder")  # where no judge is asked
    for changes in (
        {"baseline": sa.BaselineConfig(latent_dim=3)},
        {"amnesia": sa.AmnesiaConfig(gamma=3.0)},
        {"ladder": sa.LadderConfig(z_steps=7)}
        if part == "ladder"
        else {"measures": MeasureConfig(samples=7)},
    ):
        assert not grid.current(key(seeds=(9,), **changes)), changes


def test_todays_default_decides_which_lines_are_current(small, at_once, monkeypatch):
    """A changed default of forgetting makes ours old and not the methods that do not read it."""
    usual = {"baseline": sa.BaselineConfig(), "amnesia": sa.AmnesiaConfig()}
    made = small(METHODS, [3], measures=MeasureConfig(), **usual)
    made.run()
    records = journal.read(made.journal)
    assert all(grid.current(record) for record in records)
    assert len(tables.newest(records, "scoreboard")) == len(METHODS)
    changed = {"mlp": (sa.BaselineConfig(), sa.AmnesiaConfig(gray_value=0.25))}
    monkeypatch.setattr(grid, "CONFIGS", changed)
    old = {record["method"] for record in records if not grid.current(record)}
    changed_with_it = {m for m in METHODS if "ours" in m}
    changed_with_it -= {KEPT_IMAGES, KEPT_SLOWLY, KEPT_HEAVILY, VERSION3, VERSION4}
    assert old == changed_with_it | {"saliency mask", "projection", DISTILLED, UNDO}
    assert len(tables.newest(records, "scoreboard")) == len(METHODS) - len(old)
    rest = {name: function for name, function in METHODS.items() if name != "projection"}
    monkeypatch.setattr(grid, "METHODS", rest)  # an entry put back would stand at the end
    assert not any(grid.current(r) for r in records if r["method"] == "projection")


EDITED = """
from study.methods import METHODS

SHARE = 0.5


def method(story, gone):
    return METHODS["label column"](story, gone)
"""


def test_an_edited_method_gets_new_lines(small, at_once, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "method_of_a_reader.py"
    file.write_text(EDITED)
    module = importlib.import_module(file.stem)
    monkeypatch.setitem(METHODS, "mine", module.method)
    made = small(["mine", HIDDEN], [3])
    made.run()
    file.write_text(EDITED.replace("    return", '    """In words."""\n    return'))
    monkeypatch.setitem(METHODS, "mine", importlib.reload(module).method)
    assert missing(made) == set()
    file.write_text(EDITED.replace("gone)\n", "gone[:1])\n"))
    monkeypatch.setitem(METHODS, "mine", importlib.reload(module).method)
    assert missing(made) == {"mine"}
    made.run()
    assert missing(made) == set()
    assert len(journal.read(made.journal)) == 3  # the line of the earlier code is still there


# ---- other data


def idx(array):
    """The bytes of an idx file of uint8."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path, monkeypatch, mnist):
    """Small files under the names of Fashion-MNIST's, which torchvision's table knows."""
    kind = datasets.FashionMNIST
    raw = tmp_path / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setenv("SA_DATA", str(tmp_path))
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    few = [mnist.take(300, seed=seed) for seed in (5, 4)]  # training and test
    arrays = [
        array
        for data in few
        for array in ((255 * data.images[:, 0]).round().numpy(), data.labels.numpy())
    ]
    known = []
    for (address, _), array in zip(kind.resources, arrays, strict=True):
        content = idx(array)
        (raw / address.rsplit("/", 1)[-1]).write_bytes(content)
        known.append((address, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(kind, "resources", known)


@pytest.mark.full
def test_other_data_from_their_own_files_to_the_table(fashion, tmp_path, capsys):
    judge = sa.JudgeConfig(epochs=1, batch_size=50)
    made = Grid(
        "scoreboard", (HIDDEN, OURS), (3,), (1,), "fashion_mnist", SHORT, QUICK, judge, LITTLE,
        bounded=(HIDDEN, OURS), folder=tmp_path,
    )  # fmt: skip
    made.run()
    rows = rows_of(made)
    assert [row["method"] for row in rows] == [OURS, HIDDEN]
    assert {row["dataset"] for row in rows} == {"fashion_mnist"}
    assert all(math.isfinite(r["iwae_forgotten_change"]) for r in rows)
    for role in ("open_set", "closed_set"):  # trained for this data set
        assert list((tmp_path / "checkpoints").glob(f"judge_{role}-*.pt"))
    assert f"{OURS}, class Dress, seed 1: " in capsys.readouterr().out
    assert list(scores.summarise(rows)) == [f"{m} (fashion_mnist, mlp)" for m in (OURS, HIDDEN)]


@pytest.mark.parametrize(("dataset", "name"), [("kmnist", "tsu"), ("qmnist", "3")])
def test_classes_are_named_as_their_data_name_them(small, at_once, dataset, name, capsys):
    made = small([HIDDEN], [3], dataset=dataset)
    made.run()
    assert f"{HIDDEN}, class {name}, seed 1: " in capsys.readouterr().out
    assert [r["dataset"] for r in lines_of(made)] == [dataset]
    assert len(small([HIDDEN], [3]).missing()) == 1  # of MNIST


def test_a_method_that_forgets_to_copy_spoils_no_other_run(small, monkeypatch):
    def in_place(story, forget_class):
        with torch.no_grad():
            for p in story.baseline.model.parameters():
                p.mul_(0)
        return sa.AmnesiaResult(story.baseline.model, forget_class, {}, "budget", 1.0, 0)

    monkeypatch.setitem(METHODS, "in place", in_place)
    made = small(["in place", HIDDEN], [3])
    made.run()
    (row,) = [row for row in rows_of(made) if row["method"] == HIDDEN]
    model = sa.reset_label(story_of(small).baseline.model, 3)
    latents = sa.fixed_latents(model, 20, "standard")
    verdict = sa.judge_samples(model, small.judges["closed_set"], latents)
    assert row["p_closed_set_standard"] == pytest.approx(float(verdict.probability[3, 3]))
