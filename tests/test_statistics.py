"""The statistics against closed forms, the verdicts and how often they err, and what tables make of
their rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import results
from sahelpers.study import report, scores
from sahelpers.study.scores import interval
from sahelpers.study.statistics import (
    BESIDE,
    BESIDE_ONLY,
    ERASED,
    FOOLED,
    INCONCLUSIVE,
    KEPT,
    MARGIN,
    NAMED,
    NATS,
    NATS_SPREAD,
    OPEN,
    REMAINS,
    SOUND,
    SPREAD,
    compare,
    compare_all,
    pooled,
)
from sahelpers.study.verdicts import claim, holm

COST = NATS[0]
NEAR = (0.28, 0.30, 0.32)  # three controls around 0.30
ENDS = ("hidden", "model", "control", "excess", "low", "high", "power", "margin")


def around(middle, spread, n=3):
    """n numbers with this mean and exactly this standard deviation."""
    values = np.arange(n) - (n - 1) / 2
    return list(middle + spread * values / values.std(ddof=1))


def test_ends_and_p_values_are_welchs():
    models, hidden, controls = [0.31, 0.36, 0.38], [0.7, 0.75, 0.86], [0.25, 0.31, 0.32, 0.29]
    found = compare("a", models, hidden, controls)
    test = stats.ttest_ind(models, controls, equal_var=False)
    ends = test.confidence_interval(0.90)  # one-sided 5 % at each end
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    known = stats.ttest_ind(hidden, controls, equal_var=False).confidence_interval(0.90)
    assert found.power == pytest.approx(known.low)
    greater = stats.ttest_ind(models, controls, equal_var=False, alternative="greater")
    assert found.p_remains == pytest.approx(greater.pvalue)
    shifted = [m - found.margin for m in models]
    less = stats.ttest_ind(shifted, controls, equal_var=False, alternative="less")
    assert found.p_erased == pytest.approx(less.pvalue)
    assert (found.models, found.controls, found.margin) == (3, 4, MARGIN)


def test_the_larger_of_the_own_and_the_pooled_spread_counts_with_its_degrees_of_freedom():
    models, hidden, controls = around(0.4, 0.02), around(0.9, 0.02), around(0.3, 0.04)
    found = compare("a", models, hidden, controls, [(0.06, 20), (0.01, 20), (0.01, 20)])
    mine, theirs = 0.06**2 / 3, 0.04**2 / 3  # pooled with 20, own with 2
    df = (mine + theirs) ** 2 / (mine**2 / 20 + theirs**2 / 2)
    reach = math.sqrt(mine + theirs) * stats.t.ppf(0.95, df)
    assert (found.low, found.high) == pytest.approx((0.1 - reach, 0.1 + reach))


def test_a_lone_model_has_the_pooled_spread_or_that_of_the_controls():
    controls = around(0.3, 0.04)
    alone = compare("a", [0.4], [0.9], controls)
    reach = 0.04 * math.sqrt(1 + 1 / 3) * stats.t.ppf(0.95, 2)  # one spread, of three controls
    assert alone.high == pytest.approx(0.1 + reach)
    assert alone.power == pytest.approx(0.6 - reach)
    small = compare("a", [0.4], [0.9], controls, [(0.01, 9), (0.01, 9), (0.01, 9)])
    assert small.high < alone.high


def test_spreads_are_pooled_by_degrees_of_freedom():
    groups = [[0.1, 0.2, 0.4], [0.5, 0.6], [0.9]]
    expected = math.sqrt((2 * np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 3)
    assert pooled(groups) == (pytest.approx(expected), 3)
    assert pooled([[0.9], [0.1]]) == (0, 0)


@pytest.mark.parametrize(("attack", "least"), [("a", SPREAD), (COST, NATS_SPREAD)])
def test_numbers_that_agree_by_chance_have_a_spread_all_the_same(attack, least):
    found = compare(attack, [0.5] * 3, [0.5] * 3, [0.5] * 3)
    reach = least * math.sqrt(2 / 3) * stats.t.ppf(0.95, 4)
    assert (found.low, found.high) == pytest.approx((-reach, reach))
    assert found.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("models", "hidden", "verdict", "resists"),
    [
        ((0.30, 0.31, 0.29), (0.90, 0.95, 0.92), ERASED, 0),
        ((0.36, 0.37, 0.35), (0.90, 0.95, 0.92), ERASED, 0),  # above the controls, below the margin
        ((0.10, 0.11, 0.09), (0.90, 0.95, 0.92), ERASED, 1),
        ((0.90, 0.91, 0.89), (0.90, 0.95, 0.92), REMAINS, 0),
        ((0.38, 0.39, 0.37), (0.90, 0.95, 0.92), REMAINS, 0),  # its mean is below the margin
        ((0.36, 0.37, 0.35), (0.42, 0.40, 0.41), REMAINS, 0),  # the margin is half of the power
        ((0.20, 0.40, 0.30), (0.90, 0.95, 0.92), OPEN, 0),
        ((0.30, 0.31, 0.29), (0.31, 0.30, 0.32), INCONCLUSIVE, 0),
        ((0.90, 0.91, 0.89), (0.31, 0.30, 0.32), INCONCLUSIVE, 0),
        ((0.10, 0.11, 0.09), (0.10, 0.11, 0.12), INCONCLUSIVE, 0),  # no power, no word
    ],
)
def test_verdicts(models, hidden, verdict, resists):
    found = compare("a", models, hidden, NEAR)
    assert (found.verdict, found.resists) == (verdict, resists)


@pytest.mark.parametrize(
    ("middle", "verdict", "resists"),
    [(110, ERASED, 0), (106, ERASED, 0), (105, REMAINS, 0), (100, REMAINS, 0), (118, ERASED, 1)],
)
def test_of_a_cost_less_is_more_memory(middle, verdict, resists):
    found = compare(COST, around(middle, 1), around(92, 1), around(110, 1))
    assert (found.verdict, found.resists) == (verdict, resists)
    assert found.excess == pytest.approx(110 - middle)
    assert found.margin == pytest.approx(18 / 3)


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_has_no_verdict(name):
    found = compare(name, around(0.9, 0.01), around(0.8, 0.01), around(0.3, 0.01))
    assert (found.verdict, found.resists) == (BESIDE_ONLY, 0)
    assert found.excess == pytest.approx(0.6)
    assert found.low < 0.6 < found.high
    assert math.isnan(found.margin)
    assert math.isnan(found.p_erased)


def simulated(excess, spread, attack="a", known=0.45):
    """Share of 600 audits with each verdict, per digit: ten digits whose normal numbers spread
    from half to one and a half of `spread`; three models, three hidden ones, five controls."""
    rng, verdicts = np.random.default_rng(0), []
    unit = -40 if attack in NATS else 1
    for _ in range(600):
        digits = {
            digit: tuple(
                [{attack: [v]} for v in unit * (0.35 + middle + own * rng.standard_normal(n))]
                for middle, n in ((excess, 3), (known, 3), (0.0, 5))
            )
            for digit, own in enumerate(np.linspace(0.5, 1.5, 10) * spread)
        }
        verdicts.append([r.findings[0].verdict for r in compare_all(digits).values()])
    return {v: np.mean(np.array(verdicts) == v, axis=0) for v in (ERASED, REMAINS)}


@pytest.mark.parametrize(("attack", "margin"), [("a", 0.10), (COST, 0.15)])
def test_the_rule_errs_in_one_of_twenty_and_finds_what_is_there(attack, margin):
    wrong = simulated(margin, 0.03, attack)[ERASED], simulated(0.0, 0.05, attack, 0.3)[REMAINS]
    for share in wrong:
        assert share.mean() <= 0.05
        assert share.max() <= 0.08  # of the digit whose spread is the largest
    assert simulated(0.0, 0.015, attack)[ERASED].min() >= 0.95
    assert simulated(2 * margin, 0.015, attack)[REMAINS].min() >= 0.95


def reported(share, **changes):
    """The values of one model: all 128 restarts alike but for a share of hits."""
    hits = round(share * 128)
    found = {"guided z": [1.0] * hits + [0.0] * (128 - hits), "relearn 1": [share] * 5}
    return found | {KEPT: [1.0] * 128, FOOLED: [0.0] * 128} | changes


def audited(models, digit=2):
    groups = models, [reported(s) for s in (0.9, 0.92)], [reported(s) for s in NEAR]
    return compare_all({digit: groups})[digit].by_attack


@pytest.mark.parametrize(
    ("kept", "seen", "verdict"),
    [(1.0, 0.0, ERASED), (0.7, 0.0, INCONCLUSIVE), (1.0, 0.5, INCONCLUSIVE)],
)
def test_a_blunt_attack_clears_no_model(kept, seen, verdict):
    blunt = {KEPT: [kept] * 128, FOOLED: [seen] * 128}
    found = audited([reported(0.3), reported(0.29, **blunt), reported(0.31)])
    assert found["guided z"].verdict == verdict
    assert found["relearn 1"].verdict == ERASED
    assert found[KEPT].verdict == (SOUND if kept > 0.9 else INCONCLUSIVE)
    assert found[FOOLED].verdict == (SOUND if seen < 0.1 else INCONCLUSIVE)
    found = audited([reported(0.9, **blunt)] * 2)
    assert found["guided z"].verdict == REMAINS  # what was found was found


def test_a_model_is_its_mean_over_restarts_and_spreads_are_pooled_over_digits():
    found = audited([reported(0.25), reported(0.375)])["guided z"]
    assert (found.n, found.models, found.controls) == (128, 2, 3)
    assert found.model == pytest.approx(0.3125)
    calm, wild = ([{"a": [v]} for v in around(0.3, s)] for s in (0.01, 0.05))
    hidden = [{"a": [v]} for v in around(0.9, 0.01)]
    both = compare_all({1: (calm, hidden, calm), 2: (wild, hidden, wild)})
    of_calm, of_wild = (both[d].findings[0] for d in (1, 2))
    spread = math.sqrt((0.01**2 + 0.05**2) / 2)
    reach = spread * math.sqrt(2 / 3) * stats.t.ppf(0.95, 8)
    assert of_calm.high == pytest.approx(reach)
    assert of_wild.high == pytest.approx(0.05 * math.sqrt(2 / 3) * stats.t.ppf(0.95, 4))
    alone = compare_all({2: (wild, hidden, wild)})[2].findings[0]
    assert alone == replace(of_wild, power=alone.power)


def test_the_report_is_a_table():
    values = [{"a": [0.05]}], [{"a": [0.9]}], [{"a": [v]} for v in NEAR]
    lines = str(compare_all({4: values})[4]).splitlines()
    assert lines[0] == "class 4"
    assert lines[2].split()[:5] == ["a", "1", "0.90", "0.05", "0.30"]
    assert lines[2].endswith("erased, resists")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": NEAR[:2]}, "2 controls of 'a': give at least three"),
        ({"models": ()}, "models of 'a' holds no number"),
        ({"hidden": ()}, "hidden of 'a' holds no number"),
        ({"models": (1.2,)}, r"models of 'a' holds \[1.2\]: give shares or areas from 0 to 1"),
        ({"attack": COST, "hidden": (math.inf,)}, r"hidden of '.*' holds \[inf\]: give nats"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"attack": "a", "models": (0.3,), "hidden": (0.9,), "controls": NEAR}
    with pytest.raises(ValueError, match=message):
        compare(**given | change)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((1, 0, 3), r"\[1, 0, 3\] models, hidden ones and controls of class 7: give some"),
        ((0, 1, 3), r"\[0, 1, 3\]"),
        ((1, 1, 2), "give at least three"),
    ],
)
def test_groups_that_are_too_small_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        compare_all({7: tuple([reported(0.5)] * n for n in groups)})


@pytest.mark.parametrize("other", [{"b": [0.5]}, {"a": []}])
def test_groups_with_other_attacks_are_refused(other):
    with pytest.raises(ValueError, match=r"attacks \['.'\] are not \['a'\]"):
        compare_all({7: ([{"a": [0.5]}], [other], [{"a": [0.5]}] * 3)})


def test_exact_ends_are_clopper_and_pearsons():
    for s, n in ((0, 10), (3, 40), (10, 10)):
        ends = stats.binomtest(s, n).proportion_ci(0.95, "exact")
        assert results.exact(s, n) == pytest.approx((ends.low, ends.high))
    assert results.exact(0, 2000, 0.05)[1] == pytest.approx(1 - 0.05 ** (1 / 2000))  # 0.15 %
    for s, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"{s} successes of {n}: give"):
            results.exact(s, n)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


def test_every_control_is_left_out_in_turn():
    hidden = [{"a": [0.9], COST: [90.0], BESIDE[0]: [0.9]}] * 2

    def controls(shares):
        return [{"a": [s], COST: [110.0 + s], BESIDE[0]: [s]} for s in shares]

    found = results.left_out(
        {
            1: (hidden, controls((0.30, 0.31, 0.29, 0.30))),
            2: (hidden, controls((0.30, 0.31, 0.70, 0.30, 0.30))),  # one remembers
            3: (
                [{"a": [0.3], COST: [90.0], BESIDE[0]: [0.9]}] * 2,
                controls((0.30, 0.31, 0.29, 0.3)),
            ),
        }
    )
    assert list(found) == ["a", COST]
    assert (found["a"].convicted, found["a"].tried) == (1, 13)
    assert found["a"].powered in range(8, 10)  # no power on 3
    assert found["a"][3:] == results.exact(1, found["a"].powered)
    assert found[COST][:3] == (0, 13, 13)
    with pytest.raises(ValueError, match="2 controls"):
        results.left_out({1: (hidden, controls(NEAR))})


def test_a_control_left_out_is_convicted_in_at_most_one_of_twenty():
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        digits = {
            d: ([{"a": [0.9]}] * 3, [{"a": [v]} for v in 0.3 + 0.06 * s * rng.standard_normal(5)])
            for d, s in enumerate(np.linspace(0.5, 1.5, 10))
        }
        found.append(results.left_out(digits)["a"])
    assert all(f.powered == f.tried == 50 for f in found)
    assert sum(f.convicted for f in found) / (60 * 50) <= 0.05


def finding(attack, middle, known=0.9):
    """A finding whose numbers have a spread of 0.03 around controls of 0.3; costs the other way."""
    turned = [1 - v if attack in NATS else v for v in (middle, known, 0.3)]
    return compare(attack, *(around(v, 0.03) for v in turned), ((0.03, 20),) * 3)


def test_the_claim_counts_digits_as_they_are_and_adjusts_lists_of_single_ones():
    erased = {name: finding(name, 0.3) for name in (*NAMED, "other", *BESIDE)}
    findings = {digit: dict(erased) for digit in range(10)}
    assert claim(findings).erased
    assert claim(findings).remains == {}
    assert [t.attack for t in claim(findings).others] == ["other"]
    findings[7][NAMED[0]] = finding(NAMED[0], 0.3, 0.3)  # no power is no acquittal
    told = claim(findings)
    assert told.erased
    assert told.named[0].digits[INCONCLUSIVE] == (7,)
    assert told.named[0].powered == (0, 1, 2, 3, 4, 5, 6, 8, 9)
    findings[3][NAMED[1]], findings[4][NAMED[1]] = finding(NAMED[1], 0.37), finding(NAMED[1], 0.353)
    findings[5]["other"], findings[6]["other"] = finding("other", 0.36), finding("other", 0.8)
    told = claim(findings)
    assert not told.erased
    assert told.named[1].digits[REMAINS] == (3,)
    assert 4 in told.named[1].digits[ERASED]
    assert told.named[1].sure[ERASED] == (0, 1, 2, 5, 6, 7, 8, 9)
    assert findings[5]["other"].verdict == REMAINS  # as it is, but not among ten
    assert told.remains == {"other": (6,)}
    assert "other: power on 10 (0 1 2 3 4 5 6 7 8 9); memory remains on 6 (adjusted)" in str(told)
    assert "Every digit with power is erased: no." in str(told)


def test_an_attack_without_power_anywhere_acquits_nobody():
    findings = {digit: {name: finding(name, 0.3, 0.3) for name in NAMED} for digit in range(3)}
    assert not claim(findings).erased
    assert not claim({}).erased


def test_a_claim_without_a_named_attack_is_refused():
    with pytest.raises(
        ValueError,
        match=r"digit 2 lacks \['cost under a fitted label', 'cost under other labels'\]",
    ):
        claim({2: {name: finding(name, 0.3) for name in NAMED[:2]}})


def rows_of(figures):
    """Rows of one class with these argmax, worst drop, attack and seconds."""
    made = []
    for method, (argmax, drop, attack, seconds) in figures.items():
        row = dict.fromkeys(report.COLUMNS, "") | {"method": method, "class": "3", "seed": "1"}
        row |= {"dataset": "mnist", "arch": "mlp", "seconds": str(seconds)}
        row |= {"attack": str(attack), "label": str(attack)}
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
    found = scores.summarise(rows)
    assert found["selective amnesia"]["attack - control"] == {("3", "1"): pytest.approx(-0.6)}
    assert scores.dominance(found) == {
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
    above = scores.dominance(scores.summarise(rows))
    assert above["without EWC"] == ["selective amnesia"]
    assert above["label column"] == above["selective amnesia"] == []


def test_a_control_is_compared_with_the_other_seeds():
    rows = [
        rows_of({"retraining": ("nan", 0.5, share, 80.0)})[0] | {"seed": str(seed)}
        for seed, share in enumerate((0.5, 0.6, 0.1))
    ]
    found = scores.summarise(rows)["retraining"]["attack - control"]
    assert list(found.values()) == pytest.approx([0.15, 0.3, -0.45])


def test_means_are_compared_over_the_cells_of_both():
    easy, hard, missing = ("0", "1"), ("3", "1"), ("4", "1")
    few, many = {hard: 5.0, missing: math.nan}, {easy: 1.0, hard: 6.0, missing: 0.0}
    assert scores.common_means(few, many) == (5, 6)  # over all cells many would be better
    assert math.isnan(scores.common_means(few, {easy: 1.0})[0])


def test_the_audit_fills_in_where_a_cell_was_not_attacked():
    rows = rows_of({"paper": (0.0, 0.2, "", 4.0), "label column": (0.1, 0.0, "", 0.0)})
    finding = compare("guided both", [0.2, 0.3], [0.9], [0.6, 0.7, 0.65])
    found = scores.summarise(rows, {(3, "paper", "guided both"): finding})
    assert found["paper"]["attack - control"] == {("3", "1"): pytest.approx(-0.4)}
    assert math.isnan(found["label column"]["attack - control"]["3", "1"])


def test_the_interval_takes_digits_as_fixed_and_seeds_as_the_sample():
    figure = {
        ("0", "1"): 1.0,
        ("0", "2"): 3.0,
        ("5", "1"): 10.0,
        ("5", "2"): 14.0,
        ("5", "3"): 12.0,
    }
    spread = math.sqrt((2 + 8) / 3)  # squares around each digit's mean, three degrees of freedom
    reach = spread * math.sqrt(1 / 2 + 1 / 3) / 2 * stats.t.ppf(0.975, 3)
    expected = pytest.approx((7, 7 - reach, 7 + reach))
    assert interval(figure) == expected
    assert interval(figure | {("5", "4"): math.nan, ("7", "1"): math.nan}) == expected
    one = {("0", "1"): 2.0, ("0", "2"): 3.0, ("0", "3"): 7.0}
    ends = stats.t.interval(0.95, 2, 4, stats.sem([2, 3, 7]))
    assert interval(one) == pytest.approx((4, *ends))


def test_without_two_seeds_there_is_a_mean_and_no_interval():
    mean, *ends = interval({("0", "1"): 1.0, ("3", "1"): 2.0})
    assert mean == 1.5
    assert all(map(math.isnan, ends))
    assert all(map(math.isnan, interval({("0", "1"): math.nan})))


def test_rows_of_an_earlier_recipe_do_not_count():
    """Rows of a method made in two ways: the last way counts, beside its own control."""
    rows = []
    for mark, attacks in (("aa", (0.1, 0.5)), ("bb", (0.4, 0.6))):
        figures = {
            "paper": (0.0, 0.2, attacks[0], 1.0),
            "retraining": ("nan", 0.5, attacks[1], 2.0),
        }
        for row in rows_of(figures):
            half = "" if row["method"] == "retraining" else "-cc"
            rows.append(row | {"fingerprint": mark + half})
    found = scores.summarise(rows)
    assert list(found) == ["paper", "retraining"]
    assert found["paper"]["attack - control"] == {("3", "1"): pytest.approx(-0.2)}


def test_cells_are_means_with_half_an_interval_or_the_largest_beside_what_is_allowed():
    worst, runs = "worst class lost, points", [("3", "1"), ("3", "2"), ("5", "1")]
    figures = {worst: dict(zip(runs, (0.5, 1.5, 0.2), strict=True))}
    figures["seconds"] = dict(zip(runs, (1.0, 2000.0, math.nan), strict=True))
    figures |= {axis: dict.fromkeys(runs, math.nan) for axis in scores.AXES if axis not in figures}
    mean, low, high = interval(figures[worst])
    cells, largest = results.cells({"a": figures}), results.cells({"a": figures}, largest=True)
    assert cells["a"][worst] == f"{mean:.2f}\u00a0±\u00a0{(high - low) / 2:.2f}"
    assert cells["a"]["seconds"].startswith("1000\u00a0±")
    assert cells["a"]["seconds"].endswith(" n=2")
    assert (largest["a"][worst], largest["a"]["seconds"]) == ("**1.50**", "2000 n=2")
    assert cells["a"][scores.ATTACK] == largest["a"][scores.ATTACK] == "-"
    assert results.by_method(cells, [worst]).splitlines()[2] == f"| a | 3 | {cells['a'][worst]} |"
