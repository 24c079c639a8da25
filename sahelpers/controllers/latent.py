"""Walking through the latent space: z along directions that matter, and labels that mix."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..checks import check_number, check_whole
from ..config import check_classes
from ..models import CVAE, check_model, draw_normal, seeded
from .worker import LOCK

REACH = 3.0  # a slider goes so far to both sides: N(0, 1) leaves it once in 370 draws
STEP = 0.01  # of the central differences
SAMPLES = 8  # latents per class at which the decoder's slope is taken


@torch.no_grad()
def principal_directions(model: CVAE, seed: int = 0) -> Tensor:
    """Orthonormal directions of z as columns (Z, Z), the one that changes the picture most first.

    Eigenvectors of the mean of J^T J, with J = d image / d z of the decoder (central differences)
    at samples of every class; each is signed so that its largest entry is positive.
    """
    check_model(model)
    labels = torch.arange(model.num_classes, device=model.device).repeat_interleave(SAMPLES)
    z = model.draw_latents(labels, seeded(seed))
    steps = STEP * torch.eye(model.latent_dim).to(z)
    slopes = [model.decode(z + h, labels) - model.decode(z - h, labels) for h in steps]
    jacobian = torch.stack(slopes).flatten(1).cpu().double()  # (Z, B * P), times 2 STEP
    metric = jacobian @ jacobian.T
    directions = torch.linalg.eigh(metric).eigenvectors.flip(1)  # eigh sorts from the smallest
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    signed: Tensor = directions * largest.sign()
    return signed.to(z)


class LatentController:
    """A point z and a soft label, and what the models draw there.

    models: name -> model, all of the same latent space; directions are the first one's.
    State: `position` (Z,), the coordinates of z along the directions, in units of the prior's
    standard deviation; `first`, `second` and `mix`: the label is (1 - mix) first + mix second.
    """

    def __init__(self, models: Mapping[str, CVAE], first: int = 3, second: int = 8) -> None:
        if not models:
            raise ValueError("models is empty: give at least one, such as {'before': model}")
        self.models = dict(models)
        for name, model in self.models.items():
            check_model(model, f"models[{name!r}]")
        shapes = {n: (m.latent_dim, m.num_classes) for n, m in self.models.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"models differ in (latent_dim, num_classes): {shapes}")
        self.model = next(iter(self.models.values()))
        self.directions = principal_directions(self.model)
        self.position = torch.zeros(self.model.latent_dim)
        self.choose(first, second, 0.0)

    def move(self, index: int, value: float) -> None:
        """Set one coordinate, in standard deviations from -3 to 3."""
        check_whole(index, "index", 0, len(self.position) - 1)
        check_number(value, "value", -REACH, REACH)
        with LOCK:
            self.position[index] = value

    def choose(self, first: int, second: int, mix: float) -> None:
        """Set the label: (1 - mix) of the first class and mix of the second, mix from 0 to 1."""
        check_classes((first,), self.model.num_classes)
        check_classes((second,), self.model.num_classes)
        check_number(mix, "mix", 0, 1)
        with LOCK:
            self.first, self.second, self.mix = first, second, mix

    def centre(self) -> None:
        """Go to z = 0, the mean of the prior."""
        with LOCK:
            self.position.zero_()

    def draw(self, seed: int) -> None:
        """Go to a z drawn from N(0, I), within the sliders' reach."""
        with LOCK:
            noise = draw_normal((self.model.latent_dim,), self.model, seeded(seed))
            self.position = noise.clamp(-REACH, REACH).cpu()

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Per model: the image at z and the soft label (1, 1, 28, 28), and the images of every
        class at this z (C, 1, 28, 28)."""
        with LOCK:
            z = (self.directions @ self.position.to(self.directions))[None]
            soft = torch.zeros(1, self.model.num_classes).to(z)
            soft[0, self.first] += 1 - self.mix
            soft[0, self.second] += self.mix
        every = torch.arange(self.model.num_classes, device=z.device)
        return {
            name: (model.decode(z, soft), model.decode(z.expand(len(every), -1), every))
            for name, model in self.models.items()
        }
