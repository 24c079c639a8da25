"""RESULTS.md with its figures, results/scoreboard.md and README's figures, from the journal.

The figures that were measured are not typed.  `python -m study tables` writes them, and so do
`scoreboard` and `ladder`.  The other commands write pages of their own, and what README and
RESULTS.md quote of those follows with the next `tables`.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import binomtest, f

from sahelpers.attacks import verdicts
from sahelpers.attacks.ladder import HEALED_FITTED, KEPT, RUNGS, LadderConfig
from sahelpers.attacks.verdicts import (
    DAMAGED,
    MIN_RETRAINED,
    REMAINS,
    VERDICTS,
    Climbed,
    Finding,
)
from sahelpers.config import CHECKOUT
from sahelpers.data import class_names
from sahelpers.judges import SCORING
from sahelpers.store.files import replace_bytes, replace_text

from . import journal, scores, tables
from .claims import COUNTED, claim, counted, digits_as_text
from .experiments import sealed
from .grid import LONGER, RESULTS
from .journal import Record
from .measures import MeasureConfig
from .methods import KEPT_HEAVILY, KEPT_IMAGES, MASKED, METHODS, OURS, PAPER, RETRAINED, VERSION4
from .pages import as_png, between_marks, table
from .scores import USUAL
from .tables import Findings, Place
from .workers import on_processor

Cells = dict[str, str]  # column -> text, of one method
FORMS = Path(__file__).parent / "forms"
FASHION = ("fashion_mnist", "mlp")
BEGIN, END = "<!-- figures, by `make tables` -->", "<!-- end of the figures -->"  # in README
WAYS = {"with drawn images": OURS, "with kept images": KEPT_IMAGES}  # to forget, of README
LONGER_RUNGS = KEPT["kept, trained further"]
NOT_YET_LONGER = "is not measured yet: `python -m study ladder --longer`."
NOT_YET = "Today's default is not measured yet: `make ladder scoreboard`."


def write() -> None:
    """RESULTS.md and its figures, results/scoreboard.md, README's figures, both JSON files anew."""
    path = RESULTS / "journal.jsonl"
    records = journal.read(path)
    if torn := journal.torn(path, sum(1 for _ in journal.lines(path))):
        print(f"{path.name}: {torn} of its lines are no JSON and do not count")
    tables.write(records, RESULTS)
    audits = tables.audit(records)
    for method, name in {OURS: "ladder.png", KEPT_IMAGES: "ladder_kept_images.png"}.items():
        if findings := audits.get((USUAL, method), {}):
            replace_bytes(RESULTS / name, picture(findings))
    replace_text(CHECKOUT / "RESULTS.md", page(records))
    replace_text(RESULTS / "scoreboard.md", scoreboard_page(records))
    readme = CHECKOUT / "README.md"
    replace_text(readme, with_figures(readme.read_text(encoding="utf-8"), records))


def with_figures(readme: str, records: Sequence[Record]) -> str:
    """README with its figures of ours, between the two marks, anew from the journal's lines."""
    lines = two_ways(records)
    if masks := masked_words(records):
        lines.append(f"* {masks}")
    for way, method in WAYS.items():
        if found := leave_seed(records, method):
            lines.append(f"* *{way.capitalize()}*: {leave_seed_words(found)}")
    if published := published_words(records):
        lines.append(f"* {published}")
    return between_marks(readme, BEGIN, lines, END)


def two_ways(records: Sequence[Record]) -> list[str]:
    """Two tables: what stands with drawn and with kept images, and what the kept digits pay."""
    found = []
    for part in (stands, paid):
        of_each = [part(records, method) for method in WAYS.values()]
        rows = [[name, *(of[name] or "not measured yet" for of in of_each)] for name in of_each[0]]
        found.append(table(["", *WAYS], rows))
    return found


def stands(records: Sequence[Record], method: str) -> Cells:
    """Attack -> which digits of a method have passed it, and how many models of each there are."""
    usual, further = LadderConfig(), "steps of training further at most"
    audits, models = tables.audit(records), tables.climbed(records)
    findings = audits.get((USUAL, method), {})
    _, _, examined = sealed_words(method).rstrip(".").partition("the examination is ")
    healed = " and ".join(f"the {digit}" for digit in sorted(sealed.DIGITS))
    fashion = audits.get((FASHION, method), {})
    return {
        f"the ladder, {usual.heal_steps:,} {further}: the digits that count": standing(
            {digit: findings[digit] for digit in counted(findings)},
            models.get((USUAL, method), {}),
        ),
        f"its third rung, {LONGER.heal_steps:,} {further}: a few digits": standing(
            longer(records, method), tables.climbed(records, LONGER).get((USUAL, method), {})
        ),
        f"[four other ways](results/sealed.md) of training further: {healed}; models of each: "
        f"{of_all(len(sealed.SEEDS[way]) for way in WAYS.values())}": examined,
        "the ladder on Fashion-MNIST: few models, so provisional": standing(
            fashion, models.get((FASHION, method), {}), names=class_names(FASHION[0])
        ),
    }


