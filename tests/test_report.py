"""The tables from the journal: nothing vanishes, and the audit's is the report of each digit."""

import csv
import math
from dataclasses import replace

import pytest

import results
import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.study import (
    Grid,
    excess_intervals,
    grid,
    read_audit,
    read_scoreboard,
    report,
)
from sahelpers.study.battery import Effort
from sahelpers.study.methods import FIXED, METHODS, VARIANTS, recipe
from sahelpers.study.report import audited, write_table
from sahelpers.study.statistics import BESIDE, FOOLED, KEPT, NAMED, NATS, compare, compare_all

OURS, CONTROL, HIDDEN = "selective amnesia", "retraining", "label column"
SHARES = {OURS: 0.25, HIDDEN: 1.0, CONTROL: 0.5}


def values(share, n=8):
    hits = round(share * n)
    checks = {KEPT: [1] * n, FOOLED: [0] * n}
    found = {"guided both": [1] * hits + [0] * (n - hits), "relearn 1": [share, share - 0.01]}
    return found | checks


def record(digit, method, seed, found, part="audit", **changes):
    (run,) = Grid(part, (method,), (digit,), (seed,)).runs()
    return run.key | {"values": found} | changes


def lines(digits=(3,)):
    """Two seeds of ours, one hidden model and three controls; digit 5 has no control yet."""
    made = [record(5, OURS, 42, values(0.5)), record(5, HIDDEN, 42, values(0.5))]
    for digit in digits:
        for method, seeds in ((OURS, (42, 43)), (HIDDEN, (42,)), (CONTROL, (42, 43, 44))):
            made += [record(digit, method, seed, values(SHARES[method])) for seed in seeds]
    return made


def groups(models=SHARES[OURS]):
    """What `lines` holds of one digit."""
    return [values(models)] * 2, [values(SHARES[HIDDEN])], [values(SHARES[CONTROL])] * 3


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_the_table_is_the_report_of_each_digit_and_model(tmp_path):
    write_table("audit", lines(), tmp_path)
    rows = rows_of(tmp_path / "audit.csv")
    assert {(r["digit"], r["method"]) for r in rows} == {("3", HIDDEN), ("3", OURS)}
    mine = [r for r in rows if r["method"] == OURS]
    for row, finding in zip(mine, compare_all({3: groups()})[3].findings, strict=True):
        assert row["attack"] == finding.attack
        assert row["verdict"] == finding.verdict
        assert float(row["high"]) == pytest.approx(finding.high, abs=1e-4)
        assert (row["models"], row["controls"]) == ("2", "3")
        assert (row["dataset"], row["arch"]) == ("mnist", "mlp")


def test_the_table_survives_a_file(tmp_path):
    assert read_audit(tmp_path) == {}
    more = {NATS[0]: [100.0, 101.5], BESIDE[0]: [0.25, 0.5]}
    write_table("audit", [r | {"values": r["values"] | more} for r in lines()], tmp_path)
    table = read_audit(tmp_path)
    (found,) = compare_all({3: tuple([v | more for v in g] for g in groups())}).values()
    assert any(f.resists for f in found.findings)
    assert any(math.isnan(f.margin) for f in found.findings)
    for finding in found.findings:
        back = table[3, OURS, finding.attack]
        for name, value in vars(finding).items():
            assert type(getattr(back, name)) is type(value)
            if isinstance(value, float):
                value = pytest.approx(value, abs=1e-4, nan_ok=True)
            assert getattr(back, name) == value


def test_spreads_are_pooled_over_the_digits_of_the_journal(tmp_path):
    wild = [record(4, CONTROL, 42 + k, values((0.125, 0.5, 0.875)[k])) for k in range(3)]
    calm = [r for r in lines((3, 4)) if (r["class"], r["method"]) != (4, CONTROL)]
    write_table("audit", lines((3, 4)), tmp_path)
    alike = read_audit(tmp_path)[3, OURS, "guided both"]
    write_table("audit", calm + wild, tmp_path)
    pooled = read_audit(tmp_path)[3, OURS, "guided both"]
    assert pooled.excess == alike.excess
    assert pooled.high - pooled.low > 5 * (alike.high - alike.low)


