"""The attacker in the loop: it fits labels of its own, under which the class can still be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import kept_classes
from .elbo import latent_cost
from .models import CVAE
from .surrogates import Surrogate

FITS = 16  # labels that are fitted side by side
IMAGES_PER_FIT = 10  # drawn by the frozen model, all of one forgotten class
STEPS_PER_FIT = 200  # after so many steps a fit begins anew, with other images
Z_RATE = 0.1  # learning rate of the attacker's Adam for z
LABEL_RATE = 0.05  # and for the weights of the labels
FORGOTTEN_BEFORE = 0.15  # gray levels (root mean square) from the surrogate: forgotten already
CHANGE = 0.2  # of the weight, at most, when it follows the budget
LEAK = 1e-3  # slope of the loss for an image that costs enough, so that a gradient is left


@dataclass(frozen=True)
class _Pass:
    """What one evaluation of the loss leaves for the attacker's step.

    Attributes:
        z: (FITS * IMAGES_PER_FIT, Z), a leaf of the graph; its gradient comes by `backward()`.
        labels: (FITS * IMAGES_PER_FIT, H), the same.
        missing: (FITS * IMAGES_PER_FIT,) nats that each image costs less than it should.
    """

    z: Tensor
    labels: Tensor
    missing: Tensor


class Attacker:
    """Fits labels of its own to the forgotten classes while the model forgets them.

    Somebody who wants a class back is not bound to the labels that there are: any numbers can
    stand in the place of a label's weights in the decoder's first layer.  The attacker therefore
    keeps FITS such labels, and for each of them IMAGES_PER_FIT images that the frozen model drew
    of a forgotten class, with one z per image.  It moves labels and z down the images' cost
    -log p(x | z, label) + |z|^2 / 2.

    A fit begins at z = 0 and at the weights of a kept label or the mean of all kept ones.  After
    STEPS_PER_FIT steps it begins anew with other images; the fits take turns.  Some fits may keep
    their label and move z alone: the class shall be expensive under labels that are there, too.

    An image shall cost `push` nats more than it costs the frozen model under its own label.  The
    loss is what the images' costs fall short of that.  An image that already looks like the
    surrogate, because its class was forgotten before, may cost anything.  One backward pass gives
    both gradients: the model raises the cost, and the attacker lowers it again.

    How much kept images pay for an attack differs from class to class.  So its weight may follow a
    budget (`follow`), like the weight of a penalty that holds a Kullback-Leibler divergence at a
    target (Schulman et al. 2017, arXiv 1707.06347; Ziegler et al. 2019, arXiv 1909.08593).

    Args:
        frozen: The model before it forgets.
        forget_class: The classes to forget, at least one.
        surrogate: What these classes become.
        weight: Weight of the loss, and the largest that it may become.
        push: Nats by which the images shall cost more than before.
        generator: Of the choice of labels and classes, and of the images' noise.
        z_fits: Of the FITS, how many keep their label.
    """

    def __init__(
        self,
        frozen: CVAE,
        forget_class: Sequence[int],
        surrogate: Surrogate,
        weight: float,
        push: float,
        generator: torch.Generator,
        z_fits: int = 0,
    ) -> None:
        self.frozen = frozen
        self.surrogate = surrogate
        self.generator = generator
        self.weight = weight
        self.largest = weight
        self.push = push
        self.z_fits = z_fits
        self.classes = torch.tensor(forget_class)
        self.kept = kept_classes(tuple(forget_class), frozen.num_classes)
        self.steps = 0
        self.last_pass: _Pass | None = None

        columns = frozen.label_columns()  # (K, H)
        self.z = columns.new_zeros(FITS, IMAGES_PER_FIT, frozen.latent_dim)
        self.labels = columns.new_zeros(FITS, columns.shape[1])
        self.optimizer = torch.optim.Adam(
            [
                {"params": [self.z], "lr": Z_RATE},
                {"params": [self.labels], "lr": LABEL_RATE},
            ],
            betas=(0.9, 0.9),
        )
        images = []
        allowed = []
        for fit in range(FITS):
            images_of_fit, allowed_of_fit = self._begin_fit(fit, frozen)
            images.append(images_of_fit)
            allowed.append(allowed_of_fit)
        self.images = torch.stack(images)  # (FITS, IMAGES_PER_FIT, *image_shape)
        self.allowed = torch.stack(allowed)  # (FITS, IMAGES_PER_FIT) nats: what they shall cost

    @torch.no_grad()
    def _begin_fit(self, fit: int, model: CVAE) -> tuple[Tensor, Tensor]:
        """Set z and label of one fit to their start and forget the optimiser's memory of it.

        Args:
            fit: Number of the fit.
            model: The model whose kept labels the fit may begin at.

        Returns:
            Images of one forgotten class (IMAGES_PER_FIT, *image_shape), and what each of them
            shall cost, (IMAGES_PER_FIT,) nats.
        """
        for state in self.optimizer.state.values():
            state["exp_avg"][fit] = 0
            state["exp_avg_sq"][fit] = 0
        numbers = torch.randint(2**31, (3,), generator=self.generator).tolist()
        at_the_mean, which_label, which_class = numbers

        kept_columns = model.label_columns()[list(self.kept)]
        if at_the_mean % 2:
            self.labels[fit] = kept_columns.mean(0)
        else:
            self.labels[fit] = kept_columns[which_label % len(kept_columns)]
        self.z[fit] = 0

        own = self.classes[which_class % len(self.classes)].expand(IMAGES_PER_FIT)
        z = self.frozen.draw_latents(own, generator=self.generator)
        images = self.frozen.decode(z, own)
        distance = (images - self.surrogate.mean(z)).flatten(1).square().mean(1).sqrt()

        z = self.frozen.encode(images, own)[0]
        cost = latent_cost(self.frozen.decode_logits(z, own), z, images)
        allowed = (cost + self.push).masked_fill(distance < FORGOTTEN_BEFORE, 0)
        return images, allowed

    def loss(self, model: CVAE) -> Tensor:
        """The attacker's term of the loss: what the images lack of what they shall cost.

        Args:
            model: The model that is forgetting.

        Returns:
            The weight times the mean over all images, nats, with a graph to the model's weights.
        """
        z = self.z.flatten(0, 1).requires_grad_(True)
        labels = self.labels.repeat_interleave(IMAGES_PER_FIT, 0).requires_grad_(True)
        logits = model.decode_columns(z, labels)
        missing = self.allowed.flatten() - latent_cost(logits, z, self.images.flatten(0, 1))
        self.last_pass = _Pass(z, labels, missing.detach())
        return self.weight * F.leaky_relu(missing, LEAK).mean()

    def follow(self, paid: float, allowed: float) -> None:
        """Let the weight follow a budget: it rises while kept images pay less, and else falls.

        Args:
            paid: Nats that a kept image pays by now.
            allowed: Nats that it may pay by now, more than 0.
        """
        room = (allowed - paid) / allowed
        self.weight *= 1 + min(max(room, -CHANGE), CHANGE)
        self.weight = min(self.weight, self.largest)

    @torch.no_grad()
    def step(self, model: CVAE) -> None:
        """The attacker's turn: lower the images' cost by the gradients that the loss left.

        Every STEPS_PER_FIT / FITS steps the next fit begins anew.

        Args:
            model: The model as it is now, whose kept labels a fit begins at.
        """
        assert self.last_pass is not None, "call loss() and its backward() first"
        z, labels, missing = self.last_pass.z, self.last_pass.labels, self.last_pass.missing
        assert z.grad is not None, "call the loss's backward() first"
        assert labels.grad is not None, "call the loss's backward() first"
        # The gradients are those of the loss, which falls where the cost rises, and less steeply
        # for an image that costs enough.  Divided by that slope they are the cost's own, up
        # to the weight and the number of images, on which Adam's step hardly depends.
        slope = -torch.where(missing > 0, 1.0, LEAK)[:, None]
        self.z.grad = (z.grad / slope).view_as(self.z)
        self.labels.grad = (labels.grad / slope).view(FITS, IMAGES_PER_FIT, -1).sum(1)
        self.labels.grad[: self.z_fits] = 0
        self.optimizer.step()

        begun_before = self.steps * FITS // STEPS_PER_FIT
        self.steps += 1
        begun = self.steps * FITS // STEPS_PER_FIT
        if begun > begun_before:
            fit = begun % FITS
            self.images[fit], self.allowed[fit] = self._begin_fit(fit, model)
