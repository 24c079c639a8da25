"""The bound on the log-likelihood that trains the VAE, and a tighter one to measure with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_images, check_is, check_same_length, check_tensor, check_whole
from .models import CVAE, check_model, draw_normal


def bernoulli_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(x) of a Bernoulli decoder, summed over pixels: (..., 1, 28, 28) -> (...,) in nats."""
    check_is(targets, Tensor, "targets")
    try:
        targets = targets.expand_as(logits)
    except RuntimeError:
        shape = tuple(targets.shape)
        raise ValueError(f"targets of shape {shape} must be {tuple(logits.shape)}") from None
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.flatten(-3).sum(-1)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) || N(0, I)) in nats: (B, Z) -> (B,)."""
    check_tensor(mean, ("B", "Z"), "mean")
    check_tensor(log_var, tuple(mean.shape), "log_var", mean.device)
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def elbo_terms(
    model: CVAE, images: Tensor, labels: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL terms of the negative ELBO, per image, with one draw of z.

    images: (B, 1, 28, 28) float in [0, 1].  labels: (B,) int64 or (B, C) float.
    noise: (B, Z) standard normal; drawn from torch's global generator when left out.
    Returns (reconstruction, kl), each (B,), in nats; the caller sums or averages.
    """
    mean, log_var = (half.to(images.dtype) for half in model.encode(images, labels))  # autocast's
    noise = torch.randn_like(mean) if noise is None else noise
    check_tensor(noise, tuple(mean.shape), "noise", mean.device)
    z = mean + noise * (0.5 * log_var).exp()  # (B, Z)
    return bernoulli_nats(model.decode_logits(z, labels), images), gaussian_kl(mean, log_var)


@torch.no_grad()
def negative_elbo(
    model: CVAE, images: Tensor, labels: Tensor, generator: torch.Generator, batch: int = 1000
) -> Tensor:
    """Negative ELBO per image (N,) in nats, one draw of z each, batch by batch."""
    _check(model, images, labels)
    check_whole(batch, "batch")
    noise = draw_normal((len(images), model.latent_dim), model, generator)
    parts = zip(images.split(batch), labels.split(batch), noise.split(batch), strict=True)
    return torch.cat([sum(elbo_terms(model, *part), torch.zeros(())) for part in parts])


@torch.no_grad()
def iwae(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    k: int,
    generator: torch.Generator,
    proposal: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Importance-weighted bound on log p(x | y) per image (B,), in nats (Burda et al. 2016).

    k: draws of z per image; the bound rises to the log-likelihood with k.
    proposal: mean and log-variance (B, Z) of the distribution z is drawn from; the model's own
    encoder when left out.
    """
    _check(model, images, labels)
    check_whole(k, "k")
    mean, log_var = model.encode(images, labels) if proposal is None else proposal
    for value in (mean, log_var):
        check_tensor(value, (len(images), model.latent_dim), "proposal", model.device)
    noise = draw_normal((k, *mean.shape), model, generator)  # (K, B, Z)
    z = mean + noise * (0.5 * log_var).exp()
    log_ratio = 0.5 * (noise.square() + log_var - z.square()).sum(-1)  # log N(z;0,I) - log q(z)
    y = model.label_vectors(labels)
    log_px = torch.stack([-bernoulli_nats(model.decode_logits(draw, y), images) for draw in z])
    return (log_px + log_ratio).logsumexp(0) - math.log(k)


def log_likelihood(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    k: int = 500,
    others: tuple[CVAE, ...] = (),
) -> Tensor:
    """The tightest of several importance-weighted bounds on log p(x | y) per image (B,), in nats.

    z is proposed by the model's own encoder, by the encoder of each of `others` (a model that has
    lost its encoder is still measured fairly), and by a Gaussian optimised for each image starting
    from the best of those.  The proposal with the highest mean bound is returned.
    """
    _check(model, images, labels)
    for k_th, other in enumerate(others):
        check_model(other, f"others[{k_th}]", model.num_classes)
        if other.latent_dim != model.latent_dim:
            raise ValueError(
                f"others[{k_th}] has latent_dim={other.latent_dim}, the model {model.latent_dim}"
            )
    proposals = [m.encode(images, labels) for m in (model, *others)]
    bounds = [iwae(model, images, labels, k, generator, p).detach() for p in proposals]
    best = max(range(len(bounds)), key=lambda i: float(bounds[i].mean()))
    better = _optimise_proposal(model, images, labels, proposals[best], generator)
    bounds.append(iwae(model, images, labels, k, generator, better))
    return max(bounds, key=lambda b: float(b.mean()))


def _check(model: CVAE, images: Tensor, labels: Tensor) -> None:
    """Refuse a model or images with NaN, and lengths that differ."""
    check_model(model)
    check_images(images, device=model.device)
    check_is(labels, Tensor, "labels")
    check_same_length(images, labels, "images")


def _optimise_proposal(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    start: tuple[Tensor, Tensor],
    generator: torch.Generator,
    steps: int = 100,
) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (B, Z) of z that maximise each image's own ELBO."""
    mean, log_var = (s.detach().clone().requires_grad_(True) for s in start)
    optimizer = torch.optim.Adam([mean, log_var], lr=0.05)
    for _ in range(steps):
        noise = draw_normal(tuple(mean.shape), model, generator)
        logits = model.decode_logits(mean + noise * (0.5 * log_var).exp(), labels)
        loss = bernoulli_nats(logits, images).sum() + gaussian_kl(mean, log_var).sum()
        mean.grad, log_var.grad = torch.autograd.grad(loss, [mean, log_var])
        optimizer.step()
    return mean.detach(), log_var.detach()