def test_a_line_of_another_recipe_does_not_count_and_does_not_vanish(tmp_path):
    old = [r | {"values": values(1.0), "fingerprint": "0ld"} for r in lines()]
    old = [r | {"fingerprint": "0ld-way"} if r["method"] != CONTROL else r for r in old]
    write_table("audit", old + lines(), tmp_path)
    assert read_audit(tmp_path)[3, OURS, "guided both"].model == 0.25
    kept = [r for r in rows_of(tmp_path / "audit.csv") if r["fingerprint"] == "0ld-way"]
    assert {
        (r["method"], r["model"], r["models"]) for r in kept if r["attack"] == "guided both"
    } == {
        (OURS, "1.0", "2"),
        (HIDDEN, "1.0", "1"),
    }


def test_hidden_models_count_however_others_forget_and_the_newest_of_a_seed(tmp_path):
    """Another default of `forget` has another second half; what is hidden does not depend on it."""
    shared = lines()[0]["fingerprint"].partition("-")[0]
    before = [
        r | {"fingerprint": f"{shared}-before", "values": values(0.75)}
        for r in lines()
        if r["method"] == HIDDEN
    ]
    without = [r for r in lines() if r["method"] != HIDDEN]
    for records, hidden in ((without + before, 0.75), (before + lines(), 1.0)):
        write_table("audit", records, tmp_path)
        found = read_audit(tmp_path)[3, OURS, "guided both"]
        assert (found.hidden, found.control) == (hidden, 0.5)


def test_both_parts_are_in_one_table_each_with_its_own_controls(tmp_path):
    claims = [
        record(r["class"], r["method"], r["seed"], {NATS[0]: [100.0]}, "claim") for r in lines()
    ]
    for part in ("audit", "claim"):
        write_table(part, [*claims, *lines()], tmp_path)
        attacks = {a for digit, method, a in read_audit(tmp_path) if (digit, method) == (3, OURS)}
        assert attacks == {*values(1.0), NATS[0]}
    keys = [key[:2] for key in audited([*claims, *lines()])]
    assert sorted(keys) == sorted((p, m) for p in ("audit", "claim") for m in (OURS, HIDDEN))


@pytest.mark.parametrize("short", [(HIDDEN, 42), (CONTROL, 44)])
def test_without_a_hidden_model_or_a_third_control_there_is_no_row(tmp_path, short):
    rest = [r for r in lines() if (r["method"], r["seed"]) != short]
    write_table("audit", rest, tmp_path)
    assert read_audit(tmp_path) == {}


def test_an_attack_that_some_have_not_faced_yet_has_no_row(tmp_path):
    late = [record(3, OURS, 43, values(0.25) | {"new": [0.5]})]
    write_table(
        "audit", [r for r in lines() if (r["method"], r["seed"]) != (OURS, 43)] + late, tmp_path
    )
    assert {a for _, method, a in read_audit(tmp_path) if method == OURS} == set(values(0.25))


def finding(attack="a", middle=0.5):
    controls = (0.29, 0.3, 0.31)
    return compare(attack, [middle, middle + 0.01], [0.9, 0.92], controls)


def test_the_picture_shows_ends_margin_and_what_is_known():
    findings = {"remains": finding(), "erased": finding(middle=0.3), "resists": finding(middle=0)}
    ax = excess_intervals(findings)
    ends, mean, known, _ = ax.lines[:4]
    first = findings["remains"]
    assert list(ends.get_xdata()) == [first.low, first.high]
    assert list(mean.get_xdata()) == [first.excess]
    assert list(known.get_xdata()) == [pytest.approx(first.hidden - first.control)]
    assert [bar.get_width() for bar in ax.patches] == [f.margin for f in findings.values()]
    assert len({ax.lines[k].get_color() for k in (0, 4, 8)}) == 1
    assert [ax.lines[k].get_marker() for k in (1, 5, 9)] == ["s", "o", "o"]
    assert ax.get_xlim() == (-1.05, 1.05)


