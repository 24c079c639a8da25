"""The grid of audits: resumes, forgets nothing, and its table is the report of each cell."""

import csv
import json

import pytest

import sahelpers as sa
from sahelpers import audit_grid
from sahelpers.audit import FOOLED, KEPT, compare_all
from sahelpers.audit_grid import Cell, read, read_audit, write_table


def values(share, n=8):
    hits = round(share * n)
    checks = {KEPT: [1] * n, FOOLED: [0] * n}
    found = {"guided both": [1] * hits + [0] * (n - hits), "relearn 1": [share, share - 0.01]}
    return found | checks


def key(digit, model, seed):
    return Cell(digit, model, seed).key


def cells():
    """Two seeds of each model of digit 3; digit 5 has no control yet."""
    made = {}
    for seed in (42, 43):
        for model, share in (("baseline", 1.0), ("selective amnesia", 0.25), ("control", 0.5)):
            made[key(3, model, seed)] = values(share)
    made[key(5, "selective amnesia", 42)] = values(0.5)
    return made


def test_lines_survive_a_file(tmp_path):
    path = tmp_path / "values.jsonl"
    assert read(path) == {}
    lines = [json.dumps([*cell, v]) for cell, v in cells().items()]
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
    report = compare_all(3, *([values(share)] * 2 for share in (0.25, 1.0, 0.5)))
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
    report = compare_all(3, *([values(share)] * 2 for share in (0.25, 1.0, 0.5)))
    for finding in report.findings:
        back = table[3, "selective amnesia", finding.attack]
        for name, value in vars(finding).items():
            assert getattr(back, name) == (
                pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            )


def test_a_line_of_another_configuration_does_not_count(tmp_path):
    old = {(3, "selective amnesia", seed, "0ld"): values(1.0) for seed in (42, 43, 44)}
    write_table(old | cells(), tmp_path / "audit.csv")
    finding = read_audit(tmp_path / "audit.csv")[3, "selective amnesia", "guided both"]
    assert finding.model == 0.25


def test_without_a_control_the_table_is_empty_and_readable(tmp_path):
    write_table({key(3, "baseline", 42): values(1.0)}, tmp_path / "audit.csv")
    assert read_audit(tmp_path / "audit.csv") == {}


@pytest.mark.parametrize("text", ["digit,method\n3,ours\n", "digit,n\n\x00,1\n", "digit\nthree\n"])
def test_a_damaged_table_is_named(tmp_path, text):
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(ValueError, match=r"audit.csv is damaged .*sahelpers audit"):
        read_audit(tmp_path / "audit.csv")


def test_run_attacks_every_model_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch, mnist):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    short = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
    monkeypatch.setattr(audit_grid, "BaselineConfig", lambda: short)
    monkeypatch.setattr(audit_grid, "materials", lambda *a: (mnist.take(300), None, None))
    monkeypatch.setattr(audit_grid, "get_judges", lambda *a: {"guide": None})
    attacked = []

    def attack_all(model, baseline, digit, judges, guide, real, config):
        # a model that knows the class has its Gaussian
        attacked.append(bool(model.prior_mean[digit].any()))
        return values(0.5)

    monkeypatch.setattr(audit_grid, "attack_all", attack_all)
    audit_grid.run([3], ["baseline", "control"], [5, 6], folder=tmp_path)
    assert attacked == [True, True, False, False]
    audit_grid.run([3], ["baseline", "label column", "control"], [5], folder=tmp_path)
    assert attacked[4:] == [False]
    found = read(tmp_path / "audit_values.jsonl")
    assert [key[1:3] for key in found][-1] == ("label column", 5)
    assert {key[1] for key in read_audit(tmp_path / "audit.csv")} == {"baseline", "label column"}


def test_one_attack_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def attack(cell):
        if cell.seed == 43 and not healed:
            raise OSError("disk full")
        return values({"baseline": 1.0, "control": 0.5}.get(cell.model, 0.25))

    healed = False
    monkeypatch.setattr(audit_grid, "attack", attack)
    models = ["baseline", "control", "label column"]
    with pytest.raises(RuntimeError, match="3 of 6 attacks failed, named above"):
        audit_grid.run([3], models, [42, 43], folder=tmp_path)
    assert read_audit(tmp_path / "audit.csv")[3, "label column", "guided both"].controls == 1
    healed = True
    audit_grid.run([3], models, [42, 43], folder=tmp_path)
    assert read_audit(tmp_path / "audit.csv")[3, "label column", "guided both"].controls == 2
    with pytest.raises(ValueError, match="class 12"):
        audit_grid.run([3, 12], models, [42], folder=tmp_path)


def test_the_seed_of_a_cell_is_the_baselines_and_the_forgettings():
    cell = Cell(3, "selective amnesia", 43)
    assert (cell.base.seed, cell.amnesia.seed) == (43, 43)
    assert cell.key != Cell(3, "selective amnesia", 42).key
