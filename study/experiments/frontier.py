"""Memory against what kept digits pay: `python -m study frontier` writes results/frontier.md.

The more the attacker in the loop may cost, the less is left of the digit, and the more the kept
digits pay.  Here this exchange is measured for the default of `forget`, for version 4, and for
version 4 with one thing changed: each forgets the same digits with three budgets or weights of
the attacker.  It takes two hours of one core, and goes on where it was stopped.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.figure import Figure

import sahelpers as sa
from sahelpers import plots
from sahelpers.attacks.ladder import FITTED, HEALED_FITTED, Ladder
from sahelpers.store.files import replace_bytes, replace_text

from .. import journal
from ..claims import digits_as_text
from ..grid import RESULTS, model_key
from ..journal import Record
from ..measures import Baseline, MeasureConfig
from ..methods import MASKED, OURS, RETRAINED
from ..pages import as_png, table
from ..results_page import trained_further
from ..scores import BARS
from ..workers import add_arguments as add_arguments  # the options of this command
from ..workers import measure_and_write
from .sealed import usual

PART = "frontier"  # of the journal
VERSION = 1  # raised with anything here that changes the numbers
DIGITS = (3, 8)  # on both the knobs were tuned; on the 8 memory remained in version 4
SEEDS = (43, 44)
BUDGETS = (0.45, 0.9, 1.8)  # nats of kept images that the attacker's weight follows
WEIGHTS = (0.03, 0.06, 0.12)  # of an attacker whose weight stays


class Run(NamedTuple):
    """A recipe, and the knob by which its attacker is made stronger.

    Attributes:
        make: Makes the configuration that is changed.
        knob: Its field that is varied.
        values: The three values of it.
        changes: What else is changed.
    """

    make: Callable[..., sa.AmnesiaConfig]
    knob: str
    values: tuple[float, ...]
    changes: dict[str, Any]

    @property
    def words(self) -> str:
        """What is changed, by the names of the knobs."""
        return ", ".join(f"`{name.upper()}` {value:g}" for name, value in self.changes.items())


def _of_version4(**changes: Any) -> Run:
    return Run(sa.AmnesiaConfig.version4, "w_attack", WEIGHTS, changes)


RUNS = {
    "ours": Run(sa.AmnesiaConfig, "kept_budget", BUDGETS, {}),
    "version 4": _of_version4(),
    "version 4, without the shadow": _of_version4(heal_every=0),
    "version 4, without EWC": _of_version4(ewc_lambda=0.0),
    "version 4, ten times the EWC": _of_version4(ewc_lambda=1500.0),
    "version 4, longer": _of_version4(heal_every=120, cooldown=900),
}
MOST = BARS["kept ELBO lost, nats"][2]  # nats that the kept digits may pay
ELBO, FRECHET = "kept negative ELBO", "Fréchet distance"
JOURNAL = RESULTS / "journal.jsonl"

Costs = dict[int, dict[str, float]]  # digit -> kind of model -> nats


class Model(NamedTuple):
    """One model that has forgotten a digit by a changed recipe."""

    digit: int
    run: str
    value: float  # of the run's knob
    seed: int

    @property
    def method(self) -> str:
        """The method whose configuration is changed."""
        return OURS

    @property
    def config(self) -> sa.AmnesiaConfig:
        """The configuration of forgetting."""
        run = RUNS[self.run]
        return run.make(**{run.knob: self.value, "seed": self.seed}, **run.changes)

    @property
    def key(self) -> dict[str, Any]:
        """What identifies it in the journal."""
        own = [VERSION, asdict(sa.JudgeConfig()), asdict(MeasureConfig())]
        return model_key(PART, self, own, amnesia=self.config)


def models() -> list[Model]:
    """All of them."""
    return [
        Model(digit, name, value, seed)
        for seed in SEEDS
        for digit in DIGITS
        for name, run in RUNS.items()
        for value in run.values
    ]


def exchange(
    story: sa.Story, digit: int, attack: Ladder, measuring: MeasureConfig
) -> dict[str, float]:
    """Forget a digit by a story's configuration, and ask what is left and what it cost.

    Args:
        story: The baseline, its Fishers, its judges and the configuration of forgetting.
        digit: The digit to forget.
        attack: The images of the digit that all models face.
        measuring: How much is drawn for the Fréchet distance.

    Returns:
        `FITTED` and `HEALED_FITTED`: nats per image above the baseline's cost; `ELBO`: nats per
        kept image; `FRECHET`: per cent of the baseline's; "steps", and "seconds" of the processor.
    """
    fisher = story.fishers.without((digit,))
    begin = time.process_time()
    result = sa.forget(story.baseline.model, fisher, digit, story.config.amnesia)
    seconds = time.process_time() - begin
    as_is = attack.try_out(result.model)
    healed = attack.healed(result.model, as_is)[FITTED]
    paid = Baseline(story, measuring).real(result.model, digit)
    return {
        FITTED: fmean(attack.fitted_label(as_is)),
        HEALED_FITTED: fmean(attack.fitted_label(healed)),
        ELBO: paid["elbo_kept_change"],
        FRECHET: 100 * (paid["frechet_after"] / paid["frechet_before"] - 1),
        "steps": result.steps,
        "seconds": seconds,
    }


def measure(model: Model) -> dict[str, Any]:
    """The exchange of one model, as `values`; above what the baseline of seed 42 pays."""
    story = sa.Story(baseline=sa.BaselineConfig(seed=model.seed), amnesia=model.config)
    attack = Ladder(usual().baseline.model, model.digit, usual().train, usual().test)
    found = exchange(story, model.digit, attack, MeasureConfig())
    values = {name: round(value, 4) for name, value in found.items()}
    return {"run": model.run, "value": model.value, "values": values}


def read() -> dict[Model, Record]:
    """What the journal holds of today's models."""
    return journal.of_models(JOURNAL, models())


