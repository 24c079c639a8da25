"""The tables and the page from the journal: what counts, and that those committed are in step."""

import json
import math
from collections import Counter
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

import sahelpers as sa
from sahelpers.attacks.verdicts import (
    CLAIM_ATTACKS,
    COST_ATTACKS,
    IN_NATS,
    WITHOUT_VERDICT,
    compare_all,
)
from sahelpers.config import CHECKOUT
from study import grid, journal, measures, results_page, tables
from study.grid import RESULTS, Grid
from study.methods import HIDDEN, METHODS, OURS, PAPER, RETRAINED

SHARES = {OURS: 0.25, HIDDEN: 0.9, RETRAINED: 0.5, PAPER: 0.8}
NUMBERS = {OURS: 118.0, HIDDEN: 92.0, RETRAINED: 110.0, PAPER: 95.0}
PLACE = ("mnist", "mlp")


def values(method, share=None, shift=0.0):
    """What the claim's attacks find on one model."""
    found = {}
    for name in (*CLAIM_ATTACKS, *WITHOUT_VERDICT):
        number = NUMBERS[method] if name in IN_NATS else SHARES[method]
        number = share if share is not None and name == CLAIM_ATTACKS[0] else number
        found[name] = [number + shift, number + shift / 2]
    return found


def record(digit, method, seed, found=None, part="claim", **changes):
    (run,) = Grid(part, (method,), (digit,), (seed,)).runs()
    found = values(method, shift=seed / 10_000) if found is None else found
    return run.key | {"values": found} | changes


def lines(digits=(3,)):
    """Two seeds of ours, one hidden model and three retrained; digit 5 has none retrained yet."""
    made = [record(5, OURS, 42), record(5, HIDDEN, 42)]
    for digit in digits:
        for method, seeds in ((OURS, (42, 43)), (HIDDEN, (42,)), (RETRAINED, (42, 43, 44))):
            made += [record(digit, method, seed) for seed in seeds]
    return made


def written(records, folder):
    """What both files hold, read as anybody would."""
    tables.write(records, folder)
    both = ((folder / f"{name}.json").read_text() for name in ("scoreboard", "audit"))
    return tuple(json.loads(text, parse_constant=refused) for text in both)


def refused(word):
    raise AssertionError(f"{word} is no JSON")


# ---- the audit


def test_the_audit_is_the_report_of_each_method_and_digit():
    records = lines((3, 4))
    found = tables.audit(records)
    assert set(found) == {(PLACE, OURS), (PLACE, HIDDEN)}
    groups = {
        digit: tuple(
            [r["values"] for r in records if (r["class"], r["method"]) == (digit, method)]
            for method in (OURS, HIDDEN, RETRAINED)
        )
        for digit in (3, 4)
    }
    assert [len(group) for group in groups[3]] == [2, 1, 3]
    expected = {digit: report.by_attack for digit, report in compare_all(groups).items()}
    assert repr(found[PLACE, OURS]) == repr(expected)  # nan is not equal to itself
    assert 5 not in found[PLACE, OURS]  # no model retrained without it yet


def test_spreads_are_pooled_over_the_digits_of_the_journal():
    wild = [
        record(4, RETRAINED, 42 + k, values(RETRAINED, share))
        for k, share in enumerate((0.125, 0.5, 0.875))
    ]
    calm = [r for r in lines((3, 4)) if (r["class"], r["method"]) != (4, RETRAINED)]
    alike, pooled = (
        tables.audit(records)[PLACE, OURS][3][CLAIM_ATTACKS[0]]
        for records in (lines((3, 4)), calm + wild)
    )
    assert pooled.excess == alike.excess
    assert pooled.high - pooled.low > 5 * (alike.high - alike.low)


@pytest.mark.parametrize("entry", ["shared", "own", "code"])
def test_a_line_of_another_recipe_does_not_count(tmp_path, entry):
    old = [r | {"values": values(HIDDEN), entry: "0ldway"} for r in lines()]
    for records in (old + lines(), lines() + old):
        assert repr(tables.audit(records)) == repr(tables.audit(lines()))
        _, audit = written(records, tmp_path)
        assert len(audit["models"]) == len(lines())
    assert tables.audit(old) == {}


@pytest.mark.parametrize("short", [(HIDDEN, 42), (RETRAINED, 44)])
def test_without_a_hidden_model_or_a_third_retrained_one_there_is_no_finding(short):
    rest = [r for r in lines() if (r["method"], r["seed"]) != short]
    assert tables.audit(rest) == {}