def standing(findings: Findings, models: Mapping[int, Climbed], names: Sequence[str] = ()) -> str:
    """Which digits have passed every attack, on which memory remains, and the others; and of how
    many models this is."""
    passed, remains = passing(findings), remaining(findings)
    parts = {
        "passed": passed,
        "memory remains": remains,
        "open": [digit for digit in findings if digit not in (*passed, *remains)],
    }
    shown = {
        word: ", ".join(names[c] for c in of) if names else digits_as_text(of)
        for word, of in parts.items()
        if of
    }
    said = "; ".join(f"{word} {len(parts[word])} ({of})" for word, of in shown.items())
    return said and f"{said}; models of each: {of_all(len(models[c].tested) for c in findings)}"


def paid(records: Sequence[Record], method: str) -> Cells:
    """What the kept digits pay in the scoreboard's runs of a method, the largest of the runs, bold
    beyond what is allowed; and how long it takes."""
    rows, retrained = rows_of(records, method)
    points, nats = "worst class lost, points", "kept ELBO lost, nats"
    frechet = "kept Frechet, % worse"
    allowed = {name: scores.BARS[name][2] for name in (points, nats, frechet)}
    heads = [
        f"of {MeasureConfig().samples:,} samples under the forgotten label, so many are called "
        "the digit",
        "the kept digit that loses most: so many points fewer of its samples are recognised "
        f"(allowed: {allowed[points]:g})",
        "the same, with z from N(0, I) in place of the digit's own Gaussian "
        f"(allowed: {allowed[points]:g})",
        "rise of the negative ELBO of real test images of kept digits, nats (allowed: "
        f"{allowed[nats]:g})",
        f"change of the Fréchet distance of their samples (allowed: {allowed[frechet]:g} %)",
        "processor seconds to forget, on one thread, by the maker of the processor (the machines "
        "were busy, so that they vary)",
        "the same to train a new model without the digit",
        "the lines above are about so many runs",
    ]
    if not rows:
        return dict.fromkeys(heads, "")
    (figures,) = scores.summarise(rows).values()
    worst = {name: max(runs.values()) for name, runs in figures.items()}
    standard = max(standard_drops(rows).values())

    def bold(value: float, text: str, name: str) -> str:
        return f"**{text}**" if value > allowed[name] else text

    called = f"{MeasureConfig().samples * worst[scores.ARGMAX] / 100:.0f}"
    texts = [
        called if called == "0" else f"**{called}**",  # the protocol allows none
        bold(worst[points], f"{worst[points]:.2f}", points),
        bold(standard, f"{standard:.2f}", points),
        bold(worst[nats], f"{worst[nats]:+.2f}", nats),
        bold(worst[frechet], f"{worst[frechet]:+.1f} %", frechet),
        seconds_words(rows),
        retrained,
        f"{len(rows)} ({digits_and_seeds(rows)})",
    ]
    return dict(zip(heads, texts, strict=True))


