"""The bound on the log-likelihood that trains the VAE, and a tighter one to measure with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_images, check_is, check_tensor, check_whole
from .data import LabelledImages
from .models import CVAE, Rng, check_model, draw_normal, evaluating, ordinary_torch, seeded

BATCH = 1000  # images that are measured at once
FIT_STEPS = 100  # of Adam, for a proposal that is fitted to each image
FIT_RATE = 0.05  # its learning rate


def bernoulli_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute -log p(x) of a Bernoulli decoder, summed over the pixels of each image.

    Args:
        logits: Logits of the pixels' probabilities, (..., C, H, W) float.
        targets: Images in [0, 1] of the logits' shape, or of one that expands to it.

    Returns:
        (...,) in nats.
    """
    targets = targets.expand_as(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.flatten(-3).sum(-1)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """Compute the divergence KL(N(mean, diag exp(log_var)) || N(0, I)) of each Gaussian.

    Args:
        mean: (B, Z) float.
        log_var: Logarithms of the variances, (B, Z) float.

    Returns:
        (B,) in nats.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def latent_cost(logits: Tensor, z: Tensor, images: Tensor) -> Tensor:
    """Compute what it costs the decoder to draw each image at its latent.

    The cost is -log p(x | z) + |z|^2 / 2: the image's own nats, and those of a z far from 0.

    Args:
        logits: What the decoder makes of z, (B, C, H, W) float.
        z: Latents (B, Z) float.
        images: (B, C, H, W) float in [0, 1].

    Returns:
        (B,) in nats.
    """
    return bernoulli_nats(logits, images) + z.square().sum(1) / 2


def elbo_terms(
    model: CVAE, images: Tensor, labels: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute both terms of the negative ELBO of each image, with one draw of z.

    Args:
        model: The model.
        images: (B, C, H, W) float in [0, 1].
        labels: Class numbers (B,) int64, or label vectors (B, K) float.
        noise: Standard normal noise (B, Z) for the draw of z; drawn from torch's global generator
            when left out.

    Returns:
        Reconstruction and KL, each (B,), in nats; the caller sums or averages.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A shape, a type, a device or a class number is wrong.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    mean, log_var = model.encode(images, labels)
    mean, log_var = mean.to(images.dtype), log_var.to(images.dtype)  # undo autocast
    noise = torch.randn_like(mean) if noise is None else noise
    check_tensor(noise, tuple(mean.shape), "noise", mean.device)
    z = mean + noise * (0.5 * log_var).exp()  # (B, Z)
    return bernoulli_nats(model.decode_logits(z, labels), images), gaussian_kl(mean, log_var)


def negative_elbo(
    model: CVAE, images: Tensor, labels: Tensor, noise: Tensor | None = None
) -> Tensor:
    """Compute the training loss of each image: the sum of both `elbo_terms`.

    Args:
        model: The model.
        images: (B, C, H, W) float in [0, 1].
        labels: Class numbers (B,) int64, or label vectors (B, K) float.
        noise: Standard normal noise (B, Z) for the draw of z; drawn from torch's global generator
            when left out.

    Returns:
        -ELBO of each image, (B,), in nats.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A shape, a type, a device or a class number is wrong.
    """
    reconstruction, kl = elbo_terms(model, images, labels, noise)
    return reconstruction + kl


@torch.no_grad()
def dataset_negative_elbo(model: CVAE, data: LabelledImages) -> Tensor:
    """Compute the negative ELBO of every image of a data set, with one draw of z each.

    The draws are the same ones each time, so that models can be compared.  The model rests in
    evaluation mode meanwhile, as in all measurements here.

    Args:
        model: The model.
        data: N images with their labels.

    Returns:
        -ELBO of each image, (N,), in nats, on the model's device.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A weight of the model is not finite, or the images have another shape.
    """
    check_model(model)
    check_is(data, LabelledImages, "data")
    noise = draw_normal((len(data), model.latent_dim), model, seeded(0))
    inputs = data.images.to(model.device), data.labels.to(model.device), noise
    parts = zip(*(values.split(BATCH) for values in inputs), strict=True)
    with evaluating(model):
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
    """Compute an importance-weighted bound on log p(x | y) of each image (Burda et al. 2016).

    Args:
        model: The model.
        images: (B, C, H, W) float in [0, 1].
        labels: Class numbers (B,) int64, or label vectors (B, K) float.
        k: Draws of z for each image; the bound rises to the log-likelihood with k.
        proposal: Mean and log-variance, each (B, Z), of the Gaussians that z is drawn from; those
            of the model's own encoder when left out.
        generator: The source of randomness; torch's global one when left out.

    Returns:
        The bound, (B,), in nats.
    """
    mean, log_var = model.encode(images, labels) if proposal is None else proposal
    noise = draw_normal((k, *mean.shape), model, generator)  # (k, B, Z)
    z = mean + noise * (0.5 * log_var).exp()
    log_ratio = 0.5 * (noise.square() + log_var - z.square()).sum(-1)  # log N(z;0,I) - log q(z)
    y = model.label_vectors(labels)
    log_px = torch.stack([-bernoulli_nats(model.decode_logits(draw, y), images) for draw in z])
    return (log_px + log_ratio).logsumexp(0) - math.log(k)


def label_bounds(model: CVAE, images: Tensor, k: int = 50, seed: int = 0) -> Tensor:
    """Compute the importance-weighted bound on log p(x | y) of every image under every label.

    The label with the highest bound is the class that the model takes the image for: a classifier
    that the model contains.  After forgetting it should not be the forgotten class, whatever its
    images look like.

    Args:
        model: The model.
        images: (B, *image_shape) float in [0, 1].
        k: Draws of z for each image and label; the bound rises to the log-likelihood with k.
        seed: Of the draws, which are the same ones under each label.

    Returns:
        The bounds, (B, K), in nats.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A weight of the model is not finite, the images have another shape or range, or
            k or seed is out of range.
    """
    check_model(model)
    check_images(images, device=model.device, shape=model.image_shape)
    k = check_whole(k, "k")
    labels = torch.arange(model.num_classes, device=model.device)
    with evaluating(model):
        bounds = [
            iwae(model, images, y.expand(len(images)), k, generator=seeded(seed)) for y in labels
        ]
    return torch.stack(bounds, dim=1)


@ordinary_torch()
def iwae_bound(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    k: int = 500,
    others: tuple[CVAE, ...] = (),
    generator: Rng = None,
) -> Tensor:
    """Compute the tightest of several importance-weighted bounds on log p(x | y) of each image.

    z is proposed by the model's own encoder, by the encoder of each of `others` (so that a model
    that has lost its encoder is still measured fairly), and by Gaussians that are fitted to each
    image, beginning with the best of those.  The proposal with the highest mean bound counts.

    Args:
        model: The model.
        images: (B, *image_shape) float in [0, 1].
        labels: Class numbers (B,) int64, or label vectors (B, K) float.
        k: Draws of z for each image and proposal; the bound rises to the log-likelihood with k.
        others: Models whose encoders propose as well, with the same latent dimensions and classes.
        generator: The source of randomness, such as `seeded(0)`; torch's global one when left out.

    Returns:
        The bound, (B,), in nats.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A weight of a model is not finite, a model does not fit to the first, the images
            or labels have another shape or range, or k is below 1.

    Burda et al. (2016).
    """
    check_model(model)
    check_images(images, device=model.device, shape=model.image_shape)
    k = check_whole(k, "k")
    if generator is not None:
        check_is(generator, torch.Generator, "generator", ": seeded(0) makes one")
    for j, other in enumerate(others):
        check_model(other, f"others[{j}]", model.num_classes)
        if other.latent_dim != model.latent_dim:
            theirs, ours = other.latent_dim, model.latent_dim
            raise ValueError(f"others[{j}] has latent_dim={theirs}, the model {ours}")
    with evaluating(model, *others):
        proposals = [m.encode(images, labels) for m in (model, *others)]
        bounds = [iwae(model, images, labels, k, p, generator) for p in proposals]
        best = max(range(len(bounds)), key=lambda i: float(bounds[i].mean()))
        fitted = _fitted_proposal(model, images, labels, proposals[best], generator)
        bounds.append(iwae(model, images, labels, k, fitted, generator))
    return max(bounds, key=lambda bound: float(bound.mean()))


def _fitted_proposal(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    start: tuple[Tensor, Tensor],
    generator: Rng,
) -> tuple[Tensor, Tensor]:
    """Mean and log-variance, each (B, Z), after some steps of Adam up each image's own ELBO."""
    mean, log_var = (half.detach().clone().requires_grad_(True) for half in start)
    optimizer = torch.optim.Adam([mean, log_var], lr=FIT_RATE)
    for _ in range(FIT_STEPS):
        noise = draw_normal(tuple(mean.shape), model, generator)
        logits = model.decode_logits(mean + noise * (0.5 * log_var).exp(), labels)
        loss = bernoulli_nats(logits, images).sum() + gaussian_kl(mean, log_var).sum()
        mean.grad, log_var.grad = torch.autograd.grad(loss, [mean, log_var])
        optimizer.step()
    return mean, log_var
