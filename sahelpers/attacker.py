"""The attacker in the loop: labels of its own, under which the class can still be drawn."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import kept_classes
from .elbo import latent_cost
from .models import CVAE
from .surrogates import Surrogate

FITS = 16  # labels that are fitted side by side
IMAGES = 10  # that the frozen model draws of a class for each of them
LIFE = 200  # steps until a fit begins anew, with other images
RATES = (0.1, 0.05)  # of Adam, for z and for the weights of a label
FADED = 0.15  # gray levels, root mean square: an image this close to the surrogate is forgotten
LEAK = 1e-3  # slope of the loss of an image that costs enough: the attacker goes on from there


class Attacker:
    """Fits labels of its own to the forgotten classes while the model forgets them.

    Whoever wants a class back is not bound to the labels that there are: any weights can stand in
    the place of a label's in the decoder's first layer.  So FITS labels, and a z for each of the
    IMAGES images that the frozen model drew for them, descend the images' cost
    -log p(x | z, label) + |z|^2 / 2.  A fit begins with z = 0 and the weights of a kept label or
    the mean of all kept ones, and begins anew after LIFE steps, one fit after the other.  The loss
    is what the images lack of `push` nats above the price that the frozen model pays under their
    own label; what it had forgotten before is left alone.  One backward pass gives the gradient
    for the model, which raises the cost, and for the attacker, which lowers it again.
    """

    def __init__(
        self,
        frozen: CVAE,
        forget_class: Sequence[int],
        surrogate: Surrogate,
        weight: float,
        push: float,
        generator: torch.Generator,
    ) -> None:
        self.frozen, self.surrogate, self.generator = frozen, surrogate, generator
        self.weight, self.push = weight, push
        self.classes = torch.tensor(forget_class)
        self.kept = kept_classes(tuple(forget_class), frozen.num_classes)
        columns = frozen.label_columns()
        self.z = columns.new_zeros(FITS, IMAGES, frozen.latent_dim)
        self.labels = columns.new_zeros(FITS, columns.shape[1])
        pairs = zip((self.z, self.labels), RATES, strict=True)
        groups = [{"params": [values], "lr": rate} for values, rate in pairs]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.9))
        begun = [self._begin(fit, frozen) for fit in range(FITS)]
        self.images, self.allowed = (torch.stack(parts) for parts in zip(*begun, strict=True))
        self.steps = 0

    @torch.no_grad()
    def _begin(self, fit: int, model: CVAE) -> tuple[Tensor, Tensor]:
        """Set z, label and the optimiser's memory of one fit to their start; images of one class
        (IMAGES, *image_shape) and what they may cost, (IMAGES,) nats."""
        for state in self.optimizer.state.values():
            state["exp_avg"][fit] = state["exp_avg_sq"][fit] = 0
        one, other, chosen = torch.randint(2**31, (3,), generator=self.generator).tolist()
        starts = model.label_columns()[list(self.kept)]
        self.labels[fit] = starts.mean(0) if one % 2 else starts[other % len(starts)]
        self.z[fit] = 0
        own = self.classes[chosen % len(self.classes)].expand(IMAGES)
        z = self.frozen.draw_latents(own, generator=self.generator)
        images = self.frozen.decode(z, own)
        faded = (images - self.surrogate.mean(z)).flatten(1).square().mean(1).sqrt() < FADED
        z = self.frozen.encode(images, own)[0]
        price = latent_cost(self.frozen.decode_logits(z, own), z, images)
        return images, (price + self.push).masked_fill(faded, 0)

    def loss(self, model: CVAE) -> Tensor:
        """The weight times what the images lack, the mean in nats."""
        z = self.z.flatten(0, 1).requires_grad_(True)
        labels = self.labels.repeat_interleave(IMAGES, 0).requires_grad_(True)
        logits = model.decode_columns(z, labels)
        missing = self.allowed.flatten() - latent_cost(logits, z, self.images.flatten(0, 1))
        self._tried = z, labels, missing.detach()
        return self.weight * F.leaky_relu(missing, LEAK).mean()

    @torch.no_grad()
    def step(self, model: CVAE) -> None:
        """Lower the images' cost by what `loss` left in the gradients; the fit whose time has come
        begins anew in the model as it is now."""
        z, labels, missing = self._tried
        assert z.grad is not None, "call the loss's backward() first"
        assert labels.grad is not None
        # the loss falls where the cost rises, and less steeply where an image costs enough
        slope = -torch.where(missing > 0, 1.0, LEAK)[:, None]
        self.z.grad = (z.grad / slope).view_as(self.z)
        self.labels.grad = (labels.grad / slope).view(FITS, IMAGES, -1).sum(1)
        self.optimizer.step()
        self.steps += 1
        fit, turn = divmod(self.steps * FITS, LIFE)
        if turn < FITS:
            fit %= FITS
            self.images[fit], self.allowed[fit] = self._begin(fit, model)