def seconds_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The least and the most seconds that runs took, by the maker of the processor."""
    by_maker = defaultdict[str, list[float]](list)
    for row in rows:
        if not on_processor(row["machine"]):
            continue
        maker = re.search(r"AMD|Apple|ARM|Intel", row["machine"] or "")
        by_maker[maker[0] if maker else "unknown"].append(row["seconds"])
    return "; ".join(f"{m} {min(of):.1f} to {max(of):.1f}" for m, of in sorted(by_maker.items()))


def standard_drops(rows: Sequence[Mapping[str, Any]]) -> scores.Figure:
    """What the worst kept digit loses with z from N(0, I), in points, by digit and seed."""
    return {
        (row["class"], row["seed"]): max(row[f"worst_drop_{r}_standard"] for r in SCORING)
        for row in rows
    }


def passing(findings: Findings) -> list[int]:
    """The digits that every rung passes."""
    return [digit for digit, of in findings.items() if all(f.passed for f in of.values())]


def remaining(findings: Findings) -> list[int]:
    """The digits on which some rung finds that memory remains."""
    return [
        digit for digit, of in findings.items() if any(f.verdict == REMAINS for f in of.values())
    ]


def ladder_lines(findings: Findings) -> list[str]:
    """What the ladder says of ours: all rungs together, and each rung."""
    if not findings:
        return [NOT_YET]
    digits = counted(findings)
    of_counted = {digit: findings[digit] for digit in digits}
    passed, failed = passing(of_counted), remaining(of_counted)
    harmed = [
        digit
        for digit, of in of_counted.items()
        if digit not in failed and any(f.verdict == DAMAGED for f in of.values())
    ]
    open_ones = [digit for digit in digits if digit not in (*passed, *failed, *harmed)]
    parts = {
        "every attack of this ladder is shown to find less than a third of the memory that it "
        "finds in models that are known to remember": passed,
        "an attack finds that memory remains": failed,
        "the kept digits are damaged": harmed,
        "the verdict is open": open_ones,
    }
    found = "; ".join(
        f"on {len(of)} ({digits_as_text(of)}) {what}" for what, of in parts.items() if of
    )
    total = f"Of {len(digits)} digits: {found}." if digits else "No digit counts yet."
    left_out = tuple(digit for digit in findings if digit not in digits)
    absent = [digit for digit in range(10) if digit not in findings]
    if left_out:
        total += (
            f" The others ({digits_as_text(left_out)}) do not count: a model that hides the digit "
            f"and one that never saw it differ by less than {COUNTED:.0f} nats under a fitted "
            "label (which digits count was fixed before ours was measured)."
        )
    if digits:
        of_each = [finding for of in of_counted.values() for finding in of.values()]
        n = Counter(f.verdict for f in of_each)
        dearer = sum(f.high < 0 for f in of_each)
        several = ", ".join(f"{v} {n[v]}" for v in VERDICTS if n[v] and v != REMAINS)
        by_estimate = sum(f.excess < 0 for f in of_each)
        total += (
            f" Memory remains in {n[REMAINS]} of the {len(of_each)} verdicts (the others: "
            f"{several}). In {by_estimate} of the {len(of_each)} the estimate says that the digit "
            f"costs more than in models that never saw it, and in {dearer} the whole interval "
            "does: a trace of forgetting, and no merit."
        )
    if absent:
        total += f" These attacks were not made yet on the digits {digits_as_text(absent)}."
    if not of_counted:
        return [total]
    of_rungs = verdicts.in_words(of_counted).rstrip(".").split(". ")
    return [total, *(f"{words}." for words in of_rungs)]


def usual_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The scoreboard's rows of MNIST and the MLP."""
    rows = [tables.as_row(r) for r in tables.newest(records, "scoreboard")]
    return [row for row in rows if (row["dataset"], row["arch"]) == USUAL]


def rows_of(records: Sequence[Record], method: str) -> tuple[list[dict[str, Any]], str]:
    """The same rows of a method, and in words the seconds that training again took."""
    rows = usual_rows(records)
    again = seconds_words([row for row in rows if row["method"] == RETRAINED])
    return [row for row in rows if row["method"] == method], again


def digits_and_seeds(rows: Sequence[Mapping[str, Any]]) -> str:
    """In words of how many digits and seeds runs are."""
    digits, seeds = (len({row[name] for row in rows}) for name in ("class", "seed"))
    return f"{digits} digits, {seeds} seed{'s' if seeds > 1 else ''}"


def cost_lines(records: Sequence[Record], method: str = OURS) -> list[str]:
    """What the scoreboard says of a method: outputs, what the kept digits pay, and time."""
    rows, again = rows_of(records, method)
    if not rows:
        return []
    figures = scores.summarise(rows)[method]
    worst = {name: max(runs.values()) for name, runs in figures.items()}
    standard = standard_drops(rows)
    n = MeasureConfig().samples
    runs = f"{len(rows)} runs ({digits_and_seeds(rows)})"

    def limit(name: str, unit: str, runs: scores.Figure | None = None) -> str:
        """In words whether the limit of the protocol holds, and on which digits it does not; for
        the figure of that name, or for other runs that have the same limit."""
        allowed = scores.BARS[name][2]
        costs = figures[name] if runs is None else runs
        beyond = [digit for (digit, _), cost in costs.items() if cost > allowed]
        if not beyond:
            return f"(allowed: {allowed:g}{unit})"
        digits = sorted(set(beyond))
        where = f"digit{'s' if len(digits) > 1 else ''} {digits_as_text(digits)}"
        n = f"{len(beyond)} run{'s' if len(beyond) > 1 else ''}"
        return f"(allowed: {allowed:g}{unit}, which is exceeded in {n}, on the {where})"

    def points(lost: float) -> str:
        return f"{abs(lost):.2f} points {'less' if lost >= 0 else 'more'} often"

    return [
        f'Under the forgotten label, a classifier that may answer "none of these" calls '
        f"{round(n * worst[scores.ARGMAX] / 100)} of {n:,} samples the digit, in the worst of "
        f"{runs}. This is a coarse look: the classifier sees no faint digit "
        "([A4](notebooks/A4_denoising.ipynb)).",
        f"The largest values over these runs, each by itself: the worst kept digit is recognised "
        f"{points(worst['worst class lost, points'])} with z from the class's own Gaussian "
        f"{limit('worst class lost, points', '')} and {points(max(standard.values()))} with z "
        f"from N(0, I) {limit('worst class lost, points', '', standard)}; "
        f"the kept negative ELBO changes by {worst['kept ELBO lost, nats']:+.2f} nats "
        f"{limit('kept ELBO lost, nats', '')}, the Fréchet distance of the samples by "
        f"{worst['kept Frechet, % worse']:+.1f} % {limit('kept Frechet, % worse', ' %')}.",
        f"Forgetting takes {fmean(row['steps'] for row in rows):,.0f} steps on average. In "
        "processor seconds on one thread, by the maker of the processor, this was "
        f"{seconds_words(rows)} (the machines were busy, so that they vary)"
        + (f"; to train a new model without the digit took {again}." if again else "."),
    ]