def test_the_picture_of_costs_has_limits_of_its_own():
    cost = compare(NATS[0], [104.0, 106.0], [95.0, 97.0], [110.0, 111.0, 112.0])
    ax = excess_intervals({"3": cost})
    assert ax.get_xlim()[1] > 15
    assert list(ax.lines[2].get_xdata()) == [pytest.approx(15)]  # the hidden ones' memory
    assert "nats" in ax.get_xlabel()


def test_the_page_states_the_bound_of_a_zero():
    page = results.markdown([])
    assert "A share of zero is 0 of 2,000 samples of each model: at most 0.15 %" in " ".join(
        page.split()
    )


def test_the_current_recipe_of_the_convolutional_network_is_its_preset():
    base, judge = report.BASELINES["conv"], sa.JudgeConfig()
    for config, expected in ((sa.AmnesiaConfig.conv(), True), (sa.AmnesiaConfig(), False)):
        mark = recipe(OURS, base, config, judge, Effort())
        assert report.current({"method": OURS, "arch": "conv", "fingerprint": mark}) == expected


def test_methods_that_forget_in_one_way_keep_their_recipe_when_ours_changes():
    base, judge = report.BASELINES["conv"], sa.JudgeConfig()
    configs = sa.AmnesiaConfig(), sa.AmnesiaConfig.conv()
    for method in METHODS:
        alike = len({recipe(method, base, config, judge, Effort()) for config in configs}) == 1
        assert alike == (method in (*FIXED, CONTROL)), method
    assert set(FIXED) < set(METHODS)
    assert not {OURS, *VARIANTS, "saliency mask", "projection"} & set(FIXED)  # they read it


def test_other_data_and_networks_have_verdicts_of_their_own(tmp_path):
    costs = dict(zip((OURS, HIDDEN, CONTROL), (60.0, 10.0, 40.0), strict=True))
    areas = dict(zip((OURS, HIDDEN, CONTROL), (0.1, 0.9, 0.1), strict=True))
    fashion = []
    for line in lines():
        of = {a: [(costs if a in NATS else areas)[line["method"]]] for a in NAMED}
        fashion.append(record(line["class"], line["method"], line["seed"], of, "claim"))
    write_table("claim", [r | {"dataset": "fashion_mnist"} for r in fashion], tmp_path)
    assert read_audit(tmp_path) == {}
    found = read_audit(tmp_path, "fashion_mnist")
    assert len(found) == 2 * len(NAMED)
    page = results.markdown([], {}, {}, {("fashion_mnist", "mlp"): found, ("kmnist", "mlp"): {}})
    assert "**fashion_mnist, mlp**" in page
    assert "kmnist" not in page
    assert f"| selective amnesia |{' erased 3 |' * len(NAMED)}\n" in page
    assert f"| label column |{' memory remains 3 |' * len(NAMED)}\n" in page


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
    assert page == results.page(records)


def test_every_digit_and_seed_has_faced_the_named_attacks():
    controls = grid.CONTROL_SEEDS
    whole = Grid("claim", grid.CLAIMED, tuple(range(10)), only=grid.ONLY, controls=controls)
    assert len(whole.runs()) == 10 * (3 + 3 + 4)
    assert whole.missing() == []


def test_what_the_scoreboard_lacks_are_the_parts_of_todays_default():
    """Whose outputs are there, without the attacks; other methods, whose models do not depend on
    it, are complete under an earlier one."""
    whole = Grid("scoreboard", tuple(sa.study.METHODS), tuple(range(10)), only=grid.ONLY)
    parts = {"selective amnesia", "without attacker", "without EWC", "without replay"}
    there = {
        (r["method"], r["class"], r["seed"]) for r in report.read_scoreboard() if not r["error"]
    }
    missing = [
        r for r in whole.missing() if (r.method, str(r.forget_class), str(r.seed)) not in there
    ]
    assert {run.method for run in missing} <= parts
    assert replace(whole, methods=("selective amnesia",), expensive=()).missing() == []
