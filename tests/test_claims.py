"""What one attack finds on many digits together, and its adjustment for their number."""

import pytest

from sahelpers.attacks.verdicts import (
    CLAIM_ATTACKS,
    COST_ATTACKS,
    ERASED,
    INCONCLUSIVE,
    REMAINS,
    UNDECIDED,
    WITHOUT_VERDICT,
    compare,
)
from study.claims import claim, digits_as_text, holm, tally


def around(middle):
    """Three numbers with this mean and a standard deviation of 0.03."""
    return [middle - 0.03, middle, middle + 0.03]


def finding(attack, middle, known=0.9):
    """A finding whose numbers lie around these; of retrained models 0.3; costs the other way."""
    turned = [1 - v if attack in COST_ATTACKS else v for v in (middle, known, 0.3)]
    return compare(attack, *map(around, turned), ((0.03, 20),) * 3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_digits_are_counted_as_they_are_and_adjusted_for_their_number():
    findings = {digit: {name: finding(name, 0.3) for name in CLAIM_ATTACKS} for digit in range(10)}
    for told in claim(findings):
        assert told.digits[ERASED] == told.after_holm[ERASED] == told.powered == tuple(range(10))
        assert told.digits[REMAINS] == told.after_holm[REMAINS] == ()
    assert [told.attack for told in claim(findings)] == list(CLAIM_ATTACKS)

    findings[7][CLAIM_ATTACKS[0]] = finding(CLAIM_ATTACKS[0], 0.3, known=0.3)  # no power
    findings[3][CLAIM_ATTACKS[1]] = finding(CLAIM_ATTACKS[1], 0.37)
    findings[4][CLAIM_ATTACKS[1]] = finding(CLAIM_ATTACKS[1], 0.353)
    findings[5][CLAIM_ATTACKS[1]] = finding(CLAIM_ATTACKS[1], 0.4)
    findings[6][CLAIM_ATTACKS[1]] = finding(CLAIM_ATTACKS[1], 0.8)
    first, second, *_ = claim(findings)
    assert first.digits[INCONCLUSIVE] == (7,)
    assert first.powered == (0, 1, 2, 3, 4, 5, 6, 8, 9)
    assert 7 not in first.after_holm[ERASED]  # no power is no acquittal
    assert second.digits[REMAINS] == (3, 5, 6)
    assert second.after_holm[REMAINS] == (5, 6)  # one of ten may err
    assert 4 in second.digits[ERASED]
    assert second.after_holm[ERASED] == (0, 1, 2, 7, 8, 9)
    assert second.digits[UNDECIDED] == second.digits[INCONCLUSIVE] == ()


def test_only_digits_on_which_an_attack_has_power_count_in_the_adjustment():
    one = {3: finding(CLAIM_ATTACKS[0], 0.353)}
    others = {d: finding(CLAIM_ATTACKS[0], 0.353, known=0.3) for d in range(4, 10)}
    assert tally(CLAIM_ATTACKS[0], one | others).after_holm[ERASED] == (3,)
    powered = {d: finding(CLAIM_ATTACKS[0], 0.353) for d in range(4, 10)}
    assert tally(CLAIM_ATTACKS[0], one | powered).after_holm[ERASED] == ()


def test_an_attack_without_power_anywhere_says_nothing():
    findings = {
        digit: {name: finding(name, 0.3, known=0.3) for name in CLAIM_ATTACKS} for digit in (0, 1)
    }
    for told in (*claim(findings), *claim({})):
        assert told.powered == told.after_holm[ERASED] == told.after_holm[REMAINS] == ()
        assert told.digits[ERASED] == told.digits[REMAINS] == ()


def test_what_is_no_attack_of_the_claim_is_not_counted():
    findings = {
        2: {name: finding(name, 0.3) for name in (*CLAIM_ATTACKS, "another", *WITHOUT_VERDICT)}
    }
    assert [told.attack for told in claim(findings)] == list(CLAIM_ATTACKS)


def test_a_claim_without_one_of_its_attacks_is_refused():
    with pytest.raises(
        ValueError,
        match=r"digit 2 lacks \['cost under a fitted label', 'cost under other labels'\]",
    ):
        claim({2: {name: finding(name, 0.3) for name in CLAIM_ATTACKS[:2]}})


def test_digits_as_text():
    assert digits_as_text((0, 3, 5)) == "0 3 5"
    assert digits_as_text(()) == "-"
