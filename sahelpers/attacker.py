"""The attacker in the loop: where the class can still be drawn while the model forgets it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import kept_classes
from .elbo import latent_cost
from .models import CVAE

IMAGES = 512  # that the frozen model draws of the forgotten classes
NEAREST = 3  # kept labels that each image is tried under: those where it is cheapest at first
RATE = 0.01  # of the attacker's gradient descent over z, per nat
REACH = 0.5  # the farthest that a coordinate of z moves in a step
LEAK = 1e-3  # slope of the loss of an image that costs enough: the attacker goes on from there


class Attacker:
    """Looks for the forgotten classes under the labels that are kept.

    A model that hides a class draws its images under other labels, at a z where samplers go.  So
    images that the frozen model draws of the class are each given some kept labels k, and a z that
    descends their cost, -log p(x | z, k) + |z|^2 / 2.  The loss is what they lack of `push` nats
    above the price that the frozen model pays under their own label.  One backward pass gives the
    gradient for the weights, which raise the cost, and for z, which lowers it again.
    """

    @torch.no_grad()
    def __init__(
        self,
        frozen: CVAE,
        forget_class: Sequence[int],
        weight: float,
        push: float,
        generator: torch.Generator,
    ) -> None:
        self.weight = weight
        classes = torch.tensor(forget_class)
        own = classes[torch.randint(len(classes), (IMAGES,), generator=generator)]
        images = frozen.decode(frozen.draw_latents(own, generator=generator), own)
        kept = torch.tensor(kept_classes(tuple(forget_class), frozen.num_classes))
        allowed = push + latent_cost(frozen, frozen.encode(images, own)[0], own, images)
        many, k = images.repeat_interleave(len(kept), 0), kept.repeat(IMAGES)
        z = frozen.encode(many, k)[0]
        costs = latent_cost(frozen, z, k, many).view(IMAGES, -1)
        rank = costs.topk(min(NEAREST, len(kept)), largest=False).indices.cpu()
        chosen = (torch.arange(IMAGES)[:, None] * len(kept) + rank).flatten()
        self.images, self.labels, self.z = many[chosen], k[chosen], z[chosen]
        self.allowed = allowed.repeat_interleave(rank.shape[1])
        self._tried: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.z)

    def loss(self, model: CVAE, index: Tensor) -> Tensor:
        """The weight times what the images of this index (B,) lack, the mean in nats."""
        z = self.z[index].requires_grad_(True)
        cost = latent_cost(model, z, self.labels[index], self.images[index])
        missing = self.allowed[index] - cost
        self._tried = index, z, missing.detach()
        return self.weight * F.leaky_relu(missing, LEAK).mean()

    @torch.no_grad()
    def step(self) -> None:
        """Move the z last tried down their images' cost, by what `loss` left in their gradient."""
        if self._tried is None:
            return
        (index, z, missing), self._tried = self._tried, None
        assert z.grad is not None, "call the loss's backward() first"
        slope = torch.where(missing > 0, 1.0, LEAK) * (self.weight / len(index))
        move = (RATE / slope)[:, None] * z.grad  # the loss falls where the cost rises
        self.z[index] = z.detach() + move.clamp(-REACH, REACH)
