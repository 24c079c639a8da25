"""The tables from the journal: nothing vanishes, and the audit's is the report of each digit."""

import csv

import pytest

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.study import Grid, grid, read_audit, read_scoreboard, report
from sahelpers.study.report import write_table
from sahelpers.study.statistics import FOOLED, KEPT, compare_all


def values(share, n=8):
    hits = round(share * n)
    checks = {KEPT: [1] * n, FOOLED: [0] * n}
    found = {"guided both": [1] * hits + [0] * (n - hits), "relearn 1": [share, share - 0.01]}
    return found | checks


def record(digit, method, seed, found, part="audit", **changes):
    (run,) = Grid(part, (method,), (digit,), (seed,)).runs()
    return run.key | {"values": found} | changes


def lines():
    """Two seeds of each model of digit 3; digit 5 has no control yet."""
    made = []
    for seed in (42, 43):
        for method, share in (("baseline", 1.0), ("selective amnesia", 0.25), ("retraining", 0.5)):
            made.append(record(3, method, seed, values(share)))
    return [*made, record(5, "selective amnesia", 42, values(0.5))]


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_the_table_is_the_report_of_each_digit_and_model(tmp_path):
    write_table("audit", lines(), tmp_path)
    rows = rows_of(tmp_path / "audit.csv")
    assert {(r["digit"], r["method"]) for r in rows} == {
        ("3", "baseline"),
        ("3", "selective amnesia"),
    }
    found = compare_all(3, *([values(share)] * 2 for share in (0.25, 1.0, 0.5)))
    mine = [r for r in rows if r["method"] == "selective amnesia"]
    for row, finding in zip(mine, found.findings, strict=True):
        assert row["attack"] == finding.attack
        assert row["verdict"] == finding.verdict
        assert float(row["excess_high"]) == pytest.approx(finding.excess_high, abs=1e-4)
        assert (row["seeds"], row["controls"]) == ("2", "2")
        assert (row["dataset"], row["arch"]) == ("mnist", "mlp")


def test_the_table_survives_a_file(tmp_path):
    assert read_audit(tmp_path) == {}
    write_table("audit", lines(), tmp_path)
    table = read_audit(tmp_path)
    found = compare_all(3, *([values(share)] * 2 for share in (0.25, 1.0, 0.5)))
    for finding in found.findings:
        back = table[3, "selective amnesia", finding.attack]
        for name, value in vars(finding).items():
            assert getattr(back, name) == (
                pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            )


def test_a_line_of_another_recipe_does_not_count_and_does_not_vanish(tmp_path):
    old = [
        record(3, method, seed, values(1.0), fingerprint="0ld")
        for method in ("selective amnesia", "baseline", "retraining")
        for seed in (42, 43, 44)
    ]
    write_table("audit", old + lines(), tmp_path)
    finding = read_audit(tmp_path)[3, "selective amnesia", "guided both"]
    assert finding.model == 0.25
    kept = [r for r in rows_of(tmp_path / "audit.csv") if r["fingerprint"] == "0ld"]
    assert {
        (r["method"], r["model"], r["seeds"]) for r in kept if r["attack"] == "guided both"
    } == {
        ("selective amnesia", "1.0", "3"),
        ("baseline", "1.0", "3"),
    }


def test_the_scoreboard_keeps_rows_of_other_recipes_before_todays(tmp_path):
    new = record(3, "paper", 42, {"p_open_class": 0.123456789, "steps": 7}, "scoreboard")
    other = record(3, "paper", 42, {"p_open_class": 0.5}, "scoreboard", fingerprint="0ld", error="")
    write_table("scoreboard", [new, other], tmp_path)
    rows = read_scoreboard(tmp_path)
    assert [(r["fingerprint"], r["p_open_class"], r["steps"]) for r in rows] == [
        ("0ld", "0.5", ""),  # a measure that a line lacks is empty
        (new["fingerprint"], "0.123457", "7"),
    ]
    assert list(rows[0]) == report.COLUMNS


def test_without_a_control_the_table_is_empty_and_readable(tmp_path):
    write_table("audit", [record(3, "baseline", 42, values(1.0))], tmp_path)
    assert read_audit(tmp_path) == {}


@pytest.mark.parametrize("text", ["digit,method\n3,ours\n", "digit,n\n\x00,1\n", "digit\nthree\n"])
def test_a_damaged_table_is_named(tmp_path, text):
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(ValueError, match=r"audit.csv is damaged .*sahelpers audit"):
        read_audit(tmp_path)


@pytest.mark.parametrize("cut", [40, -60])
def test_a_damaged_scoreboard_is_named(tmp_path, cut):
    write_table("scoreboard", [record(3, "paper", 42, {"steps": 7}, "scoreboard")], tmp_path)
    path = tmp_path / "scoreboard.csv"
    path.write_text(path.read_text()[:cut])
    if cut < 0:
        with pytest.raises(ValueError, match=r"scoreboard.csv is damaged .*sahelpers scoreboard"):
            read_scoreboard(tmp_path)
    else:
        assert read_scoreboard(tmp_path) == []  # not a single row


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_without_files_there_is_nothing_to_read(tmp_path, folder):
    (tmp_path / "file").touch()
    assert read_scoreboard(tmp_path / folder) == []
    assert read_audit(tmp_path / folder) == {}


def test_the_tables_are_in_step_with_the_journal_and_the_page_with_the_tables(tmp_path):
    records = grid.read_journal(report.RESULTS / "journal.jsonl")
    for part in ("scoreboard", "audit"):
        write_table(part, records, tmp_path)
        made, kept = (folder / f"{part}.csv" for folder in (tmp_path, report.RESULTS))
        assert made.read_text() == kept.read_text()
    page = (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    assert page == report.markdown(read_scoreboard(), read_audit())


def test_the_repository_lacks_no_run_of_the_scoreboard():
    whole = Grid("scoreboard", tuple(sa.study.METHODS), tuple(range(10)), only=grid.ONLY)
    assert len(whole.runs()) == 366
    assert whole.missing() == []
