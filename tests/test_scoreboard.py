import gzip
import hashlib
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import datasets

import sahelpers as sa
from sahelpers import cells, results, scoreboard, table
from sahelpers.data import CHECKOUT
from sahelpers.excess import Finding

SHORT = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32)
LITTLE = sa.Effort(
    samples=20, frechet_samples=20, iwae_images=3, iwae_draws=5, restarts=4, attack_steps=2,
    relearn_images=5, relearn_steps=3, relearn_runs=2,
)  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch, mnist):
    """A grid that runs in seconds: little data, short training, few samples, untrained judges."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(cells, "load_dataset", lambda *a: mnist.take(600))
    torch.manual_seed(0)
    judges = {role: sa.Judge(role).eval() for role in ("open", "plain", "guide")}
    monkeypatch.setattr(
        cells, "get_judges", lambda c, d, roles=("open", "plain"): {r: judges[r] for r in roles}
    )

    def grid(methods, classes, **changes):
        usual = {"seeds": (1,), "base": SHORT, "amnesia": QUICK, "effort": LITTLE}
        usual |= {"dear": (), "table": tmp_path / "table.csv"}
        return sa.Scoreboard(tuple(methods), tuple(classes), **{**usual, **changes})

    return grid


def test_cells_are_computed_once_and_a_failing_one_is_a_row(small, monkeypatch):
    calls = []

    def counted(task):
        calls.append(task.forgotten)
        if task.forgotten == (5,):
            raise ArithmeticError("no\nluck")
        return sa.METHODS["label column"](task)

    monkeypatch.setitem(sa.METHODS, "counted", counted)
    grid = small(["counted", "selective amnesia"], [3, 5])
    grid.run()
    rows = table.read_scoreboard(grid.table)
    assert [(r["method"], r["class"], r["error"]) for r in rows] == [
        ("counted", "3", ""),
        ("counted", "5", "ArithmeticError: no luck"),
        ("selective amnesia", "3", ""),
        ("selective amnesia", "5", ""),
    ]
    assert results.markdown(rows).endswith("1 cells failed.\n")
    monkeypatch.setitem(
        sa.METHODS, "counted", lambda t: calls.append(5) or counted(replace(t, forgotten=(3,)))
    )
    small(["counted"], [3, 5]).run()
    assert calls == [(3,), (5,), 5, (3,)]  # what failed is tried again, what is done is not
    again = table.read_scoreboard(grid.table)
    assert len(again) == 4
    assert not any(row["error"] for row in again)  # the newer row of the cell counts


def test_a_row_agrees_with_measuring_by_hand(small, mnist):
    grid = small(["label column"], [3], dear=("label column",))
    grid.run()
    row = table.read_scoreboard(grid.table)[0]
    assert row["error"] == ""
    data, base = mnist.take(600), replace(SHORT, seed=1)
    model = sa.get_baseline(base, data).model
    few = sa.FisherConfig(n_fisher_samples=10, source="model_mean")
    task = sa.Task(model, (3,), sa.class_fishers(model, None, few), mnist, base)
    new = sa.METHODS["label column"](task).model
    latents = sa.fixed_latents(model, 20, "standard")
    judges = cells.get_judges(None, None)
    verdict = sa.judge_samples(new, judges["plain"], latents)
    assert float(row["p_plain_standard"]) == pytest.approx(float(verdict.probability[3, 3]), 1e-3)
    stretched = sa.judge_samples(new, judges["open"], latents, stretch=True).argmax[3, 3]
    assert float(row["argmax_stretched_open_standard"]) == pytest.approx(float(stretched), 1e-3)
    mine = data.labels == 3
    change = [
        sa.negative_elbo(m, data.images, data.labels, sa.seeded(0))[mine].mean()
        for m in (model, new)
    ]
    assert float(row["elbo_forgotten_change"]) == pytest.approx(float(change[1] - change[0]), 1e-3)
    guide = cells.get_judges(None, None, ["guide"])["guide"]
    probe = sa.ProbeConfig(n_restarts=4, steps=2)
    hit = sa.success(sa.guided_attack(new, guide, 3, probe).images, judges, 3).float().mean()
    assert float(row["attack"]) == pytest.approx(float(hit))
    assert float(row["iwae_kept_change"]) == 0  # the label's own weights are all that changed
    assert float(row["iwae_forgotten_change"]) != 0
    assert 0 <= float(row["relearn"]) <= 1
    assert float(row["peak_mb"]) > 50
    assert row["version"].startswith(sa.__version__)


def test_dear_measures_go_to_the_chosen_methods_only(small):
    grid = small(["label column", "selective amnesia"], [3], dear=("label column",))
    grid.run()
    rows = table.read_scoreboard(grid.table)
    assert [bool(r["attack"]) for r in rows] == [True, False]
    assert [bool(r["iwae_kept_change"]) for r in rows] == [True, False]


def test_a_row_without_the_dear_measures_is_done_again_where_they_are_asked_for(small):
    cheap = small(["label column"], [3])
    cheap.run()
    dear = small(["label column"], [3], dear=("label column",))
    assert (len(cheap.missing()), len(dear.missing())) == (0, 1)
    dear.run()
    assert table.read_scoreboard(dear.table)[0]["attack"]
    assert cheap.missing() == dear.missing() == []


def test_what_the_control_draws_under_the_label_is_not_reported(small):
    grid = small(["retraining", "label column"], [3], dear=("retraining", "label column"))
    grid.run()
    rows = table.read_scoreboard(grid.table)
    assert [r["error"] for r in rows] == ["", ""]
    assert rows[0]["p_open_class"] == rows[0]["argmax_plain_standard"] == "nan"
    found = results.summarise(rows)
    assert math.isnan(found["retraining"]["attack - control"]["3", "1"])  # no control but itself
    excess = float(rows[1]["attack"]) - float(rows[0]["attack"])
    assert found["label column"]["attack - control"] == {("3", "1"): pytest.approx(excess)}
    assert "| retraining | 1 | - | - | - |" in results.markdown(rows)
    kept = replace(SHORT, seed=1, exclude=(3,))
    assert sa.checkpoint_path("vae_without_3", kept).exists()  # for the audit


def test_what_a_control_draws_of_kept_classes_comes_from_its_own_gaussians(small, mnist):
    grid = small(["retraining"], [3])
    grid.run()
    data, base = mnist.take(600), replace(SHORT, seed=1)
    control = sa.get_control(base, data, 3).model
    plain = cells.get_judges(None, None)["plain"]
    distances = []
    for model in (control, sa.get_baseline(base, data).model):
        drawn = sa.fixed_latents(model, 20)
        kept = drawn.labels != 3
        images = sa.draw_images(control, sa.Latents(drawn.z[kept], drawn.labels[kept]))
        distances.append(sa.frechet_distance(plain, images, data.without(3).images))
    found = float(table.read_scoreboard(grid.table)[0]["frechet_after"])
    assert found == pytest.approx(distances[0], 1e-4)
    assert found != pytest.approx(distances[1], 1e-4)


@pytest.mark.parametrize("where", [30, -1])
def test_a_torn_last_line_is_done_again(small, where):
    """Cut in the middle, or so late that only the end of the line is missing."""
    grid = small(["label column"], [3, 5])
    grid.run()
    text = grid.table.read_text()
    last = text.rindex("label column")
    grid.table.write_text(text[: last + where] if where > 0 else text[:where])
    assert [r["class"] for r in table.read_scoreboard(grid.table)] == ["3"]
    grid.run()
    assert [r["class"] for r in table.read_scoreboard(grid.table)] == ["3", "5"]
    assert grid.table.read_text().count("\n") == 3


def test_an_older_table_keeps_its_rows_and_gets_the_new_columns(tmp_path):
    path = tmp_path / "old.csv"
    names = [c for c in cells.COLUMNS if c not in ("attack", "machine")]
    old = dict.fromkeys(names, "1") | {"method": "paper", "error": ""}
    path.write_text(",".join(names) + "\n" + ",".join(old.values()) + "\n")
    before = table.read_scoreboard(path)
    assert before == [dict.fromkeys(cells.COLUMNS, "") | old]
    table.append(path, {"method": "new", "attack": 0.123456789})
    assert table.read_scoreboard(path) == [
        *before,
        dict.fromkeys(cells.COLUMNS, "") | {"method": "new", "attack": "0.123457"},
    ]


def test_an_empty_table_gets_its_header(tmp_path):
    (tmp_path / "t.csv").touch()  # a run killed between making the file and writing to it
    table.append(tmp_path / "t.csv", {"method": "m", "class": 3})
    assert [r["class"] for r in table.read_scoreboard(tmp_path / "t.csv")] == ["3"]


def test_a_corrupt_checkpoint_fails_its_cells_and_no_others(small, tmp_path):
    grid = small(["label column"], [3], seeds=(1, 2))
    path = sa.checkpoint_path("vae_baseline", replace(SHORT, seed=1))
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    grid.run()
    rows = table.read_scoreboard(grid.table)
    assert [(r["seed"], path.name in r["error"]) for r in rows] == [("1", True), ("2", False)]
    path.unlink()
    grid.run()
    assert not any(r["error"] for r in table.read_scoreboard(grid.table))


def test_a_full_disk_stops_the_run_and_loses_no_row(small, monkeypatch):
    grid = small(["label column"], [3, 5])
    append = table.append

    def full(path, row):
        if row["class"] == "5":
            with path.open("a") as stream:
                stream.write("label column,5,1,mni")  # what still fitted
            raise OSError(28, "No space left on device")
        append(path, row)

    monkeypatch.setattr(scoreboard, "append", full)
    with pytest.raises(OSError, match="No space"):
        grid.run()
    monkeypatch.setattr(scoreboard, "append", append)
    assert [r["class"] for r in table.read_scoreboard(grid.table)] == ["3"]
    grid.run()
    assert [r["class"] for r in table.read_scoreboard(grid.table)] == ["3", "5"]


def test_the_plan_counts_and_estimates(small, capsys):
    grid = small(
        ["label column", "paper"], [3, 5], seeds=(1, 2), only={"paper": ((5,), (2,))},
        dear=("paper",),
    )  # fmt: skip
    assert [(c.method, c.label, c.base.seed) for c in grid.cells() if c.method == "paper"] == [
        ("paper", 5, 2)
    ]
    plan = grid.plan()
    assert plan.startswith("5 of 5 cells are missing in table.csv\n")
    assert "label column           4 cells, not timed yet\n" in plan
    assert "1 cells, not timed yet, with bound and attacks; classes (5,) of seeds (2,) only" in plan
    assert plan.endswith("5 cells left, of methods not timed yet")
    timed = {"method": "label column", "seed": "9", "cell_seconds": 120.0, "error": ""}
    table.append(grid.table, timed)
    assert "4 cells, 120 s each" in grid.plan()
    assert grid.plan(jobs=4).endswith("2 min left, and 1 cells not timed yet")


def test_unknown_method_and_class_are_named(small):
    with pytest.raises(ValueError, match="method 'magic' is not one of selective amnesia"):
        small(["magic"], [3])
    with pytest.raises(ValueError, match="class 10 is not a class"):
        small(["paper"], [10])


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
    judge = sa.JudgeConfig(dataset=other_data, epochs=1, batch_size=50)
    grid = sa.Scoreboard(
        ("label column", "selective amnesia"), (3,), (1,), replace(SHORT, dataset=other_data),
        QUICK, judge, LITTLE, table=tmp_path / "table.csv",
    )  # fmt: skip
    grid.run()
    rows = table.read_scoreboard(grid.table)
    assert [(r["dataset"], r["error"]) for r in rows] == [(other_data, "")] * 2
    assert all(r["attack"] for r in rows)
    for role in ("open", "plain", "guide"):  # trained for this data set
        assert sa.checkpoint_path(f"judge_{role}", judge).exists()
    name = {"fashion_mnist": "Dress", "kmnist": "tsu", "qmnist": "3"}[other_data]
    assert f"selective amnesia, class {name}, seed 1: " in capsys.readouterr().out
    assert f"selective amnesia ({other_data}, mlp)" in results.markdown(rows)


def rows_of(figures):
    """Rows of one class with these argmax, worst drop, attack and seconds."""
    made = []
    for method, (argmax, drop, attack, seconds) in figures.items():
        row = dict.fromkeys(cells.COLUMNS, "") | {"method": method, "class": "3", "seed": "1"}
        row |= {"dataset": "mnist", "arch": "mlp", "attack": str(attack), "seconds": str(seconds)}
        for prior in ("class", "standard"):
            row[f"argmax_open_{prior}"] = str(argmax)
        for role in ("open", "plain"):
            row[f"worst_drop_{role}_class"] = str(drop)
        made.append(row)
    return made


def test_dominance_counts_only_what_both_have():
    rows = rows_of(
        {
            "selective amnesia": (0.0, 0.2, 0.1, 4.0),
            "paper": (0.0, 0.2, 0.1, 400.0),
            "label column": (0.1, 0.0, 0.9, 0.0),
            "retraining": ("nan", 0.5, 0.7, 80.0),
        }
    )
    found = results.summarise(rows)
    assert found["selective amnesia"]["attack - control"] == {("3", "1"): pytest.approx(-0.6)}
    assert results.dominance(found) == {
        "selective amnesia": ["paper"],  # of retraining neither argmax nor an attack was measured
        "paper": [],
        "label column": [],
        "retraining": [],
    }


def test_resisting_more_than_the_control_is_no_merit():
    rows = rows_of(
        {
            "selective amnesia": (0.0, 0.2, 0.1, 4.0),
            "without EWC": (0.0, 0.2, 0.3, 3.0),
            "label column": (0.0, 0.2, 0.7, 2.0),
            "retraining": ("nan", 0.5, 0.6, 80.0),
        }
    )
    above = results.dominance(results.summarise(rows))
    assert above["without EWC"] == ["selective amnesia"]
    assert above["label column"] == above["selective amnesia"] == []


def test_a_control_is_compared_with_the_other_seeds():
    rows = [
        rows_of({"retraining": ("nan", 0.5, share, 80.0)})[0] | {"seed": str(seed)}
        for seed, share in enumerate((0.5, 0.6, 0.1))
    ]
    found = results.summarise(rows)["retraining"]["attack - control"]
    assert list(found.values()) == pytest.approx([0.15, 0.3, -0.45])


def test_means_are_compared_over_the_cells_of_both():
    easy, hard, missing = ("0", "1"), ("3", "1"), ("4", "1")
    few, many = {hard: 5.0, missing: math.nan}, {easy: 1.0, hard: 6.0, missing: 0.0}
    assert results.common_means(few, many) == (5, 6)  # over all cells many would be better
    assert math.isnan(results.common_means(few, {easy: 1.0})[0])


def test_the_audit_fills_in_where_a_cell_was_not_attacked():
    rows = rows_of({"paper": (0.0, 0.2, "", 4.0), "label column": (0.1, 0.0, "", 0.0)})
    numbers = dict.fromkeys(("baseline", "model", "low", "high", "control"), 0.0)
    finding = Finding(
        attack="guided both", n=128, controls=3, excess=-0.4, excess_low=-0.5, excess_high=-0.3,
        verdict="", **numbers,
    )  # fmt: skip
    found = results.summarise(rows, {(3, "paper", "guided both"): finding})
    assert found["paper"]["attack - control"] == {("3", "1"): -0.4}
    assert math.isnan(found["label column"]["attack - control"]["3", "1"])


def test_interval_covers_the_mean_and_leaves_out_what_is_missing():
    mean, low, high = results.interval([1.0, 2.0, 3.0, math.nan])
    assert low < mean == 2 < high
    assert all(map(math.isnan, results.interval([math.nan])))


def test_results_page_is_in_step_with_the_table():
    page = (CHECKOUT / "RESULTS.md").read_text()
    assert page == results.HEAD + results.markdown(table.read_scoreboard(), sa.read_audit())
