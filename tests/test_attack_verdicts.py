"""The statistics of the audit against closed forms, its verdicts and how often they err, and what
findings say in words and in a picture."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sahelpers.attacks.ladder import (
    FITTED,
    HEALED_FITTED,
    HEALED_OTHER,
    KEPT,
    OTHER,
    RUNGS,
    UNFINISHED,
    WEIGHTS,
)
from sahelpers.attacks.verdicts import (
    ALIKE,
    DAMAGED,
    ERASED,
    INCONCLUSIVE,
    LEAST,
    MARGIN,
    NATS_SPREAD,
    PASSED,
    REMAINS,
    RESISTS,
    TRACE,
    UNDECIDED,
    VERDICTS,
    Climbed,
    compare,
    compare_all,
    difference,
    excess_intervals,
    in_words,
    pooled,
)

EPS = 1e-6


def around(middle, spread, n=3):
    """n numbers with this mean and exactly this standard deviation."""
    values = np.arange(n) - (n - 1) / 2
    return list(middle + spread * values / values.std(ddof=1))


# Ends and p values


def contrast(groups):
    """Value, standard error and degrees of freedom of a sum of means, from weight -> numbers."""
    value = sum(weight * np.mean(group) for weight, group in groups.items())
    parts = [weight**2 * np.var(group, ddof=1) / len(group) for weight, group in groups.items()]
    shares = [p**2 / (len(group) - 1) for p, group in zip(parts, groups.values(), strict=True)]
    return value, math.sqrt(sum(parts)), sum(parts) ** 2 / sum(shares)


def test_ends_and_p_values_are_welchs():
    """Costs, so that less is more memory: excess is retrained minus models."""
    models, known, retrained = [71.0, 69.5, 66.0], [40.0, 43.5, 38.0], [72.0, 78.0, 75.0, 74.5]
    found = compare(OTHER, models, known, retrained)
    test = stats.ttest_ind(retrained, models, equal_var=False)
    ends = test.confidence_interval(0.90)  # one-sided 5 % at each end
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    control = stats.ttest_ind(retrained, known, equal_var=False).confidence_interval(0.90)
    assert found.power == pytest.approx(control.low)
    greater = stats.ttest_ind(retrained, models, equal_var=False, alternative="greater")
    assert found.p_remains == pytest.approx(greater.pvalue)
    groups = {2 / 3: retrained, -1: models, 1 / 3: known}  # excess - gap / 3
    value, error, df = contrast(groups)
    assert found.p_erased == pytest.approx(stats.t.cdf(value / error, df))
    means = np.mean(known), np.mean(models), np.mean(retrained)
    assert (found.known, found.model, found.retrained) == pytest.approx(means)
    assert found.excess == pytest.approx(means[2] - means[1])
    assert found.gap == pytest.approx(means[2] - means[0])
    assert (found.n_known, found.n_models, found.n_retrained) == (3, 3, 4)


def test_the_larger_of_the_own_and_the_pooled_spread_counts_with_its_degrees_of_freedom():
    models, known, retrained = around(40, 2), around(10, 2), around(50, 4)
    found = compare(OTHER, models, known, retrained, [(6, 20), (1, 20), (1, 20)])
    mine, theirs = 6**2 / 3, 4**2 / 3  # pooled with 20, own with 2
    df = (mine + theirs) ** 2 / (mine**2 / 20 + theirs**2 / 2)
    reach = math.sqrt(mine + theirs) * stats.t.ppf(0.95, df)
    assert (found.low, found.high) == pytest.approx((10 - reach, 10 + reach))
    mine = 2**2 / 3  # of those that are known to remember their own
    df = (mine + theirs) ** 2 / (mine**2 / 2 + theirs**2 / 2)
    reach = math.sqrt(mine + theirs) * stats.t.ppf(0.95, df)
    assert found.power == pytest.approx(40 - reach)


def test_a_lone_model_has_the_pooled_spread_or_that_of_the_retrained_ones():
    retrained = around(50, 4)
    alone = compare(OTHER, [40], [10], retrained)
    reach = 4 * math.sqrt(1 + 1 / 3) * stats.t.ppf(0.95, 2)  # one spread, of those three
    assert (alone.low, alone.high) == pytest.approx((10 - reach, 10 + reach))
    assert alone.power == pytest.approx(40 - reach)
    lent = compare(OTHER, [40], [10], retrained, [(0, 0), (0, 0), (5, 30)])
    reach = 5 * math.sqrt(1 + 1 / 3) * stats.t.ppf(0.95, 30)  # pooled over classes
    assert lent.high == pytest.approx(10 + reach)
    small = compare(OTHER, [40], [10], retrained, [(1, 9), (1, 9), (1, 9)])
    mine, theirs = 1, 4**2 / 3
    df = (mine + theirs) ** 2 / (mine**2 / 9 + theirs**2 / 2)
    assert small.high == pytest.approx(10 + math.sqrt(mine + theirs) * stats.t.ppf(0.95, df))


def test_spreads_are_pooled_by_degrees_of_freedom():
    groups = [[1.0, 2.0, 4.0], [5.0, 6.0], [9.0]]
    expected = math.sqrt((2 * np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 3)
    assert pooled(groups) == (pytest.approx(expected), 3)
    assert pooled([[9.0], [1.0]]) == (0, 0)


def test_numbers_that_agree_by_chance_have_a_spread_all_the_same():
    found = compare(OTHER, [50.0] * 3, [50.0] * 3, [50.0] * 3)
    reach = NATS_SPREAD * math.sqrt(2 / 3) * stats.t.ppf(0.95, 4)
    assert (found.low, found.high) == pytest.approx((-reach, reach))
    assert found.verdict == INCONCLUSIVE


# Verdicts


def judged(excess, gap=30.0, spread=1.0):
    """The verdict where the excess and the gap are these, and all three groups spread alike."""
    found = compare(
        OTHER, around(100 - excess, spread), around(100 - gap, spread), around(100, spread)
    )
    assert (found.excess, found.gap) == pytest.approx((excess, gap))
    assert found.passed == (found.verdict in PASSED)
    return found.verdict


def reach_of(spread, *weights):
    """Half of the interval of a sum of groups of three that spread alike, with these weights."""
    variance = sum(w**2 for w in weights)
    df = variance**2 / sum(w**4 / 2 for w in weights)
    return spread * math.sqrt(variance / 3) * stats.t.ppf(0.95, df)


PLAIN, TO_A_THIRD, TO_A_HALF = (1, -1), (2 / 3, -1, 1 / 3), (3 / 2, -1, -1 / 2)


@pytest.mark.parametrize(
    ("excess", "below", "above"),
    [
        (30 * MARGIN - reach_of(1, *TO_A_THIRD), ALIKE, REMAINS),
        (-30 * TRACE + reach_of(1, *TO_A_HALF), ERASED, ALIKE),
        (-30 * TRACE - reach_of(1, *TO_A_HALF), RESISTS, ERASED),
    ],
)
def test_the_borders_of_a_verdict_where_models_spread_little(excess, below, above):
    assert judged(excess - EPS) == below
    assert judged(excess + EPS) == above


def test_the_borders_of_a_verdict_where_models_spread_much():
    spread = 8.0  # so that the interval is wider than a third of the gap
    plain, third = reach_of(spread, *PLAIN), reach_of(spread, *TO_A_THIRD)
    assert 10 < third < plain < 28.5
    assert judged(plain + EPS, spread=spread) == REMAINS  # the lower end at 0
    assert judged(plain - EPS, spread=spread) == UNDECIDED
    assert judged(10 - third + EPS, spread=spread) == UNDECIDED  # the upper end at a third
    assert judged(10 - third - EPS, spread=spread) == ERASED  # too wide to be alike


@pytest.mark.parametrize("excess", [-100.0, 0.0])
def test_a_rung_that_does_not_find_what_is_there_acquits_nobody(excess):
    reach = reach_of(1, *PLAIN)
    assert judged(excess, gap=LEAST + reach - EPS) == INCONCLUSIVE
    assert judged(excess, gap=-30) == INCONCLUSIVE
    assert judged(excess, gap=LEAST + reach + EPS) != INCONCLUSIVE


def test_what_is_found_is_found_even_where_the_control_is_not():
    reach = reach_of(1, *PLAIN)
    assert judged(LEAST + reach + EPS, gap=0) == REMAINS
    assert judged(LEAST + reach - EPS, gap=0) == INCONCLUSIVE


def test_a_damaged_model_is_not_taken_for_a_forgetful_one():
    def verdict(excess, kept_high):
        groups = around(100 - excess, 1), around(70, 1), around(100, 1)
        return compare(OTHER, *groups, kept_high=kept_high).verdict

    for excess in (0, -30):  # alike, resists
        assert verdict(excess, 10 + EPS) == DAMAGED
        assert verdict(excess, 10 - EPS) in (ALIKE, RESISTS)
    assert verdict(25, 50) == REMAINS  # memory is memory


def test_what_kept_images_pay_beyond_retrained_models_has_welchs_ends():
    models, retrained = [71.0, 69.5, 66.0], [72.0, 78.0, 75.0, 74.5]
    test = stats.ttest_ind(models, retrained, equal_var=False).confidence_interval(0.90)
    assert difference(models, retrained, [(0, 0), (0, 0)]) == pytest.approx((test.low, test.high))


def test_three_verdicts_find_no_memory():
    assert set(PASSED) == {ALIKE, ERASED, RESISTS}
    assert set(VERDICTS) == {*PASSED, DAMAGED, REMAINS, UNDECIDED, INCONCLUSIVE}


def simulated(excess, spread, known=30.0):
    """Share of 300 audits with each verdict, per class: ten classes whose normal numbers spread
    from half to one and a half of `spread`; three models, three hidden, five retrained ones."""
    rng, verdicts = np.random.default_rng(0), []
    own = np.linspace(0.5, 1.5, 10) * spread
    for _ in range(300):
        classes = [
            [list(80 - middle + sd * rng.standard_normal(n)) for middle, n in
             ((excess, 3), (known, 3), (0.0, 5))]
            for sd in own
        ]  # fmt: skip
        spreads = [pooled(group) for group in zip(*classes, strict=True)]
        verdicts.append([compare(OTHER, *groups, spreads).verdict for groups in classes])
    verdicts = np.array(verdicts)
    return {v: np.mean(verdicts == v, axis=0) for v in VERDICTS}


def test_the_rule_errs_in_one_of_twenty_and_finds_what_is_there():
    at_the_margin = simulated(10.0, 3.0)
    none, much = simulated(0.0, 5.0, 20.0), simulated(20.0, 1.5)
    for share in (sum(at_the_margin[v] for v in PASSED), none[REMAINS]):
        assert share.mean() <= 0.05
        assert share.max() <= 0.08  # of the class whose spread is the largest
    assert simulated(0.0, 1.5)[ALIKE].min() >= 0.95
    assert much[REMAINS].min() >= 0.95
    assert simulated(-25.0, 1.5)[RESISTS].min() >= 0.9


# Many models and classes


def costs(nats, kept=0.5, unfinished=0.0):
    """What a model pays: the same at every rung, two numbers whose mean counts."""
    found = {rung: [nats - 1, nats + 1] for rung in RUNGS}
    return found | {name: [kept] for name in KEPT} | {UNFINISHED: [unfinished]}


def group(*nats):
    return [costs(n) for n in nats]


def masked_group(*nats):
    """Masked models: they hide from rungs 1 and 2 and are found by the third."""
    models = group(*nats)
    for of in models:
        of[OTHER] = of[FITTED] = [73.0]
    return models


def climbed(tested=(70.0,), hidden=(40.0,), masked=(50.0,), retrained=(72.0, 73.0, 74.0)):
    return Climbed(group(*tested), group(*hidden), masked_group(*masked), group(*retrained))


def test_a_rung_is_compared_with_the_control_that_belongs_to_it():
    report = compare_all({3: climbed()})[3]
    assert [f.rung for f in report.findings] == list(RUNGS)
    found = {rung: (f.control, f.known) for rung, f in report.by_rung.items()}
    assert found == {
        "other labels": ("hidden", 40),
        "fitted label": ("hidden", 40),
        "trained further, other labels": ("masked", 50),
        "trained further, fitted label": ("masked", 50),
        "all weights": ("hidden", 40),
    }
    for rung, f in report.by_rung.items():
        alone = compare(rung, [70], [f.known], [72, 73, 74], kept_high=f.kept_high)
        assert f == alone


def test_a_model_is_its_mean_over_images_and_spreads_are_pooled_over_classes():
    calm, wild = around(70, 1), around(70, 5)
    classes = {
        1: climbed(calm, around(40, 1), (50,), calm),
        2: climbed(wild, around(40, 2), (51,), wild),
    }
    of_calm, of_wild = (report.by_rung[OTHER] for report in compare_all(classes).values())
    spread = math.sqrt((1**2 + 5**2) / 2)
    assert of_calm.model == pytest.approx(70)
    assert of_calm.high == pytest.approx(spread * math.sqrt(2 / 3) * stats.t.ppf(0.95, 8))
    assert of_wild.high == pytest.approx(5 * math.sqrt(2 / 3) * stats.t.ppf(0.95, 4))
    alone = compare_all({2: classes[2]})[2].by_rung[OTHER]
    same = ("excess", "low", "high", "gap", "p_remains", "verdict")
    assert [getattr(alone, name) for name in same] == [getattr(of_wild, name) for name in same]


def test_spreads_are_pooled_apart_for_each_rung():
    quiet, loud = climbed((69, 70, 71)), climbed((69, 70, 71))
    for c, nats in zip(loud.tested, (60, 70, 80), strict=True):
        c[WEIGHTS] = [nats]
    found = compare_all({1: quiet, 2: loud})[1].by_rung
    assert found[WEIGHTS].high > found[FITTED].high == pytest.approx(found[OTHER].high)


def test_the_report_is_a_table():
    models = climbed()
    models.hidden[0]["kept, as is"] = [7.0]
    models.masked[0]["kept, trained further"] = [1.0, 3.0]
    report = compare_all({4: models})[4]
    lines = str(report).splitlines()
    assert lines[0] == "class 4: nats that its images cost above the baseline's cost"
    assert " ".join(lines[1].split()) == (
        "rung known to remember model retrained excess of memory gap verdict"
    )
    first = report.findings[0]
    assert " ".join(lines[2].split()) == (
        f"other labels 40.0 (hidden) 70.0 73.0 +3.0 [{first.low:+.1f}, {first.high:+.1f}] 33.0 "
        f"{first.verdict}"
    )
    assert " ".join(lines[4].split()).startswith(
        "trained further, other labels 50.0 (masked) 70.0 "
    )
    assert [" ".join(line.split()) for line in lines[7:]] == [
        "kept, as is 7.0 0.5 0.5",
        "kept, trained further 2.0 0.5 0.5",  # beside rung 3 stands the masked model
        "kept, all weights 0.5 0.5 0.5",
    ]
    assert report.kept["kept, as is"] == (0.5, 7.0, 0.5, 0.5)
    assert lines[1].index("verdict") == lines[2].index(first.verdict)
    limited = replace(report, notes=("There are 12 images.", "No label."))
    assert str(limited).splitlines() == [*lines, "There are 12 images.", "No label."]


def test_relearning_that_might_go_further_acquits_nobody():
    models = climbed((70.0, 71.0))
    assert compare_all({4: models})[4].notes == ()
    assert compare_all({4: models})[4].by_rung[WEIGHTS].passed
    models.hidden[0][UNFINISHED] = [1.0]  # a control may go further, for it is found as it is
    assert compare_all({4: models})[4].notes == ()
    models.tested[1][UNFINISHED] = [1.0]
    report = compare_all({4: models})[4]
    assert report.by_rung[WEIGHTS].verdict == UNDECIDED
    assert report.by_rung[FITTED].passed
    (note,) = report.notes
    assert note == (
        "Relearning with all weights might go further in 1 of 2 models under test, so that it "
        "acquits nobody."
    )


def test_memory_that_a_rung_without_control_finds_is_told():
    models = climbed((20.0, 21.0))
    models.masked[0][OTHER] = [41.0]
    report = compare_all({4: models})[4]
    assert report.by_rung[HEALED_FITTED].verdict == INCONCLUSIVE
    assert report.notes[0].endswith("no control. By its excess memory would remain.")


def test_masked_models_that_do_not_hide_lend_no_power():
    models = climbed()
    models.masked[0][OTHER] = [41.0]  # rung 1 says that it remembers
    report = compare_all({4: models})[4]
    verdicts = {rung: f.verdict for rung, f in report.by_rung.items()}
    assert verdicts[HEALED_OTHER] == verdicts[HEALED_FITTED] == INCONCLUSIVE
    assert INCONCLUSIVE not in (verdicts[OTHER], verdicts[FITTED], verdicts[WEIGHTS])
    assert report.notes == (
        "Masked models do not pass the first two rungs: the third has no control.",
    )


def test_kept_images_are_compared_beside_the_rungs_that_they_belong_to():
    models = climbed()
    for of in models.tested:
        of["kept, trained further"] = [40.0]
    found = compare_all({4: models})[4].by_rung
    assert found[HEALED_OTHER].verdict == found[HEALED_FITTED].verdict == DAMAGED
    assert found[OTHER].passed
    assert found[OTHER].kept_high < 1 < 39 < found[HEALED_OTHER].kept_high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retrained": (1.0, 2.0)}, "2 retrained models for 'other labels': give at least three"),
        ({"models": ()}, "models of 'other labels' holds no number"),
        ({"known": ()}, "known of 'other labels' holds no number"),
        ({"known": (math.inf,)}, r"known of 'other labels' holds \[inf\]: give nats"),
        ({"models": (math.nan,)}, r"models of 'other labels' holds \[nan\]: give nats"),
        ({"rung": "guided z"}, "rung 'guided z' is not one of other labels, fitted label, trained"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    given = {"rung": OTHER, "models": (30,), "known": (9,), "retrained": (30, 31, 32)}
    with pytest.raises(ValueError, match=message):
        compare(**given | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": ()}, "no hidden model of class 7: give some of each"),
        ({"tested": (), "masked": ()}, "no tested and no masked model of class 7"),
        ({"retrained": (72.0, 73.0)}, "2 retrained models for 'other labels': give at least three"),
    ],
)
def test_groups_that_are_too_small_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        compare_all({7: climbed(**change)})


@pytest.mark.parametrize("name", [HEALED_OTHER, "kept, as is", UNFINISHED])
def test_a_model_that_did_not_climb_all_rungs_is_refused(name):
    models = climbed()
    models.retrained[1][name] = []
    with pytest.raises(ValueError, match=f"a model of class 7 lacks {name}: climb again"):
        compare_all({7: models})


# Words and the picture


def findings_of(**verdicts):
    """class -> rung -> finding; classes are named d0, d1 and so on."""
    found = compare_all({0: climbed()})[0].by_rung
    return {
        int(name[1:]): {rung: replace(f, verdict=verdict) for rung, f in found.items()}
        for name, verdict in verdicts.items()
    }


def test_words_name_the_classes_of_every_verdict():
    said = in_words(
        findings_of(
            d0=ALIKE, d1=ERASED, d2=ALIKE, d4=REMAINS, d5=UNDECIDED, d7=RESISTS, d9=INCONCLUSIVE
        )
    )
    assert said.count(".") == len(RUNGS)
    assert said.startswith(
        "Other labels: alike on 2 (0 2), erased on 1 (1), resists on 1 (7), undecided on 1 (5), "
        "memory remains on 1 (4), inconclusive on 1 (9) of 7. Fitted label: alike on 2 (0 2), "
    )
    assert "Trained further, other labels: alike" in said
    assert in_words({}) == ""


def test_words_count_the_classes_that_faced_a_rung():
    findings = findings_of(d1=ERASED, d3=UNDECIDED)
    del findings[3][FITTED]
    said = in_words(findings)
    assert "Other labels: erased on 1 (1), undecided on 1 (3) of 2. " in said
    assert "Fitted label: erased on 1 (1) of 1. " in said


def test_the_picture_shows_ends_what_counts_as_alike_and_what_is_known():
    findings = {
        name: compare(OTHER, around(100 - excess, 1), around(70, 1), around(100, 1))
        for name, excess in {"remains": 25, "alike": 0, "resists": -25}.items()
    }
    ax = excess_intervals(findings)
    ends, mean, known, _ = ax.lines[:4]
    first = findings["remains"]
    assert list(ends.get_xdata()) == [first.low, first.high]
    assert list(mean.get_xdata()) == [first.excess]
    assert list(known.get_xdata()) == [pytest.approx(30)]
    for bar in ax.patches:
        assert (bar.get_x(), bar.get_width()) == pytest.approx((-15, 25))
    assert [ax.lines[k].get_marker() for k in (1, 4, 7)] == ["s", "o", "<"]
    assert "nats" in ax.get_xlabel()
