"""What findings on many digits say in words, and that README and RESULTS.md say the same."""

import re
from dataclasses import replace

import further
import pytest

import results
from sahelpers.config import CHECKOUT
from sahelpers.study.methods import OURS
from sahelpers.study.report import read_audit
from sahelpers.study.statistics import ERASED, INCONCLUSIVE, NAMED, OPEN, REMAINS, Finding
from sahelpers.study.verdicts import claim, in_words, of_method, tallies

FINDING = Finding("a", 1, 0.5, 0.1, 0.1, 3, 4, 0.0, -0.05, 0.05, 0.2, 0.1, 0.01, 0.5, 0, ERASED)


def table(**verdicts):
    """digit -> attack -> finding; digits are named d0, d1 and so on."""
    return {
        int(name[1:]): {
            attack: replace(FINDING, attack=attack, verdict=verdict, resists=verdict == ERASED)
            for attack in NAMED
        }
        for name, verdict in verdicts.items()
    }


def test_words_name_the_digits_that_are_not_erased():
    said = in_words(table(d0=ERASED, d1=ERASED, d4=REMAINS, d5=OPEN, d7=OPEN, d9=INCONCLUSIVE))
    assert said.count(".") == len(NAMED)
    assert said.startswith(
        "Label only, 10 images: erased on 2, memory remains on 1 (4), undecided on 2 (5, 7), "
        "inconclusive on 1 (9) of 6; it resists on 2. Label only, 100 images: "
    )
    assert in_words({}) == ""
    assert in_words(table(d3=REMAINS)).startswith(
        "Label only, 10 images: memory remains on 1 (3) of 1. "
    )


def test_a_digit_counts_when_it_has_faced_all_named_attacks():
    audit = {(d, OURS, a): f for d, of in table(d3=OPEN, d1=ERASED).items() for a, f in of.items()}
    del audit[3, OURS, NAMED[1]]
    audit[1, OURS, "guided both"] = FINDING
    audit[2, "paper", NAMED[0]] = FINDING
    assert list(of_method(audit, OURS)) == [1]
    assert of_method(audit, "paper") == {}
    paper = dict.fromkeys(NAMED, FINDING)
    lines = results.claim_tables(audit).splitlines()
    assert [line for line in lines if line.startswith("| 1 |")] == [
        "| 1 | 0.50 | 0.10 | 0.10 | 0.00 (-0.05 to 0.05) | 0.10 | erased, resists |"
    ] * len(NAMED)
    both = audit | {(2, "paper", a): f for a, f in paper.items()}
    *_, line = results.method_table(both, but=OURS).splitlines()
    assert line == "| paper |" + f" {FINDING.verdict} 2 |" * len(NAMED)
    assert results.method_table(audit, but=OURS) == ""


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md"])
def test_the_pages_say_what_the_table_says(page):
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    said = in_words(of_method(read_audit(), OURS))
    assert said
    assert " ".join(said.split()) in " ".join(text.split())


@pytest.mark.parametrize(
    ("method", "digits"),
    [("without attacker", [0, 0, 8, 9]), ("reference, 3 passes", [10, 10, 8, 10])],
)
def test_the_audit_convicts_others(method, digits):
    """README says so: on how many of the ten digits memory remains, by each named attack."""
    found = of_method(read_audit(), method)
    assert len(found) == 10
    assert [len(tally.digits[REMAINS]) for tally in claim(found).named] == digits


def test_the_other_attacks_find_no_memory():
    """README and notebook 04 say so of the audit's and the later ones, how many leave a digit
    undecided, and how many have power on all ten."""
    of_audit = claim(of_method(read_audit(), OURS)).others
    later = tuple(tallies(further.found()).values())
    assert (len(of_audit), len(later)) == (14, 8)
    both = (*of_audit, *later)
    assert not any(tally.digits[REMAINS] for tally in both)
    assert [len(tally.digits[OPEN]) for tally in both if tally.digits[OPEN]] == [1, 1, 1]
    assert [len(tally.powered) for tally in both].count(10) == 3


VERDICTS = rf"({ERASED} on|{REMAINS} on|{OPEN} on|{INCONCLUSIVE} on|{REMAINS} for|{OPEN} for)"


def test_no_page_types_a_verdict_by_hand():
    """Verdicts on digits stand in generated text alone."""
    said = " ".join(in_words(of_method(read_audit(), OURS)).split())
    pages = [CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("notebooks/*.py")]
    for page in pages:
        text = " ".join(page.read_text(encoding="utf-8").replace("\n# ", " ").split())
        found = re.findall(VERDICTS + r" [\d(]", text.replace(said, ""))
        assert not found, (page.name, found)