def drawn(findings: Findings) -> str:
    """Eight hexadecimal digits of what `picture` draws, which the file carries as a comment."""
    return journal.digest(digit_table(findings))


def picture(findings: Findings) -> bytes:
    """The figure of RESULTS.md as PNG: for every rung the excess on each digit."""
    figure = Figure(figsize=(13, 0.9 + 0.3 * len(findings)), layout="constrained")
    axes = figure.subplots(1, len(RUNGS), sharey=True)
    for ax, rung in zip(axes, RUNGS, strict=True):
        rows = {f"digit {digit}": of[rung] for digit, of in findings.items()}
        verdicts.excess_intervals(rows, ax, rung)
        ax.set_xlabel("excess of memory, nats")
    return as_png(figure, drawn(findings))


def page(records: Sequence[Record]) -> str:
    """RESULTS.md: what was found, in one screen."""
    audits = tables.audit(records)
    findings = audits.get((USUAL, OURS), {})
    models = tables.climbed(records).get((USUAL, OURS), {})
    numbers = {
        kind: of_all(len(getattr(of, kind)) for of in models.values())
        for kind in ("tested", "hidden", "masked", "retrained")
    }
    return (
        (FORMS / "results.txt")
        .read_text(encoding="utf-8")
        .format(
            lines="\n".join(
                f"{k}. {line}"
                for k, line in enumerate([*ladder_lines(findings), *cost_lines(records)], 1)
            ),
            digits=digit_table(findings),
            kept=kept_table(models),
            methods=method_table(
                {method: of for (place, method), of in audits.items() if place == USUAL}
            ),
            left_out=left_out_words(models),
            unfinished=unfinished_words(models),
            of_seed=seed_words(records),
            ours_seeds=digits_as_text(sorted({s for _, s in trained_further(records, OURS)})),
            adjusted=adjusted_words(findings),
            sealed=sealed_words(OURS),
            sealed_kept=sealed_words(KEPT_IMAGES),
            **numbers,
            elsewhere="".join(elsewhere(records)),
            longer=digit_table(longer(records), LONGER_RUNGS),
            longer_models=longer_models(records),
            longer_words=longer_words(records),
            kept_images=kept_images_table(records),
            kept_images_limits=kept_images_limits(records),
            kept_images_words=kept_images_words(records),
            masked_words=masked_words(records),
            leave_seed=leave_seed_words(leave_seed(records, OURS)),
            models_of=models_words(records),
        )
    )


def of_all(counts: Iterable[int]) -> str:
    """How many models of a kind there are of each digit, as "3" or "2 to 3"."""
    found = sorted(set(counts)) or [0]
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def longer(records: Sequence[Record], method: str = OURS) -> Findings:
    """The findings on a method where models were trained further for longer than on the ladder."""
    found = tables.audit(records, LONGER).get((USUAL, method), {})
    return {digit: {rung: of[rung] for rung in LONGER_RUNGS} for digit, of in found.items()}


def longer_models(records: Sequence[Record]) -> str:
    """Of how many models the findings after longer training are."""
    models = tables.climbed(records, LONGER).get((USUAL, OURS), {})
    if not models:
        return f"it {NOT_YET_LONGER}"
    kinds = {"tested": "of ours", "masked": "masked", "retrained": "retrained"}
    numbers = (
        f"{of_all(len(getattr(of, kind)) for of in models.values())} {words}"
        for kind, words in kinds.items()
    )
    return (
        f"models of each digit: {', '.join(numbers)}, so that intervals are wide. Verdict, excess "
        "of memory with the ends of its interval, and the gap:"
    )


def longer_words(records: Sequence[Record]) -> str:
    """What longer training further finds, on which digits."""
    findings = longer(records)
    if not findings:
        return f"Training further for longer than on the ladder {NOT_YET_LONGER}"
    return (
        f"**This holds for {LadderConfig().heal_steps:,} steps of training further.** With up to "
        f"{LONGER.heal_steps:,} steps ([fewer digits and models]"
        f"(RESULTS.md#trained-further-for-longer)) memory remains on "
        f"{len(remaining(findings))} of {len(findings)} digits. {verdicts.in_words(findings)}"
    )


