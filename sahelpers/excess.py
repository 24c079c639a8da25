"""The excess of a model over the controls, its 95 % interval, and a plain verdict.

Only the difference to models that never saw the class is evidence.  "No more than the control" is
a claim of non-inferiority: the upper end of the interval of (model - control) is at most MARGIN.
An interval that a few restarts leave wide does not meet it, so fewer restarts never make it easier
(areas have a floor under the spread of their repeats).  And an attack that does not tell the
controls from the baseline, which knows the class, proves nothing by finding nothing: the lower end
of the baseline's own excess must lie above zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.10  # an excess over the controls up to here counts as none
MIN_CONTROLS = 3  # with fewer nothing is decided
DRAWS = 20_000  # of the bootstrap
SPREAD = 0.02  # standard deviation of areas at least: a few repeats may agree by chance
NO_MORE = "no more than the control"
REMAINS = "memory remains"
POWERLESS = "the attack cannot tell"  # not even the baseline from the controls
BLUNT = "the attack is blunt here"  # it failed a check of itself on one of the models
SOUND = "sound"  # of such a check
OPEN = "not decided at this n"


@dataclass(frozen=True)
class Finding:
    """One attack: mean over seeds and restarts (or repeats) of models, baselines and controls.

    low, high: 95 % interval of the model's mean.  excess: model minus controls, with its interval.
    n: restarts or repeats per model; controls: how many were attacked.
    """

    attack: str
    n: int
    baseline: float
    model: float
    low: float
    high: float
    control: float
    controls: int
    excess: float
    excess_low: float
    excess_high: float
    verdict: str


def compare(
    attack: str,
    models: Sequence[Sequence[float]],
    baselines: Sequence[Sequence[float]],
    controls: Sequence[Sequence[float]],
) -> Finding:
    """Mean, excess over the controls, intervals and verdict of one attack; one sequence per seed.

    Seeds are resampled first, then the restarts of each (see `draw_means`).
    """
    groups = {"models": models, "baselines": baselines, "controls": controls}
    for name, group in groups.items():
        if not len(group) or not all(len(values) for values in group):
            raise ValueError(f"{name}={group!r} holds no number: give at least one for each seed")
        if not all(0 <= value <= 1 for values in group for value in values):
            raise ValueError(f"{name} of {attack!r} holds a number that is not from 0 to 1")
    rng = np.random.default_rng(0)
    mine, knowing, theirs = (_resample(group, rng) for group in groups.values())
    low, high = np.quantile(mine, (0.025, 0.975))
    excess_low, excess_high = np.quantile(mine - theirs, (0.025, 0.975))
    if len(controls) < MIN_CONTROLS:
        verdict = OPEN
    elif excess_high > MARGIN:
        verdict = REMAINS if excess_low > 0 else OPEN
    else:
        verdict = NO_MORE if np.quantile(knowing - theirs, 0.025) > 0 else POWERLESS
    model, baseline, control = (
        float(np.mean([np.mean(values) for values in group])) for group in groups.values()
    )
    return Finding(
        attack=attack,
        n=len(models[0]),
        baseline=baseline,
        model=model,
        low=float(low),
        high=float(high),
        control=control,
        controls=len(controls),
        excess=model - control,
        excess_low=float(excess_low),
        excess_high=float(excess_high),
        verdict=verdict,
    )


def _resample(seeds: Sequence[Sequence[float]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws of the mean over seeds: seeds with replacement, and for each one draw of its mean.

    A seed that is picked twice brings the same draw twice: a little wide, which makes up for what
    a bootstrap of three seeds is too narrow (tests/test_audit.py measures the coverage).
    """
    each = np.stack([draw_means(values, rng) for values in seeds])  # (S, DRAWS)
    picked = rng.integers(len(seeds), size=each.shape)
    means: NDArray[np.float64] = np.take_along_axis(each, picked, 0).mean(0)
    return means


def draw_means(values: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """DRAWS draws of the mean that these values leave possible.

    Whole numbers are successes and failures: Beta(s + 1/2, f + 1/2), which stays wide when there
    are few of them, where resampling five failures would give zero for sure.  Floats are areas: the
    mean plus a t variable with the standard error as its unit, cut at 0 and 1; their standard
    deviation counts as SPREAD at least.
    """
    x = np.asarray(values)
    if x.dtype.kind in "bi":
        return rng.beta(x.sum() + 0.5, (1 - x).sum() + 0.5, DRAWS)
    if len(x) < 2:
        raise ValueError(f"{len(x)} repeat has no spread: give at least 2")
    error = max(float(x.std(ddof=1)), SPREAD) / len(x) ** 0.5
    drawn: NDArray[np.float64] = float(x.mean()) + error * rng.standard_t(len(x) - 1, DRAWS)
    return drawn.clip(0, 1)
