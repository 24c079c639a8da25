"""The healing in the loop: a shadow of the model is trained further while the model forgets.

Whoever owns a model can train it further with the classes that it kept, and what was only
suppressed comes back (Siddiqui et al. 2025, arXiv 2505.22310).  So the attacker in the loop does
not attack the model as it is, but a *shadow*: a copy that has been trained further with the
replayed images for a while.  What makes the class expensive in the shadow is learned by the model.
"""

import copy

import torch
from torch import Tensor

from .models import CVAE


class Shadow:
    """A copy of the model whose decoder is trained further with replayed images of kept classes.

    It begins anew as a copy of the model every `every` steps, and takes one step of Adam down the
    replay loss in each step between.  The gradient that raises the class's cost in the shadow is
    handed over to the model as it is.  That is its first-order part: nothing is differentiated
    through the healing.

    Args:
        model: The model that is forgetting.
        every: Steps after which the shadow is copied anew.
        rate: Learning rate of its Adam.
    """

    def __init__(self, model: CVAE, every: int, rate: float) -> None:
        self.every = every
        self.rate = rate
        self.steps = 0
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.model.decoder.requires_grad_(True)
        self._begin(model)

    def _begin(self, model: CVAE) -> None:
        """Begin anew at the model as it is, with an optimiser that remembers nothing."""
        self.model.load_state_dict(model.state_dict())
        self.model.zero_grad()
        weights = self.model.decoder.parameters()
        self.optimizer = torch.optim.Adam(weights, lr=self.rate, fused=True)

    @torch.no_grad()
    def hand_over(self, model: CVAE) -> None:
        """Add the gradients of the shadow's weights to those of the model's, and clear them.

        Args:
            model: The model that is forgetting, whose own gradients are there already.
        """
        pairs = zip(model.decoder.parameters(), self.model.decoder.parameters(), strict=True)
        for own, of_shadow in pairs:
            if of_shadow.grad is None:
                continue
            if own.grad is None:
                own.grad = torch.zeros_like(own)
            own.grad += of_shadow.grad
        self.optimizer.zero_grad()

    def heal(self, model: CVAE, replay: Tensor) -> None:
        """Train the shadow on by one step; every so many steps it begins anew at the model.

        Args:
            model: The model that is forgetting, after its own step.
            replay: The replay loss of the shadow, a tensor () with a graph to its weights.
        """
        self.optimizer.zero_grad()
        replay.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        if self.steps % self.every == 0:
            self._begin(model)
