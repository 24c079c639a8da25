"""One cell of the scoreboard: forget one class with one method and measure it, on any machine."""

import math
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .amnesia import AmnesiaResult
from .checkpoints import load_or_make
from .competitors import CONTROL, Task
from .config import AmnesiaConfig, BaselineConfig, FisherConfig, JudgeConfig, fingerprint
from .data import LabelledImages, load_dataset
from .judges import Judge
from .measures import (
    ATTACKS,
    BOUNDS,
    JUDGED,
    Effort,
    Ground,
    attacked,
    bounded,
    compared,
    forget_baselines,
    judged,
    survey,
)
from .story import get_baseline, get_fishers, get_judges
from .training import TrainedCVAE

KEY = ["method", "class", "seed", "dataset", "arch", "fingerprint"]
COST = ["steps", "seconds", "real_images", "reason"]
REAL = ["frechet_before", "frechet_after", "elbo_kept_change", "elbo_forgotten_change"]
ABOUT = ["cell_seconds", "peak_mb", "version", "machine", "error"]
COLUMNS = [*KEY, *JUDGED, *REAL, *COST, *BOUNDS, *ATTACKS, *ABOUT]


@dataclass(frozen=True)
class Cell:
    """All that a worker needs to know; small, for it is sent to other machines."""

    method: str
    function: Callable[[Task], AmnesiaResult]
    label: int
    base: BaselineConfig
    amnesia: AmnesiaConfig
    judge: JudgeConfig
    effort: Effort
    dear: bool  # with the importance-weighted bound, the guided attack and relearning
    device: str

    @property
    def columns(self) -> list[str]:
        """The columns of the table that its row fills, whatever comes out."""
        always = [*JUDGED, *REAL, *COST]
        return [*always, *BOUNDS, *ATTACKS] if self.dear else always

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the cell in the table, in the order of KEY."""
        base = self.base
        usual = JudgeConfig(dataset=base.dataset, num_classes=base.num_classes), Effort()
        other = [c for c, u in zip((self.judge, self.effort), usual, strict=True) if c != u]
        mark = fingerprint(base, self.amnesia, *other)
        return self.method, str(self.label), str(base.seed), base.dataset, base.arch, mark


def compute(cell: Cell) -> dict[str, Any]:
    """The cell's row; if anything fails, one that says what."""
    begin = time.perf_counter()
    _reset_peak()
    row: dict[str, Any] = dict(zip(KEY, cell.key, strict=True))
    try:
        row |= _measure(cell)
    except Exception as error:  # a cell that fails must not take the others with it
        row["error"] = say(error)
    row |= {"cell_seconds": time.perf_counter() - begin, "peak_mb": _peak_megabytes()}
    return row | {"version": _version(), "machine": _machine()}


def prepare(cell: Cell) -> None:
    """Make the checkpoints that cells share: judges, baseline, Fishers."""
    train, _, _ = materials(cell.judge, cell.device)
    if cell.dear:
        get_judges(cell.judge, train, ["guide"])
    get_fishers(get_baseline(cell.base, train), cell.base, FisherConfig(), train)


def say(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def forget_shared() -> None:
    """Drop what this process holds for its next cell."""
    materials.cache_clear()
    _ground.cache_clear()
    forget_baselines()


@lru_cache(maxsize=1)
def materials(
    judge: JudgeConfig, device: str
) -> tuple[LabelledImages, LabelledImages, dict[str, Judge]]:
    """Training images, test images and scoring judges: read once in the life of a worker."""
    train = load_dataset(judge.dataset).to(device)
    test = load_dataset(judge.dataset, "test").to(device)
    return train, test, get_judges(judge, train)


@lru_cache(maxsize=1)
def _ground(
    base: BaselineConfig, amnesia: AmnesiaConfig, judge: JudgeConfig, effort: Effort, device: str
) -> Ground:
    train, test, judges = materials(judge, device)
    baseline = get_baseline(base, train)
    fishers = get_fishers(baseline, base, FisherConfig(), train)
    return survey(test, judges, Task(baseline.model, (), fishers, train, base, amnesia), effort)


def _measure(cell: Cell) -> dict[str, Any]:
    """Forget, then measure."""
    ground = _ground(cell.base, cell.amnesia, cell.judge, cell.effort, cell.device)
    # one thread's processor time does not depend on what else the machine does
    clock = time.process_time if cell.device == "cpu" else time.perf_counter
    begin = clock()
    result = cell.function(replace(ground.task, forgotten=(cell.label,)))
    row: dict[str, Any] = {
        "seconds": clock() - begin,
        "steps": result.steps,
        "real_images": result.real_images,
        "reason": result.reason,
    }
    model, label, control = result.model, cell.label, cell.method == CONTROL
    if control:  # the audit attacks the same model
        config, made = replace(cell.base, exclude=(label,)), TrainedCVAE(model, result.history)
        load_or_make(f"vae_without_{label}", (config,), lambda: made, TrainedCVAE)
    row |= judged(ground, model, label, knows_label=not control) | compared(ground, model, label)
    if cell.dear:
        guide = get_judges(cell.judge, ground.task.train, ["guide"])["guide"]
        row |= bounded(ground, model, label) | attacked(ground, model, label, guide)
    return row


def _reset_peak() -> None:
    """Let the process's memory mark begin anew (Linux)."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def _peak_megabytes() -> float:
    """The most memory that this process held since the mark was reset; nan where none is kept."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else math.nan


def _version() -> str:
    from . import __version__

    return f"{__version__} (torch {torch.__version__})"


def _machine() -> str:
    """Kind of processor and number of cores: what a reader needs to judge a time."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"
