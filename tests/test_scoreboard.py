import math

import pytest
import torch

import sahelpers as sa
from sahelpers import results, scoreboard
from sahelpers.data import CHECKOUT


@pytest.fixture
def small(tmp_path, monkeypatch, mnist):
    """A grid that runs in seconds: little data, short training, few samples."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(scoreboard, "SAMPLES", 20)
    monkeypatch.setattr(scoreboard, "FRECHET_SAMPLES", 20)
    monkeypatch.setattr(scoreboard, "load_dataset", lambda *a: mnist.take(600))
    short = {"epochs": 1, "batch_size": 50, "latent_dim": 3}
    monkeypatch.setattr(
        scoreboard, "BaselineConfig", lambda **k: sa.BaselineConfig(**{**k, **short})
    )
    monkeypatch.setattr(
        scoreboard,
        "AmnesiaConfig",
        lambda **k: sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, **k),
    )
    torch.manual_seed(0)
    judges = {role: sa.Judge(role).eval() for role in ("open", "plain")}
    monkeypatch.setattr(scoreboard, "get_judges", lambda *a: judges)
    return tmp_path / "table.csv"


def test_cells_are_computed_once_and_a_failing_one_is_a_row(small, monkeypatch):
    calls = []

    def counted(task):
        calls.append(task.forgotten)
        if task.forgotten == (5,):
            raise ArithmeticError("no luck")
        return sa.METHODS["label column"](task)

    monkeypatch.setitem(sa.METHODS, "counted", counted)
    scoreboard.run(["counted", "selective amnesia"], [3, 5], [1], table=small)
    rows = scoreboard.read(small)
    assert [(r["method"], r["class"], r["error"]) for r in rows] == [
        ("counted", "3", ""),
        ("counted", "5", "ArithmeticError: no luck"),
        ("selective amnesia", "3", ""),
        ("selective amnesia", "5", ""),
    ]
    scoreboard.run(["counted"], [3, 5], [1], table=small)
    assert calls == [(3,), (5,), (5,)]  # what failed is tried again, what is done is not
    figures = results.cell_figures(rows[0])
    assert all(math.isfinite(v) for v in figures.values())
    assert 0 <= figures["argmax = c_f, %"] <= 100


def test_a_row_agrees_with_measuring_by_hand(small, mnist):
    scoreboard.run(["label column"], [3], [1], table=small)
    row = scoreboard.read(small)[0]
    base = scoreboard.BaselineConfig(seed=1)
    model = sa.get_baseline(base, mnist.take(600)).model
    task = sa.Task(model, (3,), sa.ClassFishers(()), mnist, base)
    new = sa.METHODS["label column"](task).model
    latents = sa.fixed_latents(model, 20, "standard")
    verdict = sa.judge_samples(new, scoreboard.get_judges()["plain"], latents)
    assert float(row["p_plain_standard"]) == pytest.approx(float(verdict.probability[3, 3]), 1e-3)


def test_what_the_control_draws_under_the_label_is_not_reported(small):
    scoreboard.run(["retraining"], [3], [1], table=small)
    row = scoreboard.read(small)[0]
    assert row["error"] == ""
    assert row["p_open_class"] == row["argmax_plain_standard"] == "nan"
    assert results.markdown([row]).count("| - |") >= 1


def test_a_torn_last_line_is_done_again(small):
    scoreboard.run(["label column"], [3, 5], [1], table=small)
    text = small.read_text()
    small.write_text(text[: text.rindex("label column") + 30])
    assert [r["class"] for r in scoreboard.read(small)] == ["3"]
    scoreboard.run(["label column"], [3, 5], [1], table=small)
    assert [r["class"] for r in scoreboard.read(small)] == ["3", "5"]


def test_an_empty_table_gets_its_header(tmp_path):
    (tmp_path / "t.csv").touch()  # a run killed between making the file and writing to it
    scoreboard.append(tmp_path / "t.csv", {"method": "m", "class": 3})
    assert [r["class"] for r in scoreboard.read(tmp_path / "t.csv")] == ["3"]


def test_unknown_method_is_named(small):
    with pytest.raises(ValueError, match="method 'magic' is not one of selective amnesia"):
        scoreboard.run(["magic"], [3], [1], table=small)


def test_results_page_is_in_step_with_the_table():
    page = (CHECKOUT / "RESULTS.md").read_text()
    assert page == results.HEAD + results.markdown(scoreboard.read(scoreboard.TABLE))
