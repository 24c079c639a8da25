"""A training that was interrupted goes on from its last complete pass, to the same bits."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .files import CheckpointError, load, save

History = dict[str, list[float]]


class Resume:
    """All that a training run knows between two passes, kept in a part file.

    path: None keeps nothing.  mark: what the run is, in words: configuration, data, number of
    passes.  A part file of another run, or a damaged one, is not used, with a warning.
    Nothing that goes wrong here ends a training.
    """

    def __init__(
        self,
        path: Path | None,
        mark: str,
        generator: torch.Generator,
        **parts: nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.path, self.mark, self.generator, self.parts = path, mark, generator, parts

    def load(self) -> History:
        """Put back the state of the last complete pass; returns the curves so far, or none."""
        if self.path is None or not self.path.exists():
            return {}
        fresh = {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}
        try:
            state, found = load(self.path)
            if found != {"run": self.mark}:
                raise CheckpointError(f"{self.path} was left by another run")
            history: History = {str(k): [float(v) for v in c] for k, c in state["history"].items()}
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.generator.set_state(state["generator"])
        except (CheckpointError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            for name, part in self.parts.items():
                part.load_state_dict(fresh[name])
            warnings.warn(f"Training starts afresh: {error}", stacklevel=3)
            return {}
        return history

    def save(self, history: History) -> None:
        """Keep the state after a pass."""
        if self.path is None:
            return
        state: dict[str, Any] = {k: dict(part.state_dict()) for k, part in self.parts.items()}
        state |= {"generator": self.generator.get_state(), "history": history}
        try:
            save(self.path, state, {"run": self.mark}, durable=False)
        except CheckpointError as error:
            warnings.warn(f"Training goes on, but could not be resumed: {error}", stacklevel=3)
            self.path = None
