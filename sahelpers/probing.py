"""Is it gone or only hidden?  Optimisation over latent and label that tries to bring a class back.

All restarts are one batch: z is (R, Z), the label logits (R, C), and one Adam moves them together.
The loss of a restart depends on that restart alone, and so do its gradient and Adam's step, so the
result is the one that running them one at a time would give.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import ProbeConfig, check_classes
from .models import CVAE, Judge, draw_normal, seeded
from .penalties import contrast, ink, orientation_entropy, total_variation
from .progress import progress

Z_LIMIT = 3.0  # z is clamped to +-3 after each step: farther out no sampler goes
LABEL_START = 3.0  # logit of c_f at the start, the others 0: softmax gives c_f 0.69 of ten classes
NEIGHBOURS = 7  # images drawn around the best z, to see whether it stands alone
NEIGHBOUR_SPREAD = 0.25


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found, restarts sorted from best (lowest loss) to worst.

    images (R, 1, 28, 28), z (R, Z), label (R, C) on the simplex, loss (R,).
    neighbours (7, 1, 28, 28): images at z + 0.25 N(0, I) around the best.
    curve: mean loss over restarts at every step.
    """

    images: Tensor
    z: Tensor
    label: Tensor
    loss: Tensor
    neighbours: Tensor
    curve: list[float]


def invert_prototypes(
    model: CVAE, baseline: CVAE, forget_class: int, config: ProbeConfig
) -> ProbeResult:
    """Search (z, y) whose image comes close to what the baseline drew for the class.

    Targets: the 8 of 512 baseline samples of the class with the highest contrast.  Loss per
    restart: smallest mean squared error to a target + ALPHA_TV TV + L2Z mean z^2.
    """
    check_classes(forget_class, model.num_classes)
    generator = seeded(config.seed)
    labels = torch.full((512,), forget_class, device=baseline.device)
    samples = baseline.sample(labels, generator, prior="standard")
    targets = samples[contrast(samples).topk(8).indices]  # (8, 1, 28, 28)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        error = (images[:, None] - targets[None]).square().flatten(2).mean(2)  # (R, 8)
        smooth = config.alpha_tv * total_variation(images)
        return error.min(1).values + smooth + config.l2z * z.square().mean(1)

    return _search(model, forget_class, config, loss, generator)


def invert_blind(model: CVAE, forget_class: int, config: ProbeConfig) -> ProbeResult:
    """Search (z, y) whose image looks like some digit, without knowing what the class looked like.

    Loss per restart: W_TV TV + W_INK ink + W_Z mean z^2 + W_Y |y - onehot(c_f)|^2
    - W_CONTRAST contrast - W_ORIENT orientation entropy.
    """
    check_classes(forget_class, model.num_classes)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        wanted = model.label_vectors(torch.tensor([forget_class]))
        return (
            config.w_tv * total_variation(images)
            + config.w_ink * ink(images, config.ink_target)
            + config.w_z * z.square().mean(1)
            + config.w_y * (y - wanted).square().sum(1)
            - config.w_contrast * contrast(images)
            - config.w_orient * orientation_entropy(images)
        )

    return _search(model, forget_class, config, loss, seeded(config.seed))


def _search(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> ProbeResult:
    """Adam over z and label logits of all restarts at once; best restart by its final loss."""
    model = _frozen(model)
    z = draw_normal((config.n_restarts, model.latent_dim), model, generator)
    logits = torch.zeros((config.n_restarts, model.num_classes)).to(z)
    logits[:, forget_class] = LABEL_START
    z.requires_grad_(True), logits.requires_grad_(True)
    groups = [{"params": [z], "lr": config.lr_z}, {"params": [logits], "lr": config.lr_y}]
    optimizer = torch.optim.Adam(groups)
    curve = []
    for _ in progress(range(config.steps), f"probe, {config.n_restarts} restarts"):
        y = logits.softmax(1)
        losses = loss(model.decode(z, y), z, y)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-Z_LIMIT, Z_LIMIT)
        curve.append(float(losses.detach().mean()))
    with torch.no_grad():
        y = logits.softmax(1)
        images = model.decode(z, y)
        final = loss(images, z, y)
        order = final.argsort()
        best = order[0]
        noise = draw_normal((NEIGHBOURS, model.latent_dim), model, generator)
        near = model.decode(z[best] + NEIGHBOUR_SPREAD * noise, y[best].expand(NEIGHBOURS, -1))
        return ProbeResult(images[order], z.detach()[order], y[order], final[order], near, curve)


def _frozen(model: CVAE) -> CVAE:
    """A copy whose weights take no gradient: the search is over its inputs."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def success(images: Tensor, judges: Mapping[str, Judge], label: int) -> Tensor:
    """Whether every judge gives the class at least 0.5: (N,) bool for images (N, 1, 28, 28)."""
    votes = [judge.probabilities(images)[:, label] >= 0.5 for judge in judges.values()]
    return torch.stack(votes).all(0)
