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
    """The minimiser for every image of a batch, each channel by itself: (B, C, H, W) in and out.

    noisy: gray levels; noise may leave [0, 1], but not [-4, 5].
    weight: of the total variation; the larger, the flatter.
    gap: duality gap at which an image is done, in squared gray levels summed over the image.  The
    exact minimiser is then no farther away than sqrt(2 gap) in the Euclidean norm.  float32 reaches
    the default for weights up to about 10.
    Raises RuntimeError when the gap is not reached in 20,000 steps.
    """
    check_tensor(noisy, ("B", "C", "H", "W"), "noisy")
    check_values(noisy, "noisy", *NOISY, ": gray levels and some noise; divide bytes by 255")
    if noisy.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"noisy of type {noisy.dtype} must be torch.float32 or torch.float64")
    check_number(gap, "gap", 1e-12, 1e6)
    check_number(weight, "weight", 0, MAX_WEIGHT)
    w = noisy.new_tensor(weight)
    planes = noisy.flatten(0, 1).split(CHUNK)
    parts = [_solve(f, w, gap) for f in planes if len(f)]
    return torch.cat(parts).view_as(noisy) if parts else noisy.clone()


def _solve(f: Tensor, w: Tensor, gap: float) -> Tensor:
    """f (B, H, W), w () -> u (B, H, W).  All images go on until the last is done."""
    if not w:
        return f.clone()
    p = f.new_zeros((2, *f.shape))  # the dual: across, down; last column / row stay zero
    r, d, u, momentum = p.clone(), p.clone(), f.clone(), 1.0  # used again: new memory is slow
    for step in range(1, MAX_STEPS + 1):
        r.add_(_differences(_primal(f, r, u), d), alpha=1 / LIPSCHITZ)
        r /= r[0].square().addcmul_(r[1], r[1]).sqrt_().div_(w).clamp_(min=1)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        p, r, momentum = r, p.lerp_(r, 1 + (momentum - 1) / following), following
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
    """Stein's unbiased estimate of each image's mean squared error after denoising, (B,) float64
    on the CPU.

    noisy: clean images plus normal noise of standard deviation sigma, not clipped.  No clean image
    is needed.  The divergence is estimated with one random direction (Ramani et al. 2008), so
    average over a batch.
    """
    check_number(sigma, "sigma", 1e-5, NOISY[1] - NOISY[0])
    step = 0.1 * sigma
    gap = min(1e-3, max(step**2, 1e-12))  # the two solutions must differ by more than their errors
    noisy = noisy.cpu().double()
    direction = torch.randn(noisy.shape, generator=seeded(seed), dtype=noisy.dtype).to(noisy)
    u, v = (denoise_tv(f, weight, gap=gap) for f in (noisy, noisy + step * direction))
    divergence = (direction * (v - u)).flatten(1).mean(1) / step
    return (u - noisy).square().flatten(1).mean(1) - sigma**2 + 2 * sigma**2 * divergence


def choose_weight(noisy: Tensor, sigma: float, weights: Sequence[float]) -> float:
    """The weight whose `sure`, averaged over the batch, is smallest: no clean image is needed."""
    if not len(weights) or not len(noisy):
        raise ValueError(f"{len(weights)} weights and {len(noisy)} noisy images: give some of each")
    return min(weights, key=lambda weight: float(sure(noisy, weight, sigma).mean()))