def complete(done: Mapping[Model, Record]) -> list[int]:
    """The seeds of which all models are there."""
    return [
        seed for seed in SEEDS if all(model in done for model in models() if model.seed == seed)
    ]


def points(done: Mapping[Model, Record]) -> dict[int, dict[str, dict[float, dict[str, float]]]]:
    """Digit -> run -> budget or weight of the attacker -> means over the complete seeds."""
    seeds = complete(done)
    found: dict[int, dict[str, dict[float, dict[str, float]]]] = {}
    for digit in DIGITS:
        found[digit] = {name: {} for name in RUNS}
        for name, run in RUNS.items():
            for value in run.values if seeds else ():
                several = [done[Model(digit, name, value, seed)]["values"] for seed in seeds]
                found[digit][name][value] = {
                    figure: fmean(of[figure] for of in several) for figure in several[0]
                }
    return found


def costs_of_controls(records: Sequence[Record]) -> Costs:
    """What images of a digit cost models that never saw it, and masked ones that remember it."""
    found: Costs = {digit: {} for digit in DIGITS}
    for method in (RETRAINED, MASKED):
        costs = trained_further(records, method)
        for digit, of in found.items():
            several = [nats for (own, _), nats in costs.items() if own == digit]
            if several:
                of[method] = fmean(several)
    return found


def _style(k: int) -> dict[str, Any]:
    """Of the k-th line: ours as in every figure, the variants of version 4 in grays."""
    if k == 0:
        return plots.line_style(k, "forgotten")
    return {"color": f"{0.15 * (k - 1):.2f}", "marker": "ov^PX"[k - 1], "markersize": 7}


