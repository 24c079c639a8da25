"""Denoising by total variation: the model of Rudin, Osher and Fatemi (1992), solved to a known gap.

For each noisy image f, the minimiser u of

    1/2 sum (u - f)^2 + weight * sum |grad u|.

The dual problem is a projection: u = f - D^T p with |p| <= weight at each pixel (Chambolle 2004).
It is solved by projected gradient steps with Nesterov's acceleration (Beck & Teboulle 2009).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_number, check_tensor, check_values
from .models import NOISY, seeded

CHUNK = 100  # images worked on at once: they stay in the processor's cache
LOOK_EVERY = 10  # steps between two looks at the gap
LIPSCHITZ = 8.0  # bound of D D^T in two dimensions
MAX_STEPS = 20_000
MAX_WEIGHT = 1e4  # the image is flat long before


@torch.no_grad()
def denoise_tv(noisy: Tensor, weight: float, *, gap: float = 1e-3) -> Tensor:
    """Denoise every image of a batch by total variation, each channel by itself.

    The result is the minimiser u of 1/2 sum (u - noisy)^2 + weight * sum |grad u| (Rudin, Osher and
    Fatemi 1992).

    Args:
        noisy: Images (B, C, H, W), float32 or float64, in gray levels; noise may leave [0, 1], but
            not [-4, 5].
        weight: The weight of the total variation, from 0 to 10,000; the larger, the flatter.
        gap: The duality gap at which an image is done, in squared gray levels summed over the
            image.  The exact minimiser is then no farther away than sqrt(2 gap) in the Euclidean
            norm.  float32 reaches the default for weights up to about 10.

    Returns:
        The denoised images, (B, C, H, W).

    Raises:
        TypeError: noisy is no tensor.
        ValueError: noisy has another shape, type or range, or a number is out of its range.
        RuntimeError: The gap is not reached in 20,000 steps.
    """
    check_tensor(noisy, ("B", "C", "H", "W"), "noisy")
    check_values(noisy, "noisy", *NOISY, ": gray levels and some noise; divide bytes by 255")
    if noisy.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"noisy of type {noisy.dtype} must be torch.float32 or torch.float64")
    check_number(gap, "gap", 1e-12, 1e6)
    check_number(weight, "weight", 0, MAX_WEIGHT)
    w = noisy.new_tensor(weight)
    if not w or not noisy.numel():  # a tiny weight is 0 in float32
        return noisy.clone()
    planes = noisy.flatten(0, 1)  # (B * C, H, W)
    return torch.cat([_solve(part, w, gap) for part in planes.split(CHUNK)]).view_as(noisy)


def _solve(f: Tensor, w: Tensor, gap: float) -> Tensor:
    """f (B, H, W), w () -> u (B, H, W).  All images go on until the last is done."""
    p = f.new_zeros((2, *f.shape))  # the dual: across, down; last column and last row stay zero
    r = p.clone()  # the dual after a step with momentum
    d, u = p.clone(), f.clone()  # written over in each step: new memory is slow
    momentum = 1.0
    for step in range(1, MAX_STEPS + 1):
        r.add_(_differences(_primal(f, r, u), d), alpha=1 / LIPSCHITZ)
        length = r[0].square().addcmul_(r[1], r[1]).sqrt_()
        r /= length.div_(w).clamp_(min=1)  # back to a length of w at most
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        # p becomes r, and r goes on in the direction from the old p
        p, r = r, p.lerp_(r, 1 + (momentum - 1) / following)
        momentum = following
        if step % LOOK_EVERY == 0:
            _differences(_primal(f, p, u), d)
            gaps = (w * torch.hypot(d[0], d[1]) - (p * d).sum(0)).sum((1, 2))  # (B,), 0 in the end
            if float(gaps.max()) <= gap:
                return u
    raise RuntimeError(f"gap={gap} not reached in {MAX_STEPS} steps: allow more, or give float64")


def _differences(u: Tensor, d: Tensor) -> Tensor:
    """D u into d (2, B, H, W): to the right-hand and to the lower neighbour; zero at the border."""
    torch.sub(u[:, :, 1:], u[:, :, :-1], out=d[0, :, :, :-1])
    torch.sub(u[:, 1:], u[:, :-1], out=d[1, :, :-1])
    return d


def _primal(f: Tensor, p: Tensor, u: Tensor) -> Tensor:
    """f - D^T p (B, H, W) into u."""
    torch.add(f, p[0], out=u)
    u += p[1]
    u[:, :, 1:] -= p[0, :, :, :-1]
    u[:, 1:] -= p[1, :, :-1]
    return u


def sure(noisy: Tensor, weight: float, sigma: float, seed: int = 0) -> Tensor:
    """Estimate each image's mean squared error after denoising, without a clean image.

    This is Stein's unbiased risk estimate.  Its divergence is estimated with one random direction
    (Ramani et al. 2008), so average the estimate over a batch.

    Args:
        noisy: Images (B, C, H, W) float: clean ones plus normal noise, not clipped.
        weight: The weight of the total variation, as for `denoise_tv`.
        sigma: The standard deviation of the noise, in gray levels.
        seed: Of the random direction.

    Returns:
        (B,) float64 on the CPU, in squared gray levels.

    Raises:
        TypeError: noisy is no tensor.
        ValueError: noisy has another shape or range, or a number is out of its range.  A tenth of
            sigma is added in the random direction, and that must stay in [-4, 5], too.
    """
    check_number(sigma, "sigma", 1e-5, NOISY[1] - NOISY[0])
    check_tensor(noisy, ("B", "C", "H", "W"), "noisy")
    step = 0.1 * sigma
    gap = min(1e-3, max(step**2, 1e-12))  # the two solutions must differ by more than their errors
    noisy = noisy.cpu().double()
    direction = torch.randn(noisy.shape, generator=seeded(seed), dtype=noisy.dtype).to(noisy)
    u = denoise_tv(noisy, weight, gap=gap)
    v = denoise_tv(noisy + step * direction, weight, gap=gap)
    divergence = (direction * (v - u)).flatten(1).mean(1) / step
    return (u - noisy).square().flatten(1).mean(1) - sigma**2 + 2 * sigma**2 * divergence


def choose_weight(noisy: Tensor, sigma: float, weights: Sequence[float]) -> float:
    """Choose the weight of the total variation without a clean image.

    Args:
        noisy: Images (B, C, H, W) float: clean ones plus normal noise, not clipped; at least one.
        sigma: The standard deviation of the noise, in gray levels.
        weights: The weights to choose from, at least one.

    Returns:
        The weight whose `sure`, averaged over the batch, is smallest.

    Raises:
        TypeError: noisy is no tensor.
        ValueError: There is no image or no weight, or as for `sure`.
    """
    if not len(weights) or not len(noisy):
        raise ValueError(f"{len(weights)} weights and {len(noisy)} noisy images: give some of each")
    return min(weights, key=lambda weight: float(sure(noisy, weight, sigma).mean()))
