"""Differentiable measures of how images look: (B, C, H, W) float in, one number each out, (B,)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_number, check_tensor

ANGLE_BINS = 8
CHUNK = 32  # images whose angles are held at once: they stay in the processor's cache


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute horizontal plus mean absolute vertical difference, in gray levels.

    The anisotropic form of Rudin, Osher and Fatemi (1992).  0 for a flat image.
    """
    _check(images, 2)
    across = images.diff(dim=-1).abs().flatten(1).mean(1)
    down = images.diff(dim=-2).abs().flatten(1).mean(1)
    return across + down


def contrast(images: Tensor, level: float | Tensor = 0.5) -> Tensor:
    """Mean squared distance of the pixels to a gray level; level may be an image."""
    _check(images, 1)
    _check_level(level, "level", images.shape, (1, *images.shape[1:]))
    return (images - level).square().flatten(1).mean(1)


def ink(images: Tensor, target: float | Tensor) -> Tensor:
    """Squared distance of the mean gray level to a target (a number, or one per image, (B,)).

    MNIST's own mean is 0.13.
    """
    _check(images, 1)
    _check_level(target, "target", images.shape[:1])
    return (images.flatten(1).mean(1) - target).square()


def orientation_entropy(images: Tensor) -> Tensor:
    """Shannon entropy of the directions of the edges, in nats, from 0 to ln 8.

    Sobel gradients; each pixel's undirected angle is shared softly among 8 bins over a half turn,
    by exp(-40 d^2) with d the circular distance in radians, weighted by the gradient's magnitude.
    Of the mean of the channels.  One straight stroke scores low, a digit's strokes in many
    directions score high.  The shares are taken of the total magnitude plus a small constant, so
    that an image without edges has entropy 0 and gradient 0.
    """
    _check(images, 3)
    return torch.cat([_orientation_entropy(part) for part in images.split(CHUNK)])


def _check(images: Tensor, least: int) -> None:
    check_tensor(images, ("B", "C", "H", "W"), "images")
    if min(images.shape[2:]) < least:
        raise ValueError(f"images of {tuple(images.shape[2:])} pixels: {least} a side are needed")


def _check_level(level: float | Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    if not isinstance(level, Tensor):
        check_number(level, name, -1e6, 1e6)
    elif level.ndim and level.shape not in shapes:  # others would be spread out silently
        raise ValueError(f"{name} of shape {tuple(level.shape)} must be () or {tuple(shapes[0])}")


def _orientation_entropy(images: Tensor) -> Tensor:
    sobel = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([sobel, sobel.T])[:, None]  # (2, 1, 3, 3)
    dx, dy = F.conv2d(images.mean(1, keepdim=True), kernels).flatten(2).unbind(1)  # each (B, P)
    edge = dx.square() + dy.square() > 1e-12  # without an edge the angle has no derivative
    dx = torch.where(edge, dx, torch.ones_like(dx))
    dy = torch.where(edge, dy, torch.zeros_like(dy))
    magnitude = torch.where(edge, torch.hypot(dx, dy), torch.zeros_like(dx))
    centres = torch.arange(ANGLE_BINS, device=images.device, dtype=images.dtype) / ANGLE_BINS
    turns = (torch.atan2(dy, dx) / math.pi)[:, None] - centres[:, None]  # half turns, (B, 8, P)
    distance = turns - turns.round()  # circular
    weight = torch.softmax(-40 * math.pi**2 * distance.square(), dim=1)
    histogram = (weight @ magnitude[:, :, None]).squeeze(2) + 1e-12  # (B, 8)
    share = histogram / (magnitude.sum(1, keepdim=True) + 1e-3 * magnitude.shape[1])
    return -(share * share.log()).sum(1)