def test_a_failure_is_no_model():
    failed = [r for r in lines() if r["method"] != RETRAINED]
    failed += [record(3, RETRAINED, seed, error="no") for seed in (42, 43, 44)]
    for line in failed[-2:]:
        del line["values"]
    assert tables.audit(failed) == {}


def test_other_data_and_networks_have_findings_of_their_own():
    other = [r | {"dataset": "fashion_mnist"} for r in lines()]
    assert set(tables.audit(other)) == {(("fashion_mnist", "mlp"), m) for m in (OURS, HIDDEN)}
    lent = [r for r in other if r["method"] != HIDDEN] + [
        r for r in lines() if r["method"] == HIDDEN
    ]
    assert tables.audit(lent) == {}  # a hidden model of one does not serve the other
    page = results_page.page([*lines(), *other])
    assert "**fashion_mnist, mlp**" in page
    assert "**mnist, mlp**" not in page
    row = f"| {OURS} |{' erased 3 |' * len(CLAIM_ATTACKS)}\n"
    known = f"| {HIDDEN} |{' memory remains 3 |' * len(CLAIM_ATTACKS)}\n"
    _, _, elsewhere = page.partition("**fashion_mnist, mlp**")
    assert row in elsewhere
    assert known in elsewhere


# ---- the files


def test_audit_json_holds_every_finding_and_every_model(tmp_path):
    records = lines((3, 4))
    scoreboard, audit = written(records, tmp_path)
    assert scoreboard == []
    assert set(audit) == {"nats", "findings", "models"}
    assert audit["nats"] == list(COST_ATTACKS)
    found = tables.audit(records)
    told = iter(audit["findings"])
    for (place, method), digits in sorted(found.items()):
        for digit, of in digits.items():
            for attack, finding in of.items():
                entry = next(told)
                about = [entry.pop(name) for name in ("digit", "method", "dataset", "arch")]
                assert about == [digit, method, *place]
                back = sa.Finding(**entry)
                assert (back.attack, back.verdict) == (attack, finding.verdict)
                for name, value in vars(finding).items():
                    if isinstance(value, float):
                        value = None if math.isnan(value) else pytest.approx(value, rel=1e-5)
                    assert getattr(back, name) == value, name
    assert next(told, None) is None
    assert any(entry["margin"] is None for entry in audit["findings"])
    assert any(entry["resists"] == 1 for entry in audit["findings"])
    assert len(audit["models"]) == len(records)
    for model in audit["models"]:
        (line,) = [
            r
            for r in records
            if all(
                r[name] == model[name] for name in ("class", "method", "seed", "dataset", "arch")
            )
        ]
        expected = {attack: fmean(numbers) for attack, numbers in line["values"].items()}
        assert model["values"] == pytest.approx(expected, rel=1e-5)


def test_scoreboard_json_holds_a_row_for_every_run(tmp_path):
    measured = dict.fromkeys((*measures.JUDGED, *measures.REAL), 0.123456789)
    measured |= {"p_open_set_class": math.nan, "steps": 7, "reason": "done"}
    about = {"cell_seconds": 12.0, "version": "1", "machine": "a machine"}
    made = [
        record(5, RETRAINED, 42, measured, "scoreboard", **about),
        record(3, RETRAINED, 43, measured, "scoreboard"),
        record(3, OURS, 42, measured | {"iwae_kept_change": 0.5}, "scoreboard"),
        record(3, PAPER, 42, measured, "scoreboard", code="0ldway"),
        record(3, OURS, 44, measured, "scoreboard", dataset="fashion_mnist"),
    ]
    rows, audit = written([*made, *lines()], tmp_path)
    assert [(r["dataset"], r["method"], r["class"], r["seed"]) for r in rows] == [
        ("fashion_mnist", OURS, 3, 44),
        ("mnist", OURS, 3, 42),
        ("mnist", RETRAINED, 3, 43),
        ("mnist", RETRAINED, 5, 42),
    ]
    last = rows[-1]
    assert last["p_open_set_class"] is None
    assert (last["frechet_after"], last["steps"], last["reason"]) == (0.123457, 7, "done")
    assert {name: last[name] for name in about} == about
    assert rows[2]["machine"] is None
    assert "iwae_kept_change" in rows[1]
    assert "iwae_kept_change" not in last
    assert len(audit["models"]) == len(lines())
    text = (tmp_path / "scoreboard.json").read_text()
    assert len(text.splitlines()) == len(rows) + 2  # an entry a line


