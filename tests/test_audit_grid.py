"""The grid of audits: resumes, forgets nothing, and its table is the report of each cell."""

import csv
import json

import pytest

import sahelpers as sa
from sahelpers import audit_grid
from sahelpers.audit import compare_all
from sahelpers.audit_grid import Cell, read, read_audit, write_table


def values(share, n=8):
    hits = round(share * n)
    return {"guided both": [1.0] * hits + [0.0] * (n - hits), "relearn 1": [share, share - 0.01]}


def cells():
    """Two seeds of each model of digit 3; digit 5 has no control yet."""
    made = {}
    for seed in (42, 43):
        for model, share in (("baseline", 1.0), ("selective amnesia", 0.25), ("control", 0.5)):
            made[Cell(3, model, seed, "now")] = values(share)
    made[Cell(5, "selective amnesia", 42, "now")] = values(0.5)
    return made


def test_lines_survive_a_file(tmp_path):
    path = tmp_path / "values.jsonl"
    assert read(path) == {}
    lines = [json.dumps(vars(cell) | {"values": v}) for cell, v in cells().items()]
    torn = lines[0][: len(lines[0]) // 2]  # a run was stopped in the middle of this one
    path.write_text("\n" + torn + "\n" + "\n".join(lines))
    assert read(path) == cells()


def test_the_table_is_the_report_of_each_digit_and_model(tmp_path):
    found = cells()
    write_table(found, tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(r["digit"], r["method"]) for r in rows} == {
        ("3", "baseline"),
        ("3", "selective amnesia"),
    }
    report = compare_all(3, [values(0.25)] * 2, values(1.0), [values(0.5)] * 2)
    mine = [r for r in rows if r["method"] == "selective amnesia"]
    for row, finding in zip(mine, report.findings, strict=True):
        assert row["attack"] == finding.attack
        assert row["verdict"] == finding.verdict
        assert float(row["excess_high"]) == pytest.approx(finding.excess_high, abs=1e-4)
        assert (row["seeds"], row["controls"]) == ("2", "2")


def test_the_table_survives_a_file(tmp_path):
    assert read_audit(tmp_path / "audit.csv") == {}
    write_table(cells(), tmp_path / "audit.csv")
    table = read_audit(tmp_path / "audit.csv")
    report = compare_all(3, [values(0.25)] * 2, values(1.0), [values(0.5)] * 2)
    for finding in report.findings:
        back = table[3, "selective amnesia", finding.attack]
        for name, value in vars(finding).items():
            assert getattr(back, name) == (
                pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            )


def test_a_later_line_of_the_same_cell_wins(tmp_path):
    found = cells() | {
        Cell(3, "selective amnesia", seed, "newer"): values(1.0) for seed in (42, 43)
    }
    write_table(found, tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if r["method"] == "selective amnesia"]
    assert [r["seeds"] for r in rows] == ["2", "2"]
    assert float(rows[0]["excess"]) == pytest.approx(0.5)


def test_run_attacks_every_model_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch, mnist):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    short = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
    monkeypatch.setattr(audit_grid, "BaselineConfig", lambda: short)
    monkeypatch.setattr(audit_grid, "load_dataset", lambda **k: mnist.take(300))
    monkeypatch.setattr(audit_grid, "get_judges", lambda *a: {"guide": None})
    attacked = []

    def attack(model, baseline, digit, *rest):
        attacked.append(model.prior_mean[digit].any())  # a model that knows it has its Gaussian
        return values(0.5)

    monkeypatch.setattr(audit_grid, "attack_all", attack)
    audit_grid.run([3], ["baseline", "control"], [5], tmp_path)
    assert attacked == [True, False]
    audit_grid.run([3], ["baseline", "label column", "control"], [5], tmp_path)
    assert attacked == [True, False, False]
    found = read(tmp_path / "audit_values.jsonl")
    assert [(c.digit, c.model, c.seed) for c in found] == [
        (3, "baseline", 5),
        (3, "control", 5),
        (3, "label column", 5),
    ]
    assert {key[1] for key in read_audit(tmp_path / "audit.csv")} == {"baseline", "label column"}