def kept_images_words(records: Sequence[Record]) -> str:
    """What is found where the real images of the kept digits are replayed, and what it costs."""
    findings = tables.audit(records).get((USUAL, KEPT_IMAGES), {})
    if not findings:
        return "Forgetting with kept images is not measured yet: `make ladder`."
    later = longer(records, KEPT_IMAGES)
    models = how_many_kept(records, LadderConfig())
    told = [
        "**Where the real images of the kept digits are still there**, they can be replayed in the "
        "place of drawn ones, and the encoder moves along "
        f"(`AmnesiaConfig.with_kept_images()`, {models} models of each digit).",
        ladder_lines(findings)[0],
    ]
    if later:
        told.append(
            f"With up to {LONGER.heal_steps:,} steps of training further ({len(later)} digits, "
            f"{how_many_kept(records, LONGER)} models each) memory remains on "
            f"{len(remaining(later))} of {len(later)} digits. {verdicts.in_words(later)}"
        )
    costs = cost_lines(records, KEPT_IMAGES) or ["What the kept digits pay is not measured yet."]
    costs.append(
        "Whoever has real images of the kept digits can also train a new model without the "
        "forgotten one, which leaves nothing to find."
    )
    return "\n\n".join(" ".join(sentences) for sentences in (told, costs))


def how_many_kept(records: Sequence[Record], climbing: LadderConfig) -> str:
    """Of how many models of a digit the findings with kept images are."""
    models = tables.climbed(records, climbing).get((USUAL, KEPT_IMAGES), {}).values()
    return of_all(len(of.tested) for of in models)


def kept_images_table(records: Sequence[Record]) -> str:
    """Digit by digit, with kept images: the ladder, and training further for longer."""
    found = tables.audit(records).get((USUAL, KEPT_IMAGES), {})
    later = digit_table(longer(records, KEPT_IMAGES), LONGER_RUNGS)
    steps = f"\nWith up to {LONGER.heal_steps:,} steps of training further:\n\n{later}"
    models = tables.climbed(records).get((USUAL, KEPT_IMAGES), {})
    kept = kept_table(models, "with kept images")
    paid = f"\nWhat real images of the nine kept digits cost, as above:\n\n{kept}" if kept else ""
    return digit_table(found) + (steps if later else "") + paid


def kept_images_limits(records: Sequence[Record]) -> str:
    """How far the verdicts with kept images hang on few models."""
    findings = tables.audit(records).get((USUAL, KEPT_IMAGES), {})
    if not findings:
        return ""
    without_a_seed = leave_seed_words(leave_seed(records, KEPT_IMAGES))
    return (
        "Of the variance between these models, trained further and under a fitted label, the "
        f"seed's share is {seed_words(records, KEPT_IMAGES)}. Spreads are pooled over the digits "
        "as if models of a seed were independent, so that with a large share intervals are too "
        "narrow; and that one digit more or fewer passes than with drawn images is no evidence "
        f"that one way is better than the other. {without_a_seed} "
        "Corrected for asking about many digits (Holm 1979), a pass is still shown on so many of "
        f"the digits on which a rung can tell: {adjusted_words(findings)}.\n"
    )


def masked_words(records: Sequence[Record]) -> str:
    """On how many digits masked models, which know the digit, pass each rung."""
    audits = tables.audit(records)
    findings, version_4 = (audits.get((USUAL, method), {}) for method in (MASKED, VERSION4))
    digits = counted(findings)
    if not digits:
        return ""
    passed = ", ".join(
        f"*{rung}* on {sum(findings[digit][rung].passed for digit in digits)}"
        for rung, control in RUNGS.items()
        if control != MASKED
    )
    further = [rung for rung, control in RUNGS.items() if control == MASKED]
    of_further = {c: {rung: version_4[c][rung] for rung in further} for c in counted(version_4)}
    remembered = " and ".join(f"the {digit}" for digit in remaining(of_further)) or "no digit"
    told = (
        "Masked models know the digit and hide it, so that every attack should find it. But they "
        f"pass {passed} of {len(digits)} digits. So it says little that a model passes the first "
        "two rungs, and the claim rests on the third, *trained further*. Our models were trained "
        "against that attack, and the masked models, which are its control, were not."
    )
    if not of_further:
        return told
    return (
        f"{told} In version 4, the default before today's, which was trained against it, too, it "
        f"finds memory of {remembered}; but no control says how much it misses in such a model."
    )


def leave_seed(records: Sequence[Record], method: str) -> dict[int, tuple[list[int], list[int]]]:
    """Leave out the models of one seed of a method in turn.

    Returns:
        Seed -> the digits that pass without its models, and those on which memory remains.
    """
    ladder = tables.newest(records, "ladder")
    found = {}
    for seed in sorted({r["seed"] for r in ladder if is_usual(r, method)}):
        fewer = [r for r in ladder if not (is_usual(r, method) and r["seed"] == seed)]
        models = tables.climbed(fewer).get((USUAL, method), {})
        findings = {d: report.by_rung for d, report in verdicts.compare_all(models).items()}
        of_counted = {digit: findings[digit] for digit in counted(findings)}
        found[seed] = passing(of_counted), remaining(of_counted)
    return found