def test_without_a_line_there_are_empty_tables_and_a_page(tmp_path):
    assert written([], tmp_path) == ([], {"nats": list(COST_ATTACKS), "findings": [], "models": []})
    assert results_page.page([]).startswith("# Results\n")


def test_what_is_committed_is_what_the_journal_says(tmp_path):
    """After any change of the journal, of a default or of a table: `python -m study tables`."""
    records = journal.read(RESULTS / "journal.jsonl")
    tables.write(records, tmp_path)
    for name in ("scoreboard.json", "audit.json"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), name
    page = (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results_page.page(records)


def test_every_digit_and_seed_has_faced_the_claims_attacks():
    seeds = (*grid.SEEDS, *grid.FURTHER_SEEDS)
    whole = Grid("claim", grid.CLAIMED, tuple(range(10)), only=grid.ONLY, further_seeds=seeds)
    assert len(whole.runs()) == 10 * (3 + 3 + 4)
    assert whole.missing() == []


def test_what_the_scoreboard_lacks_are_parts_of_todays_default_and_its_bound():
    whole = Grid("scoreboard", tuple(METHODS), tuple(range(10)), only=grid.ONLY)
    assert {run.method for run in whole.missing()} <= {m for m in METHODS if m.startswith("ours ")}
    assert replace(whole, methods=(OURS,), bounded=()).missing() == []


# ---- the page


def test_a_table_of_markdown():
    assert results_page.table(["a", "b"], [[1, "x"], [2, "y"]]) == (
        "| a | b |\n|---|---|\n| 1 | x |\n| 2 | y |\n"
    )
    assert results_page.table(["a", "b"], []) == ""


def test_the_claims_tables_have_a_row_for_every_digit():
    findings = tables.audit(lines((3, 4)))[PLACE, OURS]
    text = results_page.claim_tables(findings)
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        f"**{attack.capitalize()}**" for attack in CLAIM_ATTACKS
    ]
    f = findings[3][CLAIM_ATTACKS[0]]
    ends = f"{f.excess:.2f} ({f.low:.2f} to {f.high:.2f})"
    row = f"| 3 | 0.90 | 0.25 | 0.50 | {ends} | 0.10 | erased, resists |\n"
    assert row in text
    assert sum(line.startswith("| 4 |") for line in text.splitlines()) == len(CLAIM_ATTACKS)


def test_a_method_has_a_line_of_what_each_attack_finds():
    records = [*lines((3, 4)), record(3, PAPER, 42)]
    found = {method: of for (_, method), of in tables.audit(records).items()}
    told = results_page.method_table(found).splitlines()
    assert told[0] == "| method | " + " | ".join(CLAIM_ATTACKS) + " |"
    assert f"| {PAPER} |" + " memory remains 3 |" * len(CLAIM_ATTACKS) in told
    assert f"| {OURS} |" + " erased 3 4 |" * len(CLAIM_ATTACKS) in told
    assert results_page.method_table({}) == ""


def test_exact_ends_are_clopper_and_pearsons():
    for s, n in ((0, 10), (3, 40), (10, 10)):
        low = stats.beta.ppf(0.025, s, n - s + 1) if s else 0.0
        high = stats.beta.ppf(0.975, s + 1, n - s) if s < n else 1.0
        assert results_page.exact_interval(s, n) == pytest.approx((low, high))
    (_, high) = results_page.exact_interval(0, 2000, "less")
    assert high == pytest.approx(1 - 0.05 ** (1 / 2000))  # 0.15 %
    page = " ".join(results_page.page([]).split())
    assert "A share of zero is 0 of 2,000 samples of each model: at most 0.15 %" in page


COST = COST_ATTACKS[0]
NEAR = (0.28, 0.30, 0.32)


def test_every_retrained_model_is_left_out_in_turn():
    hidden = [{"a": [0.9], COST: [90.0], WITHOUT_VERDICT[0]: [0.9]}] * 2

    def retrained(shares):
        return [{"a": [s], COST: [110.0 + s], WITHOUT_VERDICT[0]: [s]} for s in shares]

    found = results_page.left_out(
        {
            1: (hidden, retrained((0.30, 0.31, 0.29, 0.30))),
            2: (hidden, retrained((0.30, 0.31, 0.70, 0.30, 0.30))),  # one remembers
            3: (
                [{"a": [0.3], COST: [90.0], WITHOUT_VERDICT[0]: [0.9]}] * 2,
                retrained((0.30, 0.31, 0.29, 0.3)),
            ),
        }
    )
    assert list(found) == ["a", COST]
    assert (found["a"].convicted, found["a"].tried) == (1, 13)
    assert found["a"].powered in range(8, 10)  # no power on 3
    assert found["a"][3:] == results_page.exact_interval(1, found["a"].powered)
    assert found[COST][:3] == (0, 13, 13)
    with pytest.raises(ValueError, match="2 retrained models"):
        results_page.left_out({1: (hidden, retrained(NEAR))})


