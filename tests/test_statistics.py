"""The statistics against closed forms, the verdicts, and what tables make of their rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sahelpers.study import report, statistics
from sahelpers.study.statistics import (
    FOOLED,
    INCONCLUSIVE,
    KEPT,
    NO_MORE,
    OPEN,
    REMAINS,
    SOUND,
    Finding,
    compare,
    compare_all,
    draw_means,
)

CLASS = 2


def rate(share, n):
    """n restarts of which this share succeeded."""
    hits = round(share * n)
    return [1] * hits + [0] * (n - hits)


@given(hits=st.integers(0, 60), n=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_rates_have_jeffreys_interval(hits, n):
    hits = min(hits, n)
    drawn = draw_means(rate(hits / n, n), np.random.default_rng(0))
    law = stats.beta(hits + 0.5, n - hits + 0.5)
    assert stats.kstest(drawn, law.cdf).statistic < 0.02


def test_other_numbers_have_students_interval():
    values = [0.2, 0.25, 0.31, 0.4]
    drawn = draw_means(values, np.random.default_rng(0))
    law = stats.t(3, np.mean(values), stats.sem(values))
    assert stats.kstest(drawn, law.cdf).statistic < 0.02


def test_areas_of_zero_are_not_failures():
    areas, failures = (draw_means([zero] * 5, np.random.default_rng(0)) for zero in (0.0, 0))
    assert 0.01 < np.quantile(areas, 0.975) < 0.05  # repeats that agree may do so by chance
    assert np.quantile(failures, 0.975) > 0.3


def test_areas_that_agree_by_chance_decide_nothing_near_the_margin():
    near = compare("a", [[0.09, 0.09]], [[0.9, 0.9]], [[0.0, 0.0]] * 3)
    assert near.verdict == OPEN
    assert compare("a", [[0.01] * 5], [[0.9] * 5], [[0.0] * 5] * 3).verdict == NO_MORE


def test_the_excess_over_equal_controls_is_a_difference_of_betas():
    found = compare("a", [rate(0.5, 40)], [rate(1, 40)], [rate(0.25, 40)])
    rng = np.random.default_rng(5)
    drawn = rng.beta(20.5, 20.5, 10**6) - rng.beta(10.5, 30.5, 10**6)
    expected = np.quantile(drawn, (0.025, 0.975))
    assert (found.excess_low, found.excess_high) == pytest.approx(tuple(expected), abs=0.01)
    assert (found.baseline, found.model, found.control) == (1.0, 0.5, 0.25)


def test_controls_that_differ_widen_the_interval():
    same = compare("a", [rate(0.5, 128)], [rate(1, 128)], [rate(0.5, 128)] * 3)
    apart = compare("a", [rate(0.5, 128)], [rate(1, 128)], [rate(s, 128) for s in (0.2, 0.5, 0.8)])
    assert apart.excess == pytest.approx(same.excess)
    width = [f.excess_high - f.excess_low for f in (same, apart)]
    assert width[1] > 1.5 * width[0]


@pytest.mark.parametrize(
    ("model", "baseline", "controls", "n", "verdict"),
    [
        (0.0, 1.0, (0.0, 0.0, 0.0), 128, NO_MORE),
        (0.5, 1.0, (0.7, 0.8, 0.75), 128, NO_MORE),
        (0.5, 0.9, (0.7, 0.8, 0.75), 128, NO_MORE),
        (0.5, 0.76, (0.7, 0.8, 0.75), 128, INCONCLUSIVE),
        (0.5, 0.7, (0.7, 0.8, 0.75), 128, INCONCLUSIVE),
        (0.0, 0.0, (0.0, 0.0, 0.0), 128, INCONCLUSIVE),
        (0.9, 1.0, (0.2, 0.3, 0.25), 128, REMAINS),
        (0.9, 0.2, (0.2, 0.3, 0.25), 128, REMAINS),
        (0.5, 1.0, (0.5, 0.45, 0.55), 128, OPEN),
        (0.0, 1.0, (0.0, 0.0, 0.0), 4, OPEN),
        (0.0, 1.0, (0.0, 0.0), 128, OPEN),
        (1.0, 1.0, (0.0, 0.0), 128, OPEN),
    ],
)
def test_verdicts(model, baseline, controls, n, verdict):
    found = compare("a", [rate(model, n)], [rate(baseline, n)], [rate(c, n) for c in controls])
    assert found.verdict == verdict


@pytest.mark.parametrize("spread", [0.0, 0.04, 0.08])
def test_the_interval_covers_the_truth_with_three_seeds(spread):
    """Restarts are binomial, the seeds' rates normal around 0.3 and 0.6: the excess is -0.3."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        mine, theirs = (rng.normal(mean, spread, 3).clip(0, 1) for mean in (0.3, 0.6))
        found = compare(
            "a",
            [rng.random(128) < share for share in mine],
            [rate(1, 128)],
            [rng.random(128) < share for share in theirs],
        )
        covered += found.excess_low <= -0.3 <= found.excess_high
    assert covered >= 0.87 * 200  # 0.95 but for chance and for there being three seeds only


