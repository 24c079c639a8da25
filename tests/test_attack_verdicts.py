"""The statistics of the audit against closed forms, its verdicts and how often they err, and what
findings say in words and in a picture."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sahelpers.attacks.verdicts import (
    CLAIM_ATTACKS,
    COST_ATTACKS,
    ERASED,
    INCONCLUSIVE,
    MARGIN,
    NATS_SPREAD,
    NO_VERDICT,
    REMAINS,
    SPREAD,
    UNDECIDED,
    WITHOUT_VERDICT,
    Finding,
    compare,
    compare_all,
    excess_intervals,
    in_words,
    pooled,
)

COST = COST_ATTACKS[0]
NEAR = (0.28, 0.30, 0.32)  # three retrained models around 0.30


def around(middle, spread, n=3):
    """n numbers with this mean and exactly this standard deviation."""
    values = np.arange(n) - (n - 1) / 2
    return list(middle + spread * values / values.std(ddof=1))


def test_ends_and_p_values_are_welchs():
    models, hidden, retrained = [0.31, 0.36, 0.38], [0.7, 0.75, 0.86], [0.25, 0.31, 0.32, 0.29]
    found = compare("a", models, hidden, retrained)
    test = stats.ttest_ind(models, retrained, equal_var=False)
    ends = test.confidence_interval(0.90)  # one-sided 5 % at each end
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    known = stats.ttest_ind(hidden, retrained, equal_var=False).confidence_interval(0.90)
    assert found.power == pytest.approx(known.low)
    greater = stats.ttest_ind(models, retrained, equal_var=False, alternative="greater")
    assert found.p_remains == pytest.approx(greater.pvalue)
    shifted = [m - found.margin for m in models]
    less = stats.ttest_ind(shifted, retrained, equal_var=False, alternative="less")
    assert found.p_erased == pytest.approx(less.pvalue)
    assert (found.n_models, found.n_retrained, found.margin) == (3, 4, MARGIN)


def test_the_larger_of_the_own_and_the_pooled_spread_counts_with_its_degrees_of_freedom():
    models, hidden, retrained = around(0.4, 0.02), around(0.9, 0.02), around(0.3, 0.04)
    found = compare("a", models, hidden, retrained, [(0.06, 20), (0.01, 20), (0.01, 20)])
    mine, theirs = 0.06**2 / 3, 0.04**2 / 3  # pooled with 20, own with 2
    df = (mine + theirs) ** 2 / (mine**2 / 20 + theirs**2 / 2)
    reach = math.sqrt(mine + theirs) * stats.t.ppf(0.95, df)
    assert (found.low, found.high) == pytest.approx((0.1 - reach, 0.1 + reach))


def test_a_lone_model_has_the_pooled_spread_or_that_of_the_retrained_ones():
    retrained = around(0.3, 0.04)
    alone = compare("a", [0.4], [0.9], retrained)
    reach = 0.04 * math.sqrt(1 + 1 / 3) * stats.t.ppf(0.95, 2)  # one spread, of those three
    assert alone.high == pytest.approx(0.1 + reach)
    assert alone.power == pytest.approx(0.6 - reach)
    small = compare("a", [0.4], [0.9], retrained, [(0.01, 9), (0.01, 9), (0.01, 9)])
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
        (
            (0.36, 0.37, 0.35),
            (0.90, 0.95, 0.92),
            ERASED,
            0,
        ),  # above these, below the margin
        ((0.10, 0.11, 0.09), (0.90, 0.95, 0.92), ERASED, 1),
        ((0.90, 0.91, 0.89), (0.90, 0.95, 0.92), REMAINS, 0),
        ((0.38, 0.39, 0.37), (0.90, 0.95, 0.92), REMAINS, 0),  # its mean is below the margin
        ((0.36, 0.37, 0.35), (0.42, 0.40, 0.41), REMAINS, 0),  # the margin is half of the power
        ((0.20, 0.40, 0.30), (0.90, 0.95, 0.92), UNDECIDED, 0),
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


@pytest.mark.parametrize("name", WITHOUT_VERDICT)
def test_what_stands_beside_has_no_verdict(name):
    found = compare(name, around(0.9, 0.01), around(0.8, 0.01), around(0.3, 0.01))
    assert (found.verdict, found.resists) == (NO_VERDICT, 0)
    assert found.excess == pytest.approx(0.6)
    assert found.low < 0.6 < found.high
    assert math.isnan(found.margin)
    assert math.isnan(found.p_erased)


def simulated(excess, spread, attack="a", known=0.45):
    """Share of 600 audits with each verdict, per digit: ten digits whose normal numbers spread
    from half to one and a half of `spread`; three models, three hidden, five retrained ones."""
    rng, verdicts = np.random.default_rng(0), []
    unit = -40 if attack in COST_ATTACKS else 1
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


def reported(share):
    """The values of one model: all 128 restarts alike but for a share of hits."""
    hits = round(share * 128)
    return {"guided z": [1.0] * hits + [0.0] * (128 - hits), "relearn 1": [share] * 5}


def audited(models, digit=2):
    groups = models, [reported(s) for s in (0.9, 0.92)], [reported(s) for s in NEAR]
    return compare_all({digit: groups})[digit].by_attack


def test_a_model_is_its_mean_over_restarts_and_spreads_are_pooled_over_digits():
    found = audited([reported(0.25), reported(0.375)])["guided z"]
    assert (found.n, found.n_models, found.n_retrained) == (128, 2, 3)
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
    assert len(lines) == 3
    limited = replace(compare_all({4: values})[4], notes=("There are 12 images.", "No label."))
    assert str(limited).splitlines() == [*lines, "There are 12 images.", "No label."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retrained": NEAR[:2]}, "2 retrained models for 'a': give at least three"),
        ({"models": ()}, "models of 'a' holds no number"),
        ({"hidden": ()}, "hidden of 'a' holds no number"),
        ({"models": (1.2,)}, r"models of 'a' holds \[1.2\]: give shares or areas from 0 to 1"),
        ({"attack": COST, "hidden": (math.inf,)}, r"hidden of '.*' holds \[inf\]: give nats"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"attack": "a", "models": (0.3,), "hidden": (0.9,), "retrained": NEAR}
    with pytest.raises(ValueError, match=message):
        compare(**given | change)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((1, 0, 3), r"\[1, 0, 3\] models, hidden and retrained ones of class 7: give some"),
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


FINDING = Finding("a", 1, 0.5, 0.1, 0.1, 3, 4, 0.0, -0.05, 0.05, 0.2, 0.1, 0.01, 0.5, 0, ERASED)


def findings_of(**verdicts):
    """digit -> attack -> finding; digits are named d0, d1 and so on."""
    return {
        int(name[1:]): {
            attack: replace(FINDING, attack=attack, verdict=verdict, resists=verdict == ERASED)
            for attack in CLAIM_ATTACKS
        }
        for name, verdict in verdicts.items()
    }


def test_words_name_the_digits_that_are_not_erased():
    said = in_words(
        findings_of(d0=ERASED, d1=ERASED, d4=REMAINS, d5=UNDECIDED, d7=UNDECIDED, d9=INCONCLUSIVE)
    )
    assert said.count(".") == len(CLAIM_ATTACKS)
    assert said.startswith(
        "Label only, 10 images: erased on 2, memory remains on 1 (4), undecided on 2 (5, 7), "
        "inconclusive on 1 (9) of 6; it resists on 2. Label only, 100 images: "
    )
    assert in_words({}) == ""
    assert in_words(findings_of(d3=REMAINS)).startswith(
        "Label only, 10 images: memory remains on 1 (3) of 1. "
    )


def test_words_leave_out_what_stands_beside_and_count_the_digits_that_faced_an_attack():
    findings = findings_of(d1=ERASED, d3=UNDECIDED)
    del findings[3][CLAIM_ATTACKS[1]]
    findings[1][WITHOUT_VERDICT[0]] = replace(
        FINDING, attack=WITHOUT_VERDICT[0], verdict=NO_VERDICT
    )
    said = in_words(findings)
    assert "Label only, 10 images: erased on 1, undecided on 1 (3) of 2; " in said
    assert "Label only, 100 images: erased on 1 of 1; " in said
    assert WITHOUT_VERDICT[0].capitalize() not in said


def found(middle):
    return compare("a", [middle, middle + 0.01], [0.9, 0.92], (0.29, 0.3, 0.31))


def test_the_picture_shows_ends_margin_and_what_is_known():
    findings = {"remains": found(0.5), "erased": found(0.3), "resists": found(0)}
    ax = excess_intervals(findings)
    ends, mean, known, _ = ax.lines[:4]
    first = findings["remains"]
    assert list(ends.get_xdata()) == [first.low, first.high]
    assert list(mean.get_xdata()) == [first.excess]
    assert list(known.get_xdata()) == [pytest.approx(first.hidden - first.retrained)]
    assert [bar.get_width() for bar in ax.patches] == [f.margin for f in findings.values()]
    assert len({ax.lines[k].get_color() for k in (0, 4, 8)}) == 1
    assert [ax.lines[k].get_marker() for k in (1, 5, 9)] == ["s", "o", "o"]
    assert ax.get_xlim() == (-1.05, 1.05)


def test_the_picture_of_costs_has_limits_of_its_own():
    cost = compare(COST, [104.0, 106.0], [95.0, 97.0], [110.0, 111.0, 112.0])
    ax = excess_intervals({"3": cost})
    assert ax.get_xlim()[1] > 15
    assert list(ax.lines[2].get_xdata()) == [pytest.approx(15)]  # the hidden ones' memory
    assert "nats" in ax.get_xlabel()