def is_usual(record: Record, method: str) -> bool:
    """Whether a line is of a method on MNIST, with the MLP."""
    return record["method"] == method and (record["dataset"], record["arch"]) == USUAL


def leave_seed_words(found: Mapping[int, tuple[list[int], list[int]]]) -> str:
    """How many digits pass where the models of one seed are left out, as `leave_seed` found it."""
    if len(found) < 2:
        return "There are too few models to leave those of one seed out."
    passed, remains = zip(*found.values(), strict=True)
    each = ", ".join(
        f"{how_many(of)} without seed {seed}" for seed, of in zip(found, passed, strict=True)
    )
    always, most = sorted(set(passed[0]).intersection(*passed)), max(remains, key=len)
    return (
        "If the models of one seed are left out, so many digits still pass every rung: "
        f"{each}. In all of these cases {how_many(always)} pass{'es' * (len(always) < 2)}. Memory "
        f"is found on {how_many(most)}{' at most' if most else ''}."
    )


def how_many(digits: Sequence[int]) -> str:
    """Such as "2 digits (3 4)"; "no digit" for none."""
    if not digits:
        return "no digit"
    return f"{len(digits)} digit{'s' if len(digits) > 1 else ''} ({digits_as_text(digits)})"


def models_words(records: Sequence[Record]) -> str:
    """How many models of a digit each method has on the ladder."""
    found = tables.climbed(records)
    return "; ".join(
        f"{method} {of_all(len(of.tested) for of in found[USUAL, method].values())}"
        for method in METHODS
        if (USUAL, method) in found
    )


def published_words(records: Sequence[Record]) -> str:
    """On which digits the ladder finds memory in models of the published recipe."""
    findings = tables.audit(records).get((USUAL, PAPER), {})
    if not findings:
        return ""
    models = tables.climbed(records)[USUAL, PAPER].values()
    return (
        f"By the same attacks memory remains on {len(remaining(findings))} of the "
        f"{len(findings)} digits ({digits_as_text(list(findings))}) that our baseline forgot by "
        f"the published recipe; models of each: {of_all(len(of.tested) for of in models)}."
    )


def digit_table(
    findings: Findings, rungs: Sequence[str] = tuple(RUNGS), place: Place = USUAL
) -> str:
    """A line for each digit, or class of other images: verdict and excess of every rung."""
    digits, names = place[0] == USUAL[0], class_names(place[0])

    def cell(f: Finding) -> str:
        return f"{f.verdict}: {f.excess:+.1f} ({f.low:+.1f} to {f.high:+.1f}), gap {f.gap:.1f}"

    rows = [
        [c if digits else f"{c} ({names[c]})", *(cell(of[rung]) for rung in rungs)]
        for c, of in findings.items()
    ]
    return table(["digit" if digits else "class", *rungs], rows)


def kept_table(models: Mapping[int, Climbed], words: str = "ours") -> str:
    """What kept images pay by the same attacks, means over digits, a line for each kind."""
    reports = verdicts.compare_all(models).values()
    names = list(next(iter(reports)).kept) if models else []
    rows = [
        [kind, *(f"{fmean(report.kept[name][k] for report in reports):+.1f}" for name in names)]
        for k, kind in enumerate((words, "hidden", "masked", "retrained"))
        if models
    ]
    return table(["", *names], rows)


def unfinished_words(models: Mapping[int, Climbed]) -> str:
    """In how many models relearning with all weights might have gone further."""
    found = [costs for of in models.values() for group in vars(of).values() for costs in group]
    ours = [costs for of in models.values() for costs in of.tested]
    late, of_ours = (sum(c[verdicts.UNFINISHED][0] > 0 for c in some) for some in (found, ours))
    return f"{late} of {len(found)} models ({of_ours} of {len(ours)} of ours)"