@given(
    model=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    control=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    small=st.sampled_from([4, 8, 16]),
)
@settings(max_examples=30, deadline=None)
def test_fewer_restarts_never_make_the_claim_easier(model, control, small):
    few, many = (
        compare("a", [rate(model, n)], [rate(1, n)], [rate(control, n)] * 3) for n in (small, 128)
    )
    assert few.excess_high - few.excess_low > many.excess_high - many.excess_low
    if few.verdict == NO_MORE:
        assert many.verdict == NO_MORE


@pytest.mark.parametrize(
    ("kept", "seen", "verdict"),
    [(1.0, 0.0, NO_MORE), (0.7, 0.0, INCONCLUSIVE), (1.0, 0.5, INCONCLUSIVE)],
)
def test_a_blunt_attack_clears_no_model(kept, seen, verdict):
    def values(guided, kept=1.0, seen=0.0):
        searches = {KEPT: rate(kept, 128), FOOLED: rate(seen, 128), "guided z": rate(guided, 128)}
        return searches | {"relearn 1": [guided] * 5, "guided y": rate(1 - guided, 128)}

    models = [values(0.0), values(0.0, kept, seen), values(0.0)]
    # a check that fails on a control does not count: it only makes the control look better
    report = compare_all(CLASS, models, [values(0.9)], [values(0.1, 0.5, 0.5)] * 3)
    found = {f.attack: f.verdict for f in report.findings}
    assert found["guided z"] == verdict
    assert found["guided y"] == REMAINS  # what was found was found
    assert found["relearn 1"] == NO_MORE
    assert (found[KEPT], found[FOOLED]) == (
        INCONCLUSIVE if kept < 0.9 else SOUND,
        INCONCLUSIVE if seen > 0.1 else SOUND,
    )


def rows_of(figures):
    """Rows of one class with these argmax, worst drop, attack and seconds."""
    made = []
    for method, (argmax, drop, attack, seconds) in figures.items():
        row = dict.fromkeys(report.COLUMNS, "") | {"method": method, "class": "3", "seed": "1"}
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
    found = statistics.summarise(rows)
    assert found["selective amnesia"]["attack - control"] == {("3", "1"): pytest.approx(-0.6)}
    assert statistics.dominance(found) == {
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
    above = statistics.dominance(statistics.summarise(rows))
    assert above["without EWC"] == ["selective amnesia"]
    assert above["label column"] == above["selective amnesia"] == []


def test_a_control_is_compared_with_the_other_seeds():
    rows = [
        rows_of({"retraining": ("nan", 0.5, share, 80.0)})[0] | {"seed": str(seed)}
        for seed, share in enumerate((0.5, 0.6, 0.1))
    ]
    found = statistics.summarise(rows)["retraining"]["attack - control"]
    assert list(found.values()) == pytest.approx([0.15, 0.3, -0.45])


def test_means_are_compared_over_the_cells_of_both():
    easy, hard, missing = ("0", "1"), ("3", "1"), ("4", "1")
    few, many = {hard: 5.0, missing: math.nan}, {easy: 1.0, hard: 6.0, missing: 0.0}
    assert statistics.common_means(few, many) == (5, 6)  # over all cells many would be better
    assert math.isnan(statistics.common_means(few, {easy: 1.0})[0])


def test_the_audit_fills_in_where_a_cell_was_not_attacked():
    rows = rows_of({"paper": (0.0, 0.2, "", 4.0), "label column": (0.1, 0.0, "", 0.0)})
    numbers = dict.fromkeys(("baseline", "model", "low", "high", "control"), 0.0)
    finding = Finding(
        attack="guided both", n=128, controls=3, excess=-0.4, excess_low=-0.5, excess_high=-0.3,
        verdict="", **numbers,
    )  # fmt: skip
    found = statistics.summarise(rows, {(3, "paper", "guided both"): finding})
    assert found["paper"]["attack - control"] == {("3", "1"): -0.4}
    assert math.isnan(found["label column"]["attack - control"]["3", "1"])


def test_interval_covers_the_mean_and_leaves_out_what_is_missing():
    mean, low, high = statistics.interval([1.0, 2.0, 3.0, math.nan])
    assert low < mean == 2 < high
    assert all(map(math.isnan, statistics.interval([math.nan])))


def test_the_interval_is_the_plain_bootstrap():
    values = torch.tensor([0.1, 0.5, 0.7, 2.0])
    picked = torch.randint(4, (2000, 4), generator=torch.Generator().manual_seed(0))
    ends = values[picked].mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert statistics.interval(values.tolist()) == (float(values.mean()), *ends)


def test_another_recipe_is_a_method_of_its_own():
    """Rows of a method made in two ways: the last way has the name, each has its own control."""
    rows = []
    for mark, attacks in (("aa", (0.1, 0.5)), ("bb", (0.4, 0.6))):
        figures = {
            "paper": (0.0, 0.2, attacks[0], 1.0),
            "retraining": ("nan", 0.5, attacks[1], 2.0),
        }
        for row in rows_of(figures):
            half = "" if row["method"] == "retraining" else "-cc"
            rows.append(row | {"fingerprint": mark + half})
    found = statistics.summarise(rows)
    assert list(found) == ["paper (aa-cc)", "paper", "retraining (aa)", "retraining"]
    excess = [found[m]["attack - control"]["3", "1"] for m in ("paper (aa-cc)", "paper")]
    assert excess == pytest.approx([-0.4, -0.2])
