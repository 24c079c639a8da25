"""Forgetting under a person's hands: settings, runs one after the other, what the judges say."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..amnesia import AmnesiaResult, History, forget
from ..checkpoints import checkpoint_path, save
from ..checks import check_is
from ..config import AmnesiaConfig, BaselineConfig, Config, FisherConfig, check_classes, fingerprint
from ..evaluation import (
    Latents,
    collateral,
    draw_images,
    fixed_latents,
    judge_samples,
)
from ..fisher import ClassFishers
from ..judges import Judge, check_judges
from ..models import CVAE, check_model
from ..progress import watched
from .settings import as_code
from .worker import LOCK

FRAME_SECONDS = 0.4  # between two pictures of a run
JUDGED = 200  # samples per class behind the dashboard's table
COLUMNS = 8  # images in a row of a frame


@dataclass(frozen=True)
class Frame:
    """A run in the middle: `done` is the share of the way, `images` are one forgotten and one kept
    row of COLUMNS images each, whose classes are `rows`."""

    step: int
    done: float
    distance: float
    images: Tensor
    rows: tuple[int, int]
    history: History


@dataclass(frozen=True)
class Line:
    """What one judge says of the model: the forgotten classes (the worst of them) and the kept."""

    judge: str
    p_before: float
    p_after: float
    argmax: float  # share of the samples that the judge calls the class
    argmax_stretched: float  # the same, after stretching every image to full contrast
    kept_before: float  # percent recognised
    kept_after: float
    worst_drop: float  # percentage points
    worst_class: int


class _Run:
    """Looks over the shoulder of a run: collects its history, shows frames, passes the stop on."""

    def __init__(
        self,
        stop: threading.Event,
        show: Callable[[Frame], None],
        latents: Latents,
        rows: tuple[int, int],
        tolerance: float,
    ) -> None:
        self.stop, self.show, self.latents, self.rows = stop, show, latents, rows
        self.tolerance = tolerance
        self.history: History = {}
        self.last = -math.inf

    def on_step(self, step: int, model: CVAE, terms: dict[str, float]) -> bool:
        self.model = model
        for name, value in terms.items():
            self.history.setdefault(name, []).append(value)
        return not self.stop.is_set()

    def tell(self, done: int, limit: int) -> None:
        if time.perf_counter() - self.last < FRAME_SECONDS:
            return
        far = self.history["distance"]
        way = (far[0] - far[-1]) / max(far[0] - self.tolerance, 1e-9)
        history = {k: list(v) for k, v in self.history.items() if k != "distance"}
        images = draw_images(self.model, self.latents)
        share = min(1.0, max(done / limit, way))
        self.show(Frame(done, share, far[-1], images, self.rows, history))
        self.last = time.perf_counter()


class AmnesiaController:
    """Forget classes of a trained model, step by step, with settings that a person moves.

    baseline: the model before.  fishers: its Fisher, per class.  judges: the scoring ones by role.
    made_with: the configurations of baseline and Fisher, which a saved file's name depends on.

    State: `config` and `classes` (the settings), `model` (what is forgotten so far), `chain` (the
    runs that led to it), `result` (the last run) and `lines` (what the judges say).
    """

    def __init__(
        self,
        baseline: CVAE,
        fishers: ClassFishers,
        judges: Mapping[str, Judge],
        forget_class: int | tuple[int, ...] = 3,
        config: AmnesiaConfig | None = None,
        made_with: tuple[Config, ...] = (BaselineConfig(), FisherConfig()),
    ) -> None:
        check_model(baseline, "baseline")
        check_is(fishers, ClassFishers, "fishers", ": class_fishers(...) makes them")
        if len(fishers.by_class) != baseline.num_classes:
            raise ValueError(
                f"fishers has {len(fishers.by_class)} classes, baseline {baseline.num_classes}"
            )
        check_judges(judges, baseline.num_classes)
        check_is(config, (AmnesiaConfig, type(None)), "config")
        self.baseline, self.fishers, self.judges = baseline, fishers, dict(judges)
        self.made_with = made_with
        self.start = (check_classes(forget_class, baseline.num_classes), config or AmnesiaConfig())
        self.shown = fixed_latents(baseline, COLUMNS, seed=1)
        self.judged = fixed_latents(baseline, JUDGED)
        self.judged_per_class = JUDGED
        self.verdicts = {r: judge_samples(baseline, j, self.judged) for r, j in judges.items()}
        self.reset()

    def reset(self) -> None:
        """Back to the baseline and to the first settings."""
        with LOCK:
            self.classes, self.config = self.start
            self.model = self.baseline
            self.chain: tuple[tuple[tuple[int, ...], AmnesiaConfig], ...] = ()
            self.result: AmnesiaResult | None = None
            self.lines: list[Line] = []

    def change(self, **values: Any) -> None:
        """Change fields of the configuration; ValueError as the configuration itself says."""
        with LOCK:
            self.config = replace(self.config, **values)

    def choose(self, classes: tuple[int, ...]) -> None:
        """Choose the classes of the next run; ValueError when there is none or none is kept."""
        with LOCK:
            self.classes = check_classes(classes, self.baseline.num_classes)

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes forgotten so far."""
        return tuple(sorted({c for classes, _ in self.chain for c in classes}))

    def forget(
        self,
        stop: threading.Event,
        show: Callable[[Frame], None] = lambda frame: None,
        another: bool = False,
    ) -> None:
        """Forget the chosen classes with the present settings.

        another: go on from the present model, where what was forgotten stays forgotten, and not
        from the baseline.  stop: once set, the run ends and its model so far is taken.
        show: called with a frame about twice a second.
        Raises ValueError when a setting does not fit, naming it; the model then stays as it was.
        """
        with LOCK:
            classes, config = self.classes, self.config
            model, chain = (self.model, self.chain) if another else (self.baseline, ())
            earlier = self.gone if another else ()
        if set(classes) & set(earlier):
            raise ValueError(f"class {classes} is forgotten already (so far {earlier})")
        gone = check_classes((*earlier, *classes), model.num_classes)
        kept = next(c for c in range(model.num_classes) if c not in gone)
        part = [self._rows(values, classes[0], kept) for values in vars(self.shown).values()]
        run = _Run(stop, show, Latents(*part), (classes[0], kept), config.tolerance)
        begin = time.perf_counter()
        with watched(run.tell):
            fisher = self.fishers.without(gone)
            result = forget(model, fisher, classes, config, on_step=run.on_step)
        result = replace(result, forgotten=gone, seconds=time.perf_counter() - begin)
        with LOCK:
            self.model, self.result, self.chain = result.model, result, (*chain, (classes, config))
            self.lines = []

    def judge(self) -> None:
        """Let the judges look at the last result: fills `lines`."""
        with LOCK:
            result = self.result
        if result is not None:
            lines = [self._line(role, result) for role in self.judges]
            with LOCK:
                self.lines = lines

    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images before and now at the same z, and their labels, sorted."""
        with LOCK:
            model = self.model
        return (
            draw_images(self.baseline, self.shown), draw_images(model, self.shown),
            self.shown.labels,
        )  # fmt: skip

    def save(self, replace_it: bool = False) -> Path:
        """Keep the last result in checkpoints/, `vae_forget_3.pt` for the defaults.

        Another configuration has its fingerprint in the name; one class after the other, or a run
        that was stopped, is named so, and is never taken for a finished run.
        Raises ValueError without a result and FileExistsError naming a file that is there already.
        """
        with LOCK:
            result, chain = self.result, self.chain
        if result is None:
            raise ValueError("there is nothing to save yet: press Forget first")
        configs = (*self.made_with, *(config for _, config in chain))
        stem = "vae_forget_" + "-then-".join("-".join(map(str, c)) for c, _ in chain)
        stem += f"-stopped-{result.steps}" if result.reason == "stopped" else ""
        path = checkpoint_path(stem, *configs)
        if path.exists() and not replace_it:
            raise FileExistsError(f"{path.name} is there already: save again to replace it")
        save(path, result.to_state(), fingerprint(*configs))
        return path

    def code(self) -> str:
        """A line of code that makes the present result again, or the one that Forget would make."""
        with LOCK:
            chain = self.chain or ((self.classes, self.config),)
            stopped = self.result is not None and self.result.reason == "stopped"
        call, gone = "baseline", set[int]()
        for classes, config in chain:
            gone |= set(classes)
            without = f"fishers.without({tuple(sorted(gone))})"
            call = f"sa.forget({call}.model, {without}, {classes}, {as_code(config)})"
        return f"result = {call}" + ("  # but it was stopped early" if stopped else "")

    @staticmethod
    def _rows(values: Tensor, *classes: int) -> Tensor:
        """The part of values (C * COLUMNS, ...) that belongs to these classes, in this order."""
        return torch.cat([values[c * COLUMNS : (c + 1) * COLUMNS] for c in classes])

    def _line(self, role: str, result: AmnesiaResult) -> Line:
        judge, before = self.judges[role], self.verdicts[role]
        after = judge_samples(result.model, judge, self.judged)
        change = collateral(before, after, result.forgotten)
        gone = list(result.forgotten)

        def worst(table: Tensor) -> float:
            return float(table.diagonal()[gone].max())

        own = torch.isin(self.judged.labels, torch.tensor(gone, device=self.baseline.device))
        stretched = judge_samples(result.model, judge, self.judged.where(own), stretch=True)
        return Line(
            role, worst(before.probability), worst(after.probability), worst(after.argmax),
            worst(stretched.argmax), change.mean_before, change.mean_after, change.worst_drop,
            change.worst_class,
        )  # fmt: skip
