"""The grid: every run once, whatever stops it, and what it says about the rest."""

import gzip
import hashlib
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import datasets

import results
import sahelpers as sa
from sahelpers.story import Story
from sahelpers.study import (
    METHODS,
    Claim,
    Effort,
    Grid,
    grid,
    read_audit,
    read_scoreboard,
    scores,
)
from sahelpers.study.statistics import FOOLED, KEPT, NAMED

SHORT = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32)
LITTLE = Effort(
    samples=20, frechet_samples=20, iwae_images=3, iwae_draws=5, restarts=4, attack_steps=2,
    relearn_images=5, relearn_steps=3, relearn_runs=2,
)  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch, mnist):
    """A grid that runs in seconds: little data, short training, few samples, untrained judges."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(grid, "load_dataset", lambda *a: mnist.take(600))
    torch.manual_seed(0)
    judges = {role: sa.Judge(role).eval() for role in ("open", "plain", "guide")}
    monkeypatch.setattr(Story, "judge", lambda story, role: judges[role])

    def make(methods, classes, part="scoreboard", **changes):
        usual = {"seeds": (1,), "baseline": SHORT, "amnesia": QUICK, "effort": LITTLE}
        usual |= {"expensive": (), "folder": tmp_path}
        return Grid(part, tuple(methods), tuple(classes), **{**usual, **changes})

    make.judges = judges
    make.data = mnist.take(600)
    return make


def story_of(small, seed=1):
    return Story((small.data, small.data), baseline=replace(SHORT, seed=seed))


def rows_of(made):
    return read_scoreboard(made.folder)


def test_runs_are_done_once_and_a_failing_one_is_a_row(small, monkeypatch):
    calls = []

    def counted(story, forget_class):
        calls.append(forget_class)
        if forget_class == (5,):
            raise ArithmeticError("no\nluck")
        return METHODS["label column"](story, forget_class)

    monkeypatch.setitem(METHODS, "counted", counted)
    made = small(["counted", "selective amnesia"], [3, 5])
    with pytest.raises(RuntimeError, match="1 of 4 runs failed, named above"):
        made.run()
    rows = rows_of(made)
    assert [(r["method"], r["class"], r["error"]) for r in rows] == [
        ("counted", "3", ""),
        ("counted", "5", "ArithmeticError: no luck"),
        ("selective amnesia", "3", ""),
        ("selective amnesia", "5", ""),
    ]
    assert results.markdown(rows).endswith("1 runs failed.\n")
    monkeypatch.setitem(
        METHODS, "counted", lambda story, gone: calls.append(5) or counted(story, (3,))
    )
    small(["counted"], [3, 5]).run()
    assert calls == [(3,), (5,), 5, (3,)]  # what failed is tried again, what is done is not
    again = rows_of(made)
    assert len(again) == 4
    assert not any(row["error"] for row in again)  # the newer line of the run counts


def test_a_row_agrees_with_measuring_by_hand(small):
    made = small(["label column"], [3], expensive=("label column",))
    made.run()
    row = rows_of(made)[0]
    assert row["error"] == ""
    story, data, judges = story_of(small), small.data, small.judges
    model = story.baseline.model
    new = METHODS["label column"](story, (3,)).model
    latents = sa.fixed_latents(model, 20, "standard")
    verdict = sa.judge_samples(new, judges["plain"], latents)
    assert float(row["p_plain_standard"]) == pytest.approx(float(verdict.probability[3, 3]), 1e-3)
    seen = sa.judge_samples(new, judges["open"], latents).argmax[3, 3]
    assert float(row["argmax_open_standard"]) == pytest.approx(float(seen), 1e-3)
    mine = data.labels == 3
    change = [sa.measure_elbo(m, data)[mine].mean() for m in (model, new)]
    assert float(row["elbo_forgotten_change"]) == pytest.approx(float(change[1] - change[0]), 1e-3)
    guide = judges["guide"]
    probe = sa.ProbeConfig(n_restarts=4, steps=2)
    images = sa.guided_attack(new, 3, probe, guide=guide).images
    scoring = {role: judges[role] for role in ("open", "plain")}
    hit = sa.success(images, scoring, 3).float().mean()
    assert float(row["attack"]) == pytest.approx(float(hit))
    assert float(row["iwae_kept_change"]) == 0  # the label's own weights are all that changed
    assert float(row["iwae_forgotten_change"]) != 0
    assert 0 <= float(row["relearn"]) <= 1
    assert row["version"].startswith(sa.__version__)


def test_expensive_measures_go_to_the_chosen_methods_only(small):
    made = small(["label column", "selective amnesia"], [3], expensive=("label column",))
    made.run()
    rows = rows_of(made)
    assert [bool(r["attack"]) for r in rows] == [True, False]
    assert [bool(r["iwae_kept_change"]) for r in rows] == [True, False]


def test_a_run_without_the_expensive_measures_is_done_again_where_they_are_asked_for(small):
    cheap = small(["label column"], [3])
    cheap.run()
    expensive = small(["label column"], [3], expensive=("label column",))
    assert (len(cheap.missing()), len(expensive.missing())) == (0, 1)
    expensive.run()
    assert rows_of(expensive)[0]["attack"]
    assert cheap.missing() == expensive.missing() == []


def test_what_the_control_draws_under_the_label_is_not_reported(small, tmp_path):
    both = ("retraining", "label column")
    made = small(both, [3], expensive=both)
    made.run()
    rows = rows_of(made)
    assert [r["error"] for r in rows] == ["", ""]
    assert rows[0]["p_open_class"] == rows[0]["argmax_plain_standard"] == "nan"
    found = scores.summarise(rows)
    assert math.isnan(found["retraining"]["attack - control"]["3", "1"])  # no control but itself
    excess = float(rows[1]["attack"]) - float(rows[0]["attack"])
    assert found["label column"]["attack - control"] == {("3", "1"): pytest.approx(excess)}
    assert "| retraining | 1 | - | - |" in results.markdown(rows)
    assert list((tmp_path / "checkpoints").glob("vae_without_3-*.pt"))  # for the audit


def test_the_audit_attacks_the_model_that_the_scoreboard_retrained(small, monkeypatch):
    small(["retraining"], [3]).run()
    monkeypatch.setattr("sahelpers.story.train_baseline", None)  # no weights are trained twice
    attacked = []
    monkeypatch.setattr(
        grid.battery,
        "attack_all",
        lambda model, *a, **k: attacked.append(model) or {"guided both": [1]},
    )
    story = story_of(small)
    made = small(["retraining"], [3], "audit")
    made.run()
    assert made.missing() == []
    for name, weight in story.control(3).model.state_dict().items():
        assert torch.equal(weight, attacked[0].state_dict()[name])


def test_what_a_control_draws_of_kept_classes_comes_from_its_own_gaussians(small):
    made = small(["retraining"], [3])
    made.run()
    story, plain, distances = story_of(small), small.judges["plain"], []
    control = story.control(3).model
    for model in (control, story.baseline.model):
        drawn = sa.fixed_latents(model, 20)
        images = sa.draw_images(control, drawn.where(drawn.labels != 3))
        distances.append(sa.frechet_distance(plain, images, small.data.without(3).images))
    found = float(rows_of(made)[0]["frechet_after"])
    assert found == pytest.approx(distances[0], 1e-4)
    assert found != pytest.approx(distances[1], 1e-4)


@pytest.mark.parametrize("where", [30, -1])
def test_a_torn_last_line_is_done_again(small, where):
    """Cut in the middle, or so late that only the end of the line is missing."""
    made = small(["label column"], [3, 5])
    made.run()
    text = made.journal.read_text()
    last = text.rindex('"label column"')
    made.journal.write_text(text[: last + where] if where > 0 else text[:where])
    assert [r["class"] for r in grid.read_journal(made.journal)] == [3]
    assert [run.forget_class for run in made.missing()] == [5]
    made.run()
    assert [r["class"] for r in grid.read_journal(made.journal)] == [3, 5]
    assert [r["class"] for r in rows_of(made)] == ["3", "5"]
    assert (made.folder / "scoreboard.csv").read_text().count("\n") == 3
    assert made.missing() == []


def key_of(method, label, seed=42, part="scoreboard"):
    return Grid(part, (method,), (label,), (seed,)).runs()[0].key


def test_lines_survive_a_file(tmp_path):
    path, records = tmp_path / "results" / "journal.jsonl", []
    assert grid.read_journal(path) == []
    for label in (3, 5):
        for part in ("scoreboard", "audit"):
            records.append(key_of("paper", label, part=part) | {"values": {"p": 0.123456789}})
            grid.append(path, records[-1])
    assert grid.read_journal(path) == records
    newer = records[0] | {"values": {"p": 1.0}}
    grid.append(path, newer)
    assert grid.read_journal(path) == [newer, *records[1:]]


def test_a_run_that_fails_later_keeps_what_it_had(tmp_path):
    path = tmp_path / "journal.jsonl"
    had = key_of("paper", 3) | {"values": {"p_open_class": 0.5}}
    for record in (
        key_of("paper", 3) | {"error": "first"},
        had,
        key_of("paper", 3) | {"error": "no"},
    ):
        grid.append(path, record)
    assert grid.read_journal(path) == [had]


@pytest.mark.parametrize("line", ["5", "[1, 2]", '"paper"', "{}", "null"])
def test_a_line_that_is_no_run_is_refused(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    grid.append(path, key_of("paper", 3))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(
        ValueError, match=r"journal\.jsonl, line 2: .* is no run .* remove the line"
    ):
        grid.read_journal(path)


def test_an_empty_journal_is_none(tmp_path):
    (tmp_path / "journal.jsonl").touch()  # a run killed between making the file and writing to it
    grid.append(tmp_path / "journal.jsonl", key_of("paper", 3))
    assert [r["class"] for r in grid.read_journal(tmp_path / "journal.jsonl")] == [3]


def test_a_corrupt_checkpoint_fails_its_runs_and_no_others(small):
    made = small(["label column"], [3], seeds=(1, 2))
    story = story_of(small)
    path = story._training_recipe("vae_baseline", story.config.baseline).path
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    with pytest.raises(RuntimeError, match="1 of 2 runs failed"):
        made.run()
    rows = rows_of(made)
    assert [(r["seed"], path.name in r["error"]) for r in rows] == [("1", True), ("2", False)]
    path.unlink()
    made.run()
    assert not any(r["error"] for r in rows_of(made))


def test_a_full_disk_stops_the_run_and_loses_no_line(small, monkeypatch):
    made = small(["label column"], [3, 5])
    append = grid.append

    def full(path, record):
        if record["class"] == 5:
            with path.open("a") as stream:
                stream.write('{"part":"scoreboard","meth')  # what still fitted
            raise OSError(28, "No space left on device")
        append(path, record)

    monkeypatch.setattr(grid, "append", full)
    with pytest.raises(OSError, match="No space"):
        made.run()
    monkeypatch.setattr(grid, "append", append)
    assert [r["class"] for r in rows_of(made)] == ["3"]
    made.run()
    assert [r["class"] for r in rows_of(made)] == ["3", "5"]


def test_the_plan_counts_and_estimates(small, capsys):
    made = small(
        ["label column", "paper"], [3, 5], seeds=(1, 2), only={"paper": ((5,), (2,))},
        expensive=("paper",),
    )  # fmt: skip
    assert [(r.method, r.forget_class, r.seed) for r in made.runs() if r.method == "paper"] == [
        ("paper", 5, 2)
    ]
    plan = made.plan()
    assert plan.startswith("5 of 5 runs are missing in journal.jsonl\n")
    assert "label column           4 runs, not timed yet\n" in plan
    assert "1 runs, not timed yet, with bound and attacks; classes (5,) of seeds (2,) only" in plan
    assert plan.endswith("5 runs left, of methods not timed yet")
    grid.append(made.journal, key_of("label column", 9) | {"values": {}, "cell_seconds": 120.0})
    assert "4 runs, 120 s each" in made.plan()
    assert made.plan(jobs=4).endswith("2 min left, and 1 runs not timed yet")
    with pytest.raises(ValueError, match="jobs=0 must be a whole number from 1"):
        made.plan(jobs=0)


def test_what_is_not_there_is_named(small):
    with pytest.raises(ValueError, match="method 'magic' is not one of selective amnesia"):
        small(["magic"], [3])
    with pytest.raises(ValueError, match="method 'baseline' is not one of selective amnesia"):
        small(["baseline"], [3])
    with pytest.raises(ValueError, match="class 10 is not a class"):
        small(["paper"], [10])
    with pytest.raises(ValueError, match="part 'magic' is not one of scoreboard, claim, audit"):
        small(["paper"], [3], "magic")
    with pytest.raises(ValueError, match="dataset 'cifar' is not one of mnist"):
        small(["paper"], [3], dataset="cifar")


def values(share, n=8):
    hits = round(share * n)
    found = {"guided both": [1] * hits + [0] * (n - hits)}
    return found | {KEPT: [1] * n, FOOLED: [0] * n}


def test_the_audit_attacks_every_model_once_and_goes_on_where_it_stopped(small, monkeypatch):
    attacked = []

    def attack_all(model, label, effort, **given):
        # a model that knows the class has its Gaussian
        attacked.append(bool(model.prior_mean[label].any()))
        return values(0.5)

    monkeypatch.setattr(grid.battery, "attack_all", attack_all)
    small(["baseline", "retraining"], [3], "audit", seeds=(5, 6, 7)).run()
    assert attacked == [True, False] * 3
    made = small(["baseline", "label column", "retraining"], [3], "audit", seeds=(5,))
    made.run()
    assert attacked[6:] == [False]
    found = grid.read_journal(made.journal)
    assert [(r["method"], r["seed"]) for r in found][-1] == ("label column", 5)
    text = (made.folder / "audit.csv").read_text()
    assert {line.split(",")[1] for line in text.splitlines()[1:]} == {"baseline", "label column"}


def test_the_claim_has_images_of_each_seed_and_further_controls(small, monkeypatch):
    asked = []

    def named_attacks(model, label, claim, *, baseline, judges, real):
        known = bool(model.prior_mean[label].any())
        asked.append((known, claim.seed, claim.images, baseline.state_dict()["prior_mean"].sum()))
        return {attack: [0.5] for attack in NAMED}

    monkeypatch.setattr(grid.battery, "named_attacks", named_attacks)
    monkeypatch.setattr(Story, "guide", None)  # it is not asked
    few, methods = Claim(images=7), ["label column", "retraining"]
    made = small(methods, [3], "claim", seeds=(1, 2), controls=(2, 9), claim=few)
    assert [(run.method, run.seed) for run in made.runs()] == [
        ("label column", 1), ("retraining", 1), ("label column", 2), ("retraining", 2),
        ("retraining", 9),
    ]  # fmt: skip
    made.run()
    assert made.missing() == []
    first = story_of(small, SHORT.seed).baseline.model.prior_mean.sum()
    assert [a[:3] for a in asked] == [(False, seed, 7) for seed in (1, 1, 2, 2, 9)]
    assert all(a[3] == first for a in asked)  # one baseline sets every price
    baselines = list(made.folder.glob("checkpoints/vae_baseline*.pt"))
    assert len(baselines) == 3  # of the seeds 1, 2 and the first; a lone control needs none
    marks = {run.key["fingerprint"].split("-")[0] for run in made.runs()}
    assert len(marks) == 1
    assert marks.isdisjoint(run.key["fingerprint"] for run in small(methods, [3], "audit").runs())
    only = small(["paper", "retraining"], [3], "claim", controls=(9,), only={"paper": ((3,), (4,))})
    assert [(run.method, run.seed) for run in only.runs()] == [("retraining", 1), ("retraining", 9)]


def test_one_attack_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def compute(run):
        if run.seed == 43 and not healed:
            raise OSError("disk full")
        shares = {"baseline": 1.0, "retraining": 0.5}
        return {"values": values(shares.get(run.method, 0.25)), "cell_seconds": 1.0}

    healed = False
    monkeypatch.setattr(grid, "compute", compute)
    monkeypatch.setattr(grid, "prepare", lambda run: None)
    methods = ("baseline", "retraining", "label column")
    made = Grid("audit", methods, (3,), (42, 43), folder=tmp_path)
    with pytest.raises(RuntimeError, match="3 of 6 runs failed, named above"):
        made.run()
    assert read_audit(tmp_path) == {}  # one control is too few for a verdict
    healed = True
    made.run()
    assert made.missing() == []
    replace(made, seeds=(42, 43, 44)).run()
    assert read_audit(tmp_path)[3, "label column", "guided both"].controls == 3
    with pytest.raises(ValueError, match="class 12"):
        Grid("audit", methods, (3, 12), folder=tmp_path)


def test_the_seed_of_a_run_is_the_baselines_and_the_forgettings(small):
    (run,) = small(["selective amnesia"], [3], seeds=(43,)).runs()
    config = run.comparison().story.config
    assert (config.baseline.seed, config.amnesia.seed) == (43, 43)
    assert run.key != small(["selective amnesia"], [3], seeds=(42,)).runs()[0].key


def test_a_fingerprint_is_of_the_recipe_and_not_of_the_seed(small):
    def marks(**changes):
        methods = ("baseline", "selective amnesia", "retraining")
        runs = small(methods, [3], "audit", **changes).runs()
        return [run.key["fingerprint"] for run in runs]

    shared, ours, control = marks()
    assert shared == control == ours.split("-")[0]
    assert marks(seeds=(7,), amnesia=replace(QUICK, seed=8)) == [shared, ours, control]
    other = marks(amnesia=replace(QUICK, gamma=2.0))
    assert (other[0], other[2]) == (shared, control)  # they did not forget
    assert other[1] != ours
    for change in (
        {"effort": Effort()},
        {"baseline": sa.BaselineConfig()},
        {"judge": sa.JudgeConfig(epochs=1)},
    ):
        assert not set(marks(**change)) & {shared, ours}


def idx(array, kind):
    """The bytes of an idx file."""
    head = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture(params=["fashion_mnist", "kmnist", "qmnist"])
def other_data(request, tmp_path, monkeypatch, mnist):
    """Small files in another data set's own format, which torchvision's table knows."""
    folder = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST"}
    kind = getattr(datasets, folder[request.param])
    raw = tmp_path / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setenv("SA_DATA", str(tmp_path))
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    table, known = kind.resources, {}
    if request.param != "qmnist":
        table = {"train": table[:2], "test": table[2:]}
    for split in ("train", "test"):
        data = mnist.take(600, seed=len(split))
        labels = data.labels.numpy()
        packed = [idx((255 * data.images[:, 0]).round().byte().numpy(), 8)]
        if request.param == "qmnist":  # eight columns, the class in the first
            columns = np.repeat(labels[:, None], 8, axis=1).astype(">i4")
            packed.append(idx(columns, 12))
        else:
            packed.append(idx(labels.astype(np.uint8), 8))
        known[split] = []
        for (address, _), content in zip(table[split], packed, strict=True):
            (raw / address.rsplit("/", 1)[-1]).write_bytes(content)
            known[split].append((address, hashlib.md5(content).hexdigest()))
    rest = known if request.param == "qmnist" else [*known["train"], *known["test"]]
    monkeypatch.setattr(kind, "resources", rest)
    return request.param


def test_other_data_sets_from_their_own_files_to_the_table(other_data, tmp_path, capsys):
    judge = sa.JudgeConfig(epochs=1, batch_size=50)
    made = Grid(
        "scoreboard", ("label column", "selective amnesia"), (3,), (1,), other_data, SHORT, QUICK,
        judge, LITTLE, folder=tmp_path,
    )  # fmt: skip
    made.run()
    rows = read_scoreboard(tmp_path)
    assert [(r["dataset"], r["error"]) for r in rows] == [(other_data, "")] * 2
    assert all(r["attack"] for r in rows)
    for role in ("open", "plain", "guide"):  # trained for this data set
        assert list((tmp_path / "checkpoints").glob(f"judge_{role}-*.pt"))
    name = {"fashion_mnist": "Dress", "kmnist": "tsu", "qmnist": "3"}[other_data]
    assert f"selective amnesia, class {name}, seed 1: " in capsys.readouterr().out
    assert f"selective amnesia ({other_data}, mlp)" in results.markdown(rows)
