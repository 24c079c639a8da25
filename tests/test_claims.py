"""What a rung of the ladder finds on many digits together, and its adjustment (Holm)."""

from dataclasses import replace

import pytest

from sahelpers.attacks.ladder import FITTED, OTHER, RUNGS
from sahelpers.attacks.verdicts import (
    ALIKE,
    ERASED,
    INCONCLUSIVE,
    REMAINS,
    RESISTS,
    UNDECIDED,
    compare,
)
from study.claims import claim, counted, digits_as_text, holm, tally

EVERY = tuple(range(10))


def around(middle):
    """Three costs with this mean and a standard deviation of half a nat."""
    return [middle - 0.5, middle, middle + 0.5]


def finding(rung, excess=0.0, gap=30.0):
    """A finding whose retrained models pay 100 nats; the ends lie 0.7 nats around the excess."""
    groups = (around(100 - memory) for memory in (excess, gap, 0.0))
    return compare(rung, *groups, ((0.5, 20),) * 3)


def all_rungs(excess=0.0, gap=30.0):
    return {rung: finding(rung, excess, gap) for rung in RUNGS}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_digits_are_counted_as_they_are_and_adjusted_for_their_number():
    findings = {digit: all_rungs() for digit in EVERY}
    for told in claim(findings):
        assert told.digits[ALIKE] == told.passed == told.powered == EVERY
        assert told.after_holm == {"passed": EVERY, REMAINS: ()}
        assert not any(of for verdict, of in told.digits.items() if verdict != ALIKE)
    assert [told.rung for told in claim(findings)] == list(RUNGS)

    findings[7][OTHER] = finding(OTHER, gap=0.0)  # no power
    findings[3][FITTED] = finding(FITTED, 0.85, gap=2.6)
    findings[4][FITTED] = finding(FITTED, 9.2)
    findings[5][FITTED] = finding(FITTED, 12.0)
    findings[6][FITTED] = finding(FITTED, 25.0)
    first, second, *_ = claim(findings)
    assert first.digits[INCONCLUSIVE] == (7,)
    assert first.passed == first.powered == (0, 1, 2, 3, 4, 5, 6, 8, 9)
    assert first.after_holm["passed"] == first.powered  # no power is no acquittal
    assert second.digits[REMAINS] == (3, 5, 6)
    assert second.after_holm[REMAINS] == (5, 6)  # one of ten may err
    assert 4 in second.passed
    assert second.after_holm["passed"] == (0, 1, 2, 7, 8, 9)
    assert second.digits[UNDECIDED] == second.digits[INCONCLUSIVE] == ()


def test_whatever_finds_no_memory_has_passed():
    """Alike, erased and resists together, each under its own name, too."""
    findings = {1: finding(OTHER), 2: finding(OTHER, -15.0), 8: finding(OTHER, -20.0)}
    findings[9] = finding(OTHER, 20.0)
    told = tally(OTHER, findings)
    assert [told.digits[verdict] for verdict in (ALIKE, ERASED, RESISTS)] == [(1,), (2,), (8,)]
    assert told.passed == told.after_holm["passed"] == (1, 2, 8)
    assert told.digits[REMAINS] == told.after_holm[REMAINS] == (9,)


def test_only_digits_on_which_a_rung_has_power_count_in_the_adjustment():
    one = {3: finding(OTHER, 9.2)}
    others = {digit: finding(OTHER, 9.2, gap=0.0) for digit in range(4, 10)}
    assert tally(OTHER, one | others).after_holm["passed"] == (3,)
    powered = {digit: finding(OTHER, 9.2) for digit in range(4, 10)}
    assert tally(OTHER, one | powered).after_holm["passed"] == ()


def test_a_rung_without_power_anywhere_says_nothing():
    findings = {digit: all_rungs(gap=0.0) for digit in (0, 1)}
    for told in (*claim(findings), *claim({})):
        assert told.powered == told.passed == ()
        assert told.after_holm == {"passed": (), REMAINS: ()}


def test_a_digit_without_one_of_the_rungs_is_refused():
    lacking = {rung: finding(rung) for rung in RUNGS if rung not in (OTHER, FITTED)}
    with pytest.raises(ValueError, match=r"digit 2 lacks \['fitted label', 'other labels'\]: audi"):
        claim({1: all_rungs(), 2: lacking})


def test_the_digits_that_count_are_named_beforehand():
    findings = {digit: all_rungs() for digit in EVERY}
    assert counted(findings) == (0, 2, 3, 4, 5, 6, 7, 8)
    findings[0] = all_rungs(-50.0, gap=0.0)  # whatever comes out
    assert counted(findings) == (0, 2, 3, 4, 5, 6, 7, 8)
    assert counted({}) == ()


def test_digits_as_text():
    assert digits_as_text((0, 3, 5)) == "0 3 5"
    assert digits_as_text(()) == "-"


def test_a_rung_without_a_positive_control_has_no_power_whatever_its_gap():
    found = finding(OTHER)
    assert found.powered
    assert not replace(found, verdict=INCONCLUSIVE).powered
