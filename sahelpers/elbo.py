"""The bound on the log-likelihood that trains the VAE, and a tighter one to measure with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_images, check_tensor, check_whole, door
from .data import LabelledImages
from .models import CVAE, Rng, check_model, draw_normal, seeded

BATCH = 1000  # images that are measured at once


def bernoulli_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(x) of a Bernoulli decoder, summed over pixels: (..., C, H, W) -> (...,) in nats.

    targets: images in [0, 1] of the logits' shape, or one that expands to it.
    """
    targets = targets.expand_as(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.flatten(-3).sum(-1)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) || N(0, I)) in nats: (B, Z) -> (B,)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def latent_cost(logits: Tensor, z: Tensor, images: Tensor) -> Tensor:
    """-log p(x | z) + |z|^2 / 2 of each image (B,), nats: its price at this z (B, Z), which the
    decoder made these logits of."""
    return bernoulli_nats(logits, images) + z.square().sum(1) / 2


def elbo_terms(
    model: CVAE, images: Tensor, labels: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL terms of the negative ELBO, per image, with one draw of z.

    images: (B, C, H, W) float in [0, 1].  labels: (B,) int64 or (B, K) float.
    noise: (B, Z) standard normal; drawn from torch's global generator when left out.
    Returns (reconstruction, kl), each (B,), in nats; the caller sums or averages.
    """
    mean, log_var = (half.to(images.dtype) for half in model.encode(images, labels))  # autocast's
    noise = torch.randn_like(mean) if noise is None else noise
    check_tensor(noise, tuple(mean.shape), "noise", mean.device)
    z = mean + noise * (0.5 * log_var).exp()  # (B, Z)
    return bernoulli_nats(model.decode_logits(z, labels), images), gaussian_kl(mean, log_var)


def negative_elbo(
    model: CVAE, images: Tensor, labels: Tensor, noise: Tensor | None = None
) -> Tensor:
    """The training loss, -ELBO of each image (B,) in nats: the sum of both `elbo_terms`."""
    reconstruction, kl = elbo_terms(model, images, labels, noise)
    return reconstruction + kl


@door
@torch.no_grad()
def measure_elbo(model: CVAE, data: LabelledImages) -> Tensor:
    """Negative ELBO of every image (N,) in nats, one draw of z each: always the same ones."""
    noise = draw_normal((len(data), model.latent_dim), model, seeded(0))
    inputs = data.images.to(model.device), data.labels.to(model.device), noise
    parts = zip(*(values.split(BATCH) for values in inputs), strict=True)
    return torch.cat([negative_elbo(model, *part) for part in parts])


@torch.no_grad()
def iwae(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    k: int,
    proposal: tuple[Tensor, Tensor] | None = None,
    generator: Rng = None,
) -> Tensor:
    """Importance-weighted bound on log p(x | y) per image (B,), in nats (Burda et al. 2016).

    k: draws of z per image; the bound rises to the log-likelihood with k.
    proposal: mean and log-variance (B, Z) of the distribution z is drawn from; the model's own
    encoder when left out.
    """
    check_images(images, shape=model.image_shape)
    check_whole(k, "k")
    mean, log_var = model.encode(images, labels) if proposal is None else proposal
    noise = draw_normal((k, *mean.shape), model, generator)  # (K, B, Z)
    z = mean + noise * (0.5 * log_var).exp()
    log_ratio = 0.5 * (noise.square() + log_var - z.square()).sum(-1)  # log N(z;0,I) - log q(z)
    y = model.label_vectors(labels)
    log_px = torch.stack([-bernoulli_nats(model.decode_logits(draw, y), images) for draw in z])
    return (log_px + log_ratio).logsumexp(0) - math.log(k)


@door
def label_bounds(model: CVAE, images: Tensor, k: int = 50, seed: int = 0) -> Tensor:
    """The importance-weighted bound on log p(x | y) of every image under every label, (B, C) nats.

    Its argmax over the labels is the class the model takes the image for: a classifier that the
    model contains.  After forgetting it should not be c_f, whatever its images look like.
    """
    labels = torch.arange(model.num_classes, device=model.device)
    bounds = [iwae(model, images, y.expand(len(images)), k, generator=seeded(seed)) for y in labels]
    return torch.stack(bounds, dim=1)


@door
@torch.enable_grad()
def log_likelihood(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    k: int = 500,
    others: tuple[CVAE, ...] = (),
    generator: Rng = None,
) -> Tensor:
    """The tightest of several importance-weighted bounds on log p(x | y) per image (B,), in nats.

    z is proposed by the model's own encoder, by the encoder of each of `others` (a model that has
    lost its encoder is still measured fairly), and by a Gaussian optimised for each image starting
    from the best of those.  The proposal with the highest mean bound is returned.
    """
    for j, other in enumerate(others):
        check_model(other, f"others[{j}]", model.num_classes)
        if other.latent_dim != model.latent_dim:
            theirs, ours = other.latent_dim, model.latent_dim
            raise ValueError(f"others[{j}] has latent_dim={theirs}, the model {ours}")
    proposals = [m.encode(images, labels) for m in (model, *others)]
    bounds = [iwae(model, images, labels, k, p, generator) for p in proposals]
    best = max(range(len(bounds)), key=lambda i: float(bounds[i].mean()))
    mean, log_var = (start.detach().clone().requires_grad_(True) for start in proposals[best])
    optimizer = torch.optim.Adam([mean, log_var], lr=0.05)
    for _ in range(100):  # up each image's own ELBO
        noise = draw_normal(tuple(mean.shape), model, generator)
        logits = model.decode_logits(mean + noise * (0.5 * log_var).exp(), labels)
        loss = bernoulli_nats(logits, images).sum() + gaussian_kl(mean, log_var).sum()
        mean.grad, log_var.grad = torch.autograd.grad(loss, [mean, log_var])
        optimizer.step()
    bounds.append(iwae(model, images, labels, k, (mean, log_var), generator))
    return max(bounds, key=lambda b: float(b.mean()))