def scoreboard_page(records: Sequence[Record]) -> str:
    """results/scoreboard.md: tables with a line per method, and how the rows were made."""
    audits = tables.audit(records)
    of_method = {method: found for (place, method), found in audits.items() if place == USUAL}
    rows = [tables.as_row(r) for r in tables.newest(records, "scoreboard")]
    found = scores.summarise(rows, of_method)
    mean, worst = cells(found), cells(found, largest=True)
    made = sorted({(row["machine"], row["version"]) for row in rows if row["machine"]})
    n = MeasureConfig().samples
    argmax, *bars = scores.BARS
    standard = {}  # way to forget -> what the run that loses most loses, or gains
    for way, method in WAYS.items():
        of_way, _ = rows_of(records, method)
        changes = [row[f"kept_change_{judge}_standard"] for row in of_way for judge in SCORING]
        standard[way] = f"{min(changes):+.2f}" if changes else "not measured yet"
    others = list(scores.OTHERS)
    return (
        (FORMS / "scoreboard.txt")
        .read_text(encoding="utf-8")
        .format(
            n=f"{n:,}",
            standard=", ".join(f"{way} {least}" for way, least in standard.items()),
            bound=f"{100 * at_most(0, n):.2f}",
            allowed="; ".join(f"{name}: {limit:g}" for name, (*_, limit) in scores.BARS.items()),
            bars=by_method(mean, [argmax, *bars[1:]]),
            worst=by_method(worst, scores.BARS),
            memory=by_method(mean, others[:4]),
            cost=by_method(mean, [*others[4:], "dominates", "dominated by"]),
            published=published_table(rows),
            made="".join(
                f"Made on: {machine}; sahelpers {version}.\n" for machine, version in made
            ),
        )
    )


def published_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """P(c_f) of the 0 as the official code's page reports it, and of the same recipe here."""
    lines: list[list[object]] = [["published (the official code's page)", "1,000", "0.058"]]
    for row in rows:
        if (row["method"], row["class"], row["dataset"], row["arch"]) == (PAPER, 0, *USUAL):
            measured = f"{row['p_closed_set_standard']:.3f}"
            lines.append([f"here, seed {row['seed']}", f"{MeasureConfig().samples:,}", measured])
    return table(["the recipe at full length", "samples", "P(c_f)"], lines)


def elsewhere(records: Sequence[Record]) -> Iterable[str]:
    """A table for each other data set and network, and what has no verdict there yet."""
    audits, measured = tables.audit(records), defaultdict[Place, dict[str, set[int]]](dict)
    for r in tables.newest(records, "ladder"):
        measured[r["dataset"], r["arch"]].setdefault(r["method"], set()).add(r["class"])
    for place in sorted(measured.keys() - {USUAL}):
        of_method = {method: found for (where, method), found in audits.items() if where == place}
        yield f"\n**{', '.join(place)}**\n"
        if of_method:
            yield (
                f"\n{method_table(of_method)}\nThere are few models of each class, so that spreads "
                "are hardly known and the words are provisional.\n"
            )
        for method in (OURS, KEPT_IMAGES, KEPT_HEAVILY):
            if method in of_method:
                yield (
                    f"\n*{method.capitalize()}*: verdict, excess with the ends of its interval, "
                    f"and the gap, nats.\n\n{digit_table(of_method[method], place=place)}"
                )
        waiting = {
            method: sorted(classes.difference(of_method.get(method, {})))
            for method, classes in measured[place].items()
            if method != RETRAINED
        }
        lacking = "; ".join(f"{m} {digits_as_text(of)}" for m, of in waiting.items() if of)
        if lacking:
            yield (
                "\nAttacked, but without a verdict so far, for this takes a hidden, a masked and "
                f"{MIN_RETRAINED} retrained models of a class: {lacking}.\n"
            )


def cells(found: scores.Summary, largest: bool = False) -> dict[str, Cells]:
    """The text of every figure of every method, of dominance, too: `mean ± half of its interval`,
    or the largest of its runs, bold beyond what is allowed; and of how many runs if not of all."""
    above, made = scores.dominance(found), dict[str, Cells]()
    for name, figures in found.items():
        made[name] = {
            "runs": str(len(figures["seconds"])),
            "dominates": str(len(above[name])),
            "dominated by": str(sum(name in below for below in above.values())),
        }
        for figure, runs in figures.items():
            known = [value for value in runs.values() if not math.isnan(value)]
            if not known:
                made[name][figure] = "-"
                continue
            mean, low, high = scores.interval(runs)
            places = 0 if max(known) >= 1000 else 2
            shown = round(max(known) if largest else mean, places) + 0.0  # no minus before a zero
            text = f"{shown:.{places}f}"
            if largest:
                if max(known) > (scores.BARS | scores.OTHERS)[figure][2]:
                    text = f"**{text}**"
            elif not math.isnan(low):
                text += f"\u00a0±\u00a0{(high - low) / 2:.{places}f}"
            if len(known) < len(runs):
                text += f" n={len(known)}"
            made[name][figure] = text
    return made


def by_method(texts: Mapping[str, Cells], columns: Iterable[str]) -> str:
    """A line per method."""
    columns = ["runs", *columns]
    rows = ([method, *(of[column] for column in columns)] for method, of in texts.items())
    return table(["method", *columns], rows)


def method_table(of_method: Mapping[str, Findings]) -> str:
    """On which digits each rung finds what, a line for every method."""
    rows = []
    for method, findings in of_method.items():
        words = [
            "; ".join(f"{v} {digits_as_text(d)}" for v, d in tally.digits.items() if d)
            for tally in claim(findings)
        ]
        rows.append([method, *words])
    return table(["method", *RUNGS], rows)


