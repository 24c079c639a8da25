"""How often the ladder's rules err, and how often they find what is there: a simulation.

    python -m study power [--audits 1000] [--models 3/2/4]

Models are drawn whose truth is known, rung by rung, and the package judges them.  A model's number
is the mean of its kind, plus what it shares with all models of its seed, plus its own.  Gaps and
standard deviations are those of the journal's models of the digits that count; what has no models
there is assumed and marked by a star.  All models of a digit face the same images: what the images
add to every number cancels in each comparison and is not drawn.  The table is written into
results/power.md, where the page has two marks for it; 1,000 audits take some seconds for
each of its rows.  With any option the rows are only printed.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from sahelpers.attacks.ladder import RUNGS
from sahelpers.attacks.verdicts import MARGIN, MIN_RETRAINED, PASSED, REMAINS, compare, pooled
from sahelpers.store.files import replace_text

from .. import journal
from ..claims import NOT_COUNTED
from ..grid import RESULTS
from ..methods import HIDDEN, MASKED, OURS, RETRAINED
from ..pages import between_marks, table
from ..scores import USUAL
from ..tables import newest
from ..workers import positive

DIGITS = tuple(digit for digit in range(10) if digit not in NOT_COUNTED)
KINDS = ("tested", "known", "retrained")
CONTROLS = {"hidden": HIDDEN, "masked": MASKED}
PAGE = RESULTS / "power.md"
BEGIN, END = "<!-- by `python -m study power` -->", "<!-- end -->"
HEAD = [
    "rung",
    "gaps, nats",
    "spreads, nats",
    "models",
    "no memory: a digit passes",
    "no memory: all pass",
    "no memory: said to remember",
    "a third of the gap: a digit passes",
    "whole gap: memory is found",
    "retrained, left out: said to remember",
]

Counts = tuple[int, int, int]  # models under test, known to remember, retrained
Audit = list[tuple[list[float], list[float], list[float]]]  # of each digit, the three groups


@dataclass(frozen=True)
class Truth:
    """What is true of one rung.

    Attributes:
        rung: Its name.
        gaps: Of each digit, nats.
        spreads: Standard deviation of models within a digit, nats: under test, known, retrained.
        counts: How many models of each kind there are, of the digit with the fewest.
        assumed: Which of "gap" and the three kinds were not measured.
    """

    rung: str
    gaps: tuple[float, ...]
    spreads: tuple[float, float, float]
    counts: Counts
    assumed: tuple[str, ...]

    def cells(self) -> list[str]:
        """The first cells of its rows."""
        low, high = (f"{end(self.gaps):.1f}" for end in (min, max))
        gaps = (low if low == high else f"{low} to {high}") + "*" * ("gap" in self.assumed)
        spreads = zip(KINDS, self.spreads, strict=True)
        said = " / ".join(f"{sd:.1f}" + "*" * (kind in self.assumed) for kind, sd in spreads)
        return [self.rung, gaps, said]


def measured(options: argparse.Namespace) -> list[Truth]:
    """The truth of every rung that the journal has models of, or else one that is assumed.

    A rung's spreads are pooled over digits; a kind without two models of a digit has the assumed
    one.  A digit on which the models that are known to remember cost no less than the retrained
    ones has the gap of another, for there the rung is inconclusive.

    Raises:
        FileNotFoundError: The journal is not there.
    """
    if not options.journal.is_file():
        raise FileNotFoundError(f"{options.journal}: there is no such journal")
    found: dict[str, dict[int, list[dict[str, list[float]]]]] = {}
    for r in newest(journal.read(options.journal), "ladder"):
        if (r["dataset"], r["arch"]) == USUAL and r["class"] in DIGITS:
            of_method = found.setdefault(r["method"], {})
            of_method.setdefault(r["class"], []).append(r["values"])

    given = {kind: getattr(options, kind) for kind in KINDS}
    truths = []
    for rung, control in RUNGS.items():
        methods = dict(zip(KINDS, (OURS, CONTROLS[control], RETRAINED), strict=True))
        numbers = {
            kind: {c: [fmean(v[rung]) for v in few] for c, few in found.get(method, {}).items()}
            for kind, method in methods.items()
        }
        known, retrained = numbers["known"], numbers["retrained"]
        gaps = [fmean(retrained[c]) - fmean(known[c]) for c in sorted(known.keys() & retrained)]
        gaps = [gap for gap in gaps if gap > 0]
        if gaps:
            pools = {kind: pooled(numbers[kind].values()) for kind in KINDS}
            assumed = tuple(kind for kind in KINDS if pools[kind][1] == 0)
            a, b, c = (given[k] if k in assumed else pools[k][0] for k in KINDS)
            of_digits = tuple(gaps[k % len(gaps)] for k in range(len(DIGITS)))
            x, y, z = (min(map(len, numbers[kind].values()), default=1) for kind in KINDS)
            counts = x, y, max(z, MIN_RETRAINED)
            truths.append(Truth(rung, of_digits, (a, b, c), counts, assumed))
    if truths:
        return truths
    a, b, c = given.values()
    gaps, least = [options.gap] * len(DIGITS), (1, 1, MIN_RETRAINED)
    return [Truth(next(iter(RUNGS)), tuple(gaps), (a, b, c), least, ("gap", *KINDS))]


def drawn(
    rng: np.random.Generator,
    spreads: tuple[float, float, float],
    counts: Counts,
    options: argparse.Namespace,
) -> list[np.ndarray]:
    """How far models lie from the mean of their kind, (audits, digits, models) of each kind.

    The last retrained model is one more than asked for, to be left out.  Models under test and
    those that are known to remember come from the same baselines.
    """
    audits, n = options.audits, max(counts) + 1
    baselines, others = rng.normal(size=(2, audits, 1, n))
    counts = (counts[0], counts[1], counts[2] + 1)
    found = []
    for spread, count, seeds in zip(spreads, counts, (baselines, baselines, others), strict=True):
        own = rng.normal(size=(audits, len(DIGITS), count))
        x = options.shared**0.5 * seeds[..., :count] + (1 - options.shared) ** 0.5 * own
        uneven = options.uneven * rng.normal(size=(audits, len(DIGITS), 1)) - options.uneven**2
        found.append(spread * np.exp(uneven) * x)  # the mean square of uneven spreads is 1
    return found


def judged(rung: str, digits: Audit, alone: bool) -> list[str]:
    """The verdict on each digit of one audit, with spreads pooled as `compare_all` pools them.

    alone: each digit is judged as if it were the only one.
    """
    if alone:
        return [verdict for groups in digits for verdict in judged(rung, [groups], alone=False)]
    spreads = [pooled(group) for group in zip(*digits, strict=True)]
    return [compare(rung, *groups, spreads).verdict for groups in digits]


def simulated(
    truth: Truth, counts: Counts, options: argparse.Namespace, alone: bool = False
) -> list[str]:
    """The cells of one row: chances, each a mean over the digits but for "all pass"."""
    rng = np.random.default_rng(0)
    tested, known, retrained = drawn(rng, truth.spreads, counts, options)
    left_out, retrained = retrained[..., -1:], retrained[..., :-1]
    gaps = np.array(truth.gaps)[:, None]

    def verdicts(models: np.ndarray, share: float) -> np.ndarray:
        """Of models whose excess is this share of the gap, (audits, digits)."""
        groups = (models - share * gaps, known - gaps, retrained)
        audits = zip(*(group.tolist() for group in groups), strict=True)
        of_digits = (list(zip(*audit, strict=True)) for audit in audits)
        return np.array([judged(truth.rung, digits, alone) for digits in of_digits])

    without = verdicts(tested, 0)
    passed = np.isin(without, PASSED)
    chances = [
        passed.mean(),
        passed.all(1).mean(),
        (without == REMAINS).mean(),
        np.isin(verdicts(tested, MARGIN), PASSED).mean(),
        (verdicts(tested, 1) == REMAINS).mean(),
        (verdicts(left_out, 0) == REMAINS).mean(),
    ]
    return [f"{chance:.3f}" for chance in chances]


def numbers_of_models(text: str) -> Counts:
    """`6/3/6` as numbers of models."""
    try:
        tested, known, retrained = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give three numbers, such as 6/3/6") from None
    if min(tested, known) < 1 or retrained < MIN_RETRAINED:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give one model or more under test and known to remember, and "
            f"{MIN_RETRAINED} or more retrained ones"
        )
    return tested, known, retrained


def share(text: str) -> float:
    """A number from 0 to 1, of a command line."""
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--journal", type=Path, default=RESULTS / "journal.jsonl")
    add(
        "--models",
        type=numbers_of_models,
        nargs="+",
        default=[],
        metavar="T/K/R",
        help="further rows: how many under test, known to remember, retrained",
    )
    add("--audits", type=positive, default=1000, help="simulated for each row")
    add("--gap", type=float, default=10.0, help="nats, where no rung is measured")
    for kind, spread in zip(KINDS, (2.4, 1.0, 1.2), strict=True):
        add(f"--{kind}", type=float, default=spread, help="its spread, where it is not measured")
    add("--shared", type=share, default=0.2, help="share of a variance that is the seed's")
    add("--uneven", type=float, default=0.4, help="how much a spread's logarithm differs by digit")


def main(options: argparse.Namespace) -> None:
    """Write the table, rows for each rung: the models that there are; with one under test; six of
    each kind; and a single digit by itself, as `sa.audit` judges it.

    With an option that is not the usual one, rows are printed and no page is written.
    """
    rows = []
    for truth in measured(options):
        _, known, retrained = truth.counts
        together = [truth.counts, (1, known, retrained), (6, 3, 6), *options.models]
        several = [(counts, False) for counts in dict.fromkeys(together)]
        for counts, alone in [*several, ((1, 1, MIN_RETRAINED), True)]:
            numbers = "/".join(map(str, counts)) + ", one digit" * alone
            row = [*truth.cells(), numbers, *simulated(truth, counts, options, alone)]
            rows.append(row)
            print(" | ".join(row), flush=True)
    usual = argparse.ArgumentParser()
    add_arguments(usual)
    if vars(usual.parse_args([])).items() <= vars(options).items():
        page = PAGE.read_text(encoding="utf-8")
        replace_text(PAGE, between_marks(page, BEGIN, [table(HEAD, rows)], END))