def test_digits_with_three_retrained_models_are_not_left_out_in_words():
    records = [*lines((3, 4)), record(4, RETRAINED, 48)]
    groups = tables.groups(records)[PLACE, OURS]
    said = results_page.left_out_words(groups).splitlines()
    assert len(said) == len(CLAIM_ATTACKS)
    low, high = results_page.exact_interval(0, 4)
    assert said[0] == (
        f"* {CLAIM_ATTACKS[0]}: 0 of 4 retrained models convicted, a share of {low:.3f} to "
        f"{high:.3f} (exact, 95 %)"
    )
    assert results_page.left_out_words({}) == ""


def test_a_retrained_model_left_out_is_convicted_in_at_most_one_of_twenty():
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        digits = {
            d: ([{"a": [0.9]}] * 3, [{"a": [v]} for v in 0.3 + 0.06 * s * rng.standard_normal(5)])
            for d, s in enumerate(np.linspace(0.5, 1.5, 10))
        }
        found.append(results_page.left_out(digits)["a"])
    assert all(f.powered == f.tried == 50 for f in found)
    assert sum(f.convicted for f in found) / (60 * 50) <= 0.05


def test_the_page_says_on_which_machines_its_rows_were_made():
    about = {"machine": "an abacus, 2 cores", "version": "0.3.0 (torch 9)", "cell_seconds": 1.0}
    measured = dict.fromkeys((*measures.JUDGED, *measures.REAL, *measures.COST), 0.5)
    rows = [record(d, OURS, 42, measured, "scoreboard", **about) for d in (3, 4)]
    page = results_page.page(rows)
    assert page.count("Made on: an abacus, 2 cores; sahelpers 0.3.0 (torch 9).\n") == 1
    assert Counter(line[:8] for line in page.splitlines())["Made on:"] == 1
    assert f"| {OURS} | 2 | **50.00** | **0.50** |" in page  # beyond what is asked for


def test_readmes_figures_are_the_worst_and_the_mean_of_ours(tmp_path):
    measured = dict.fromkeys((*measures.JUDGED, *measures.REAL, *measures.COST), 0.0)
    measured |= {"frechet_before": 10.0, "frechet_after": 10.5, "elbo_kept_change": 0.4}
    worse = measured | {"worst_drop_open_set_class": 0.3, "worst_drop_closed_set_standard": 0.7}
    worse |= {"argmax_open_set_standard": 0.001, "steps": 300, "seconds": 9.0}
    rows = [
        record(3, OURS, 42, measured | {"steps": 200, "seconds": 8.0}, "scoreboard"),
        record(4, OURS, 42, worse, "scoreboard"),
        record(4, HIDDEN, 42, dict.fromkeys(measured, 0.9), "scoreboard"),
        record(4, OURS, 43, dict.fromkeys(measured, 0.9), "scoreboard", code="0ldway"),
        record(4, OURS, 44, dict.fromkeys(measured, 0.9), "scoreboard", dataset="fashion_mnist"),
    ]
    form = f"before\n{results_page.BEGIN}\nold\n{results_page.END}\nafter\n"
    told = results_page.with_figures(form, [*rows, *lines()])
    assert told.startswith(f"before\n{results_page.BEGIN}\n* ")
    assert told.endswith(f"\n{results_page.END}\nafter\n")
    assert "old" not in told
    assert "calls 2 of 2,000 samples the digit, in the worst of 2 runs" in told
    assert "* Label only, 10 images: erased on 1 of 1; it resists on 1." in told
    assert "0.30 points less often in the worst run (0.70 with z from N(0, I))" in told
    assert "by 0.40 nats at most" in told
    assert "by 5.0 %" in told
    assert "250 steps on average, 8.0 to 9.0 processor seconds" in told
    assert results_page.with_figures(told, [*rows, *lines()]) == told
    empty = results_page.with_figures(told, rows[2:])  # of an earlier default alone
    assert "* Today's default is not measured yet: `make claim scoreboard`." in empty
    assert empty.endswith(f"\n{results_page.END}\nafter\n")