def at_most(successes: int, n: int) -> float:
    """The upper end of the exact one-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    found: Any = binomtest(successes, n, alternative="less").proportion_ci(0.95, "exact")
    return float(found.high)


def left_out(digits: Mapping[int, Climbed]) -> dict[str, tuple[int, int]]:
    """Every retrained model in turn as the model against the others of its digit, by every rung.

    In round k the k-th retrained model of every digit is left out.

    Args:
        digits: What the ladder measured on each digit, four retrained models or more.

    Returns:
        Rung -> how many of them were convicted, and how many it had power on.
    """
    found: dict[str, list[Finding]] = {rung: [] for rung in RUNGS}
    for k in range(max((len(of.retrained) for of in digits.values()), default=0)):
        rest = {
            digit: Climbed(
                of.retrained[k : k + 1],
                of.hidden,
                of.masked,
                [*of.retrained[:k], *of.retrained[k + 1 :]],
            )
            for digit, of in digits.items()
            if k < len(of.retrained)
        }
        for report in verdicts.compare_all(rest).values():
            for rung, finding in report.by_rung.items():
                found[rung].append(finding)
    return {
        rung: (sum(f.powered and f.verdict == REMAINS for f in of), sum(f.powered for f in of))
        for rung, of in found.items()
    }


def trained_further(records: Sequence[Record], method: str) -> dict[tuple[int, int], float]:
    """What the digit costs a method's models trained further and under a fitted label, in nats, by
    digit and seed."""
    return {
        (r["class"], r["seed"]): fmean(r["values"][HEALED_FITTED])
        for r in tables.newest(records, "ladder")
        if is_usual(r, method)
    }


def seed_words(records: Sequence[Record], method: str = OURS) -> str:
    """How much of what separates a method's models of a digit is the seed's.

    The share is that of the seeds' variance in the sum of theirs and of what is left, in a table of
    digits and seeds (the mean squares of a two-way analysis of variance without replication), with
    its exact 90 % interval from the quantiles of F.
    """
    costs = trained_further(records, method)
    seeds = sorted({seed for _, seed in costs})
    digits = sorted({d for d, _ in costs if all((d, seed) in costs for seed in seeds)})
    if len(seeds) < 2 or len(digits) < 2:
        return "not asked, for it takes two digits with two models each"
    of_digit = {d: fmean(costs[d, seed] for seed in seeds) for d in digits}
    of_seed = {seed: fmean(costs[d, seed] - of_digit[d] for d in digits) for seed in seeds}
    rest = [(costs[d, seed] - of_digit[d] - of_seed[seed]) ** 2 for d in digits for seed in seeds]
    left = sum(rest) / (len(digits) - 1) / (len(seeds) - 1)
    of_seeds = len(digits) * sum(x**2 for x in of_seed.values()) / (len(seeds) - 1)
    freedom = len(seeds) - 1, (len(digits) - 1) * (len(seeds) - 1)

    def share(ratio: float) -> float:
        """In per cent, of a ratio of the mean squares."""
        part = max(0.0, ratio - 1) / len(digits)
        return 100 * part / (part + 1)

    ratio = of_seeds / left if left else math.inf
    low, high = (share(ratio / float(f.ppf(end, *freedom))) for end in (0.95, 0.05))
    found = share(ratio) if left else 100.0
    return (
        f"{found:.0f} % (90 % interval {low:.0f} to {high:.0f} %; digits "
        f"{digits_as_text(digits)}, seeds {digits_as_text(seeds)})"
    )


def adjusted_words(findings: Findings) -> str:
    """On how many digits each rung still finds no memory after adjustment for their number."""
    of_counted = {digit: findings[digit] for digit in counted(findings)}
    return "; ".join(
        f"{of.rung}: {len(of.after_holm['passed'])} of {len(of.powered)}"
        for of in claim(of_counted)
    )


def sealed_words(method: str) -> str:
    """What came out of the sealed examination of a way to forget; empty before it is measured."""
    return sealed.outcome(sealed.findings(sealed.read(), method))


def left_out_words(digits: Mapping[int, Climbed]) -> str:
    """How many retrained models each rung convicts, of the digits with four or more."""
    enough = {d: of for d, of in digits.items() if len(of.retrained) > MIN_RETRAINED}
    if not enough:
        return "How often these rules convict a retrained model is not measured yet."
    found = "; ".join(
        f"{rung}: {convicted} of {powered}"
        for rung, (convicted, powered) in left_out(enough).items()
    )
    return (
        f"Each retrained model of the digits {digits_as_text(sorted(enough))} was left out in turn "
        "and played the model under test. So often was memory said to remain, of those on which "
        f"the rung had power: {found}."
    )
