"""Differentiable measures of how images look: one number for each image of a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_number, check_tensor

ANGLE_BINS = 8
CHUNK = 32  # images whose angles are held at once: they stay in the processor's cache
SHARPNESS = 40  # of the soft bins, per squared radian
EDGE = 1e-12  # squared gradient below which a pixel lies on no edge
FAINT = 1e-3  # gradient per pixel that is added to the total, so that a flat image has entropy 0


def total_variation(images: Tensor) -> Tensor:
    """Compute the total variation: how much neighbouring pixels differ.

    It is the mean absolute horizontal plus the mean absolute vertical difference: the anisotropic
    form of Rudin, Osher and Fatemi (1992).

    Args:
        images: (B, C, H, W) float, 2 pixels a side or more.

    Returns:
        (B,) in gray levels; 0 for a flat image.

    Raises:
        TypeError: images is no tensor.
        ValueError: images have another shape or type.
    """
    _check(images, 2)
    across = images.diff(dim=-1).abs().flatten(1).mean(1)
    down = images.diff(dim=-2).abs().flatten(1).mean(1)
    return across + down


def contrast(images: Tensor, level: float | Tensor = 0.5) -> Tensor:
    """Compute the mean squared distance of the pixels to a gray level.

    Args:
        images: (B, C, H, W) float.
        level: A gray level, or images of them, (B, C, H, W) or (1, C, H, W) float.

    Returns:
        (B,) in squared gray levels.

    Raises:
        TypeError: images is no tensor.
        ValueError: images or level have another shape or type.
    """
    _check(images, 1)
    _check_level(level, "level", images.shape, (1, *images.shape[1:]))
    return (images - level).square().flatten(1).mean(1)


def ink(images: Tensor, target: float | Tensor) -> Tensor:
    """Compute the squared distance of the mean gray level to a target.

    Args:
        images: (B, C, H, W) float.
        target: A gray level, or one for each image, (B,) float.  MNIST's own mean is 0.13.

    Returns:
        (B,) in squared gray levels.

    Raises:
        TypeError: images is no tensor.
        ValueError: images or target have another shape or type.
    """
    _check(images, 1)
    _check_level(target, "target", images.shape[:1])
    return (images.flatten(1).mean(1) - target).square()


def orientation_entropy(images: Tensor) -> Tensor:
    """Compute the Shannon entropy of the directions of the edges.

    One straight stroke scores low, the strokes of a digit in many directions score high.  The
    directions are those of Sobel gradients of the mean of the channels.  The angle of each pixel,
    over a half turn, is shared softly among 8 bins, by exp(-40 d^2) with the circular distance d to
    a bin in radians, and weighted by the length of the gradient.  A small constant is added to the
    total of these lengths, so that an image without edges has entropy 0 and gradient 0.

    Args:
        images: (B, C, H, W) float, 3 pixels a side or more.

    Returns:
        (B,) in nats, from 0 to ln 8.

    Raises:
        TypeError: images is no tensor.
        ValueError: images have another shape or type.
    """
    _check(images, 3)
    return torch.cat([_orientation_entropy(part) for part in images.split(CHUNK)])


def _check(images: Tensor, least: int) -> None:
    """Refuse what are no images of at least so many pixels a side."""
    check_tensor(images, ("B", "C", "H", "W"), "images")
    if min(images.shape[2:]) < least:
        raise ValueError(f"images of {tuple(images.shape[2:])} pixels: {least} a side are needed")


def _check_level(level: float | Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    """Refuse what is neither a number nor a tensor of one of these shapes."""
    if not isinstance(level, Tensor):
        check_number(level, name, -1e6, 1e6)
    elif level.ndim and level.shape not in shapes:  # others would be spread out silently
        raise ValueError(f"{name} of shape {tuple(level.shape)} must be () or {tuple(shapes[0])}")


def _orientation_entropy(images: Tensor) -> Tensor:
    """`orientation_entropy` of some images at once, (B,) nats."""
    sobel = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([sobel, sobel.T])[:, None]  # (2, 1, 3, 3)
    gradients = F.conv2d(images.mean(1, keepdim=True), kernels).flatten(2)
    dx, dy = gradients.unbind(1)  # each (B, P)
    edge = dx.square() + dy.square() > EDGE  # without an edge the angle has no derivative
    dx = torch.where(edge, dx, torch.ones_like(dx))
    dy = torch.where(edge, dy, torch.zeros_like(dy))
    length = torch.where(edge, torch.hypot(dx, dy), torch.zeros_like(dx))
    centres = torch.arange(ANGLE_BINS, device=images.device, dtype=images.dtype) / ANGLE_BINS
    angles = torch.atan2(dy, dx) / math.pi  # in half turns
    turns = angles[:, None] - centres[:, None]  # (B, 8, P)
    distance = turns - turns.round()  # circular
    weight = torch.softmax(-SHARPNESS * math.pi**2 * distance.square(), dim=1)
    histogram = (weight @ length[:, :, None]).squeeze(2) + 1e-12  # (B, 8)
    share = histogram / (length.sum(1, keepdim=True) + FAINT * length.shape[1])
    return -(share * share.log()).sum(1)