def picture(done: Mapping[Model, Record], known: Costs) -> bytes:
    """The exchange as PNG, a panel for each digit."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, len(DIGITS), sharex=True)
    for ax, (digit, runs) in zip(axes, points(done).items(), strict=True):
        for k, (run, of_value) in enumerate(runs.items()):
            x = [of[ELBO] for of in of_value.values()]
            y = [of[HEALED_FITTED] for of in of_value.values()]
            ax.plot(x, y, label=run, **_style(k))
        for kind, cost in known[digit].items():
            ax.axhline(cost, color="0.5", linestyle=":")
            ax.annotate(
                kind, (0.99, cost), xycoords=("axes fraction", "data"), ha="right", va="bottom"
            )
        ax.axvline(MOST, color="0.8", zorder=0)
        ax.set_title(f"digit {digit}")
        ax.set_xlabel("kept digits: rise of the negative ELBO, nats")
    axes[0].set_ylabel("cost of the digit, trained further, nats")
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False)
    return as_png(figure)


def findings(done: Mapping[Model, Record]) -> str:
    """What the table says, in sentences: how far each run gets within what is allowed."""
    lines = []
    for digit, runs in points(done).items():
        reached = []
        for run, of_value in runs.items():
            within = [of[HEALED_FITTED] for of in of_value.values() if of[ELBO] <= MOST]
            if within:
                reached.append(f"*{run}* {max(within):.1f}")
        if reached:
            lines.append(
                f"Among the settings that raise the kept negative ELBO by at most {MOST:g} nat, "
                f"this is the highest cost of the {digit} after training further (higher is less "
                f"memory): {', '.join(reached)}."
            )
    if lines:
        lines.append(
            "There the best of the settings within this limit counts, one model each, so that "
            "differences of some nats may be chance."
        )
    return "\n\n".join(lines)


def page(done: Mapping[Model, Record], known: Costs) -> str:
    """The exchange as a page of Markdown."""
    rows = [
        [
            digit, run, value, f"{of[FITTED]:.1f}", f"{of[HEALED_FITTED]:.1f}", f"{of[ELBO]:.2f}",
            f"{of[FRECHET]:.1f}", f"{of['steps']:.0f}", f"{of['seconds']:.0f}",
        ]
        for digit, runs in points(done).items()
        for run, of_value in runs.items()
        for value, of in of_value.items()
    ]  # fmt: skip
    head = ["digit", "run", "budget or weight", "fitted label", "trained further, fitted label"]
    head += ["kept ELBO lost, nats", "Fréchet, % worse", "steps", "processor seconds"]
    left = len(models()) - len(done)
    missing = f"Still to be measured: {left} of {len(models())} models.\n\n" * bool(left)
    controls = "; ".join(
        f"the {digit}: " + ", ".join(f"{kind} {nats:.1f}" for kind, nats in of.items())
        for digit, of in known.items()
    )
    changed = "\n".join(f"* *{name}*: {run.words}" for name, run in RUNS.items() if run.changes)
    return f"""# Memory against what kept digits pay

Written by `python -m study frontier`. The more the attacker in the loop may cost, the more the
kept digits pay, and the more real images of the forgotten digit cost afterwards, mostly. *Ours*
with a budget of 0.9 (`KEPT_BUDGET`) is the default. *Version 4* with a weight of 0.06 (`W_ATTACK`)
is the default before, whose attacker's weight stays, and the other runs change that. On both digits
and seeds knobs were chosen.

{changed}

Costs of the digit are nats per image above what the baseline of seed 42 pays, under a fitted label,
before and after the model was trained further with kept digits, as on [the ladder](../RESULTS.md);
less is more memory. Models that never saw the digit, and masked ones, which remember it, cost after
training further: {controls}.
Seeds of the baselines: {digits_as_text(complete(done))}; where there are several, means over them.
With one, a nat more or less is chance: models of one recipe differ by that much and more.

{findings(done)}

![Cost of the digit after further training, against what kept digits pay](frontier.png)

{missing}{table(head, rows)}"""


def write() -> None:
    """Page and figure, of what the journal holds."""
    done, known = read(), costs_of_controls(journal.read(JOURNAL))
    replace_bytes(RESULTS / "frontier.png", picture(done, known))
    replace_text(RESULTS / "frontier.md", page(done, known))


def main(options: argparse.Namespace) -> None:
    """Measure what is missing, a line of the journal each, and write page and figure."""
    measure_and_write(options, measure, models(), JOURNAL, write)
