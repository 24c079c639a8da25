"""Penalties against plain loops, closed forms, finite differences and scikit-image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import sobel_h, sobel_v

from sahelpers.penalties import (
    ANGLE_BINS,
    contrast,
    ink,
    orientation_entropy,
    total_variation,
)

ALL = {
    "total_variation": total_variation,
    "contrast": contrast,
    "ink": lambda images: ink(images, 0.22),
    "orientation_entropy": orientation_entropy,
}
names = pytest.mark.parametrize("name", ALL)
seeds = st.integers(0, 10_000)


def noise(seed, n=3, side=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, 1, side, side), generator=generator, dtype=torch.float64)


def strokes(angle, side=28):
    """A disc of parallel waves whose brightness changes along one direction only."""
    grid = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    wave = torch.sin((x * math.cos(angle) + y * math.sin(angle)) * 0.7)
    return (0.5 + 0.5 * wave)[None, None]


@names
def test_gradients_agree_with_finite_differences(name):
    images = noise(1, side=6).requires_grad_(True)
    assert torch.autograd.gradcheck(ALL[name], (images,))


@names
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_an_image_is_measured_alone(name, seed):
    images = noise(seed)
    alone = torch.cat([ALL[name](image[None]) for image in images])
    torch.testing.assert_close(ALL[name](images), alone, rtol=0, atol=1e-12)


@names
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_images_give_finite_values_and_gradients(name, level):
    images = torch.full((2, 1, 28, 28), level, requires_grad=True)
    value = ALL[name](images)
    value.sum().backward()
    assert value.isfinite().all()
    assert images.grad.isfinite().all()
    if name in ("total_variation", "orientation_entropy"):
        assert value.abs().max() < 1e-9
        assert images.grad.abs().max() == 0


@names
@given(seed=seeds, down=st.integers(-4, 4), right=st.integers(-4, 4))
@settings(max_examples=20, deadline=None)
def test_moving_a_drawing_inside_its_margin_changes_nothing(name, seed, down, right):
    images = torch.zeros((3, 1, 21, 21), dtype=torch.float64)
    images[..., 6:15, 6:15] = noise(seed)
    moved = images.roll((down, right), (2, 3))
    torch.testing.assert_close(ALL[name](moved), ALL[name](images), rtol=0, atol=1e-12)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_negative_has_the_same_edges(seed):
    images = noise(seed)
    for measure in (total_variation, contrast, orientation_entropy):
        torch.testing.assert_close(measure(1 - images), measure(images), rtol=0, atol=1e-9)


@given(seed=seeds, turns=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_a_quarter_turn_changes_nothing(seed, turns):
    images = noise(seed)
    turned = images.rot90(turns, (2, 3))
    for measure in ALL.values():
        torch.testing.assert_close(measure(turned), measure(images), rtol=0, atol=1e-9)


def test_total_variation_by_a_plain_loop():
    images = noise(2)
    for image, found in zip(images[:, 0].tolist(), total_variation(images).tolist(), strict=True):
        side = len(image)
        across = [abs(row[c + 1] - row[c]) for row in image for c in range(side - 1)]
        down = [abs(image[r + 1][c] - image[r][c]) for r in range(side - 1) for c in range(side)]
        assert found == pytest.approx(sum(across) / len(across) + sum(down) / len(down), abs=1e-12)


@given(seed=seeds, scale=st.floats(0.01, 3))
@settings(max_examples=20, deadline=None)
def test_total_variation_scales_with_contrast(seed, scale):
    images = noise(seed)
    torch.testing.assert_close(total_variation(scale * images), scale * total_variation(images))


def test_contrast_and_ink_in_closed_form():
    images = noise(3)
    pixels = images.flatten(1).numpy()
    assert contrast(images, 0.3).numpy() == pytest.approx(
        pixels.var(1) + (pixels.mean(1) - 0.3) ** 2
    )
    assert contrast(images, images).abs().max() == 0
    targets = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert ink(images, targets).numpy() == pytest.approx((pixels.mean(1) - targets.numpy()) ** 2)


def test_orientation_entropy_by_scikit_image_and_a_loop():
    images = noise(4)
    for image, found in zip(
        images[:, 0].numpy(), orientation_entropy(images).tolist(), strict=True
    ):
        # scikit-image's kernels sum to 1 on each side (ours to 1/2) and keep the borders
        dx, dy = -sobel_v(image)[1:-1, 1:-1] / 2, -sobel_h(image)[1:-1, 1:-1] / 2
        histogram, total = np.zeros(ANGLE_BINS), 0.0
        for gx, gy in zip(dx.ravel(), dy.ravel(), strict=True):
            angle, size = math.atan2(gy, gx) % math.pi, math.hypot(gx, gy)
            gaps = [abs(angle - k * math.pi / ANGLE_BINS) for k in range(ANGLE_BINS)]
            weight = np.exp([-40 * min(g, math.pi - g) ** 2 for g in gaps])
            histogram += size * weight / weight.sum()
            total += size
        share = histogram / (total + 1e-3 * dx.size)
        assert found == pytest.approx(-(share * np.log(share)).sum(), abs=1e-9)


def test_orientation_entropy_tells_one_direction_from_all():
    lines = [float(orientation_entropy(strokes(k * math.pi / ANGLE_BINS))) for k in range(3)]
    grid = torch.linspace(-1, 1, 28, dtype=torch.float64)
    rings = 0.5 + 0.5 * torch.sin(12 * torch.hypot(grid[:, None], grid[None]))[None, None]
    assert max(lines) < 0.2
    assert 0.98 * math.log(8) < float(orientation_entropy(rings)) <= math.log(8)


def test_the_bins_are_eight_as_documented():
    assert ANGLE_BINS == 8


@names
def test_they_stay_on_the_images_device(name):
    images = torch.rand((2, 1, 28, 28), device="meta")
    assert ALL[name](images).device.type == "meta"
    assert ALL[name](images).shape == (2,)


@pytest.mark.parametrize(
    ("name", "least"),
    [("total_variation", 2), ("contrast", 1), ("ink", 1), ("orientation_entropy", 3)],
)
def test_images_too_small_for_a_measure_are_refused(name, least):
    assert ALL[name](torch.rand(2, 1, least, least)).isfinite().all()
    words = f"^images of .* pixels: {least} a side are needed$"
    with pytest.raises(ValueError, match=words):
        ALL[name](torch.rand(2, 1, least - 1, 5))
    with pytest.raises(ValueError, match=words):
        ALL[name](torch.rand(2, 1, 5, least - 1))
    with pytest.raises(ValueError, match=r"^images.*\(B, C, H, W\)"):
        ALL[name](torch.rand(2, 28, 28))


@pytest.mark.parametrize(
    ("measure", "name", "fits"), [(contrast, "level", (3, 1, 9, 9)), (ink, "target", (3,))]
)
def test_a_level_is_a_number_or_fits_the_images(measure, name, fits):
    images = noise(5)
    for good in (-1e6, 1e6, torch.tensor(0.5), torch.zeros(fits)):
        assert measure(images, good).shape == (3,)
    for bad in (-1.1e6, 1.1e6, math.nan, "0.5", None):
        with pytest.raises((ValueError, TypeError), match=name):
            measure(images, bad)
    for shape in ((2,), (9,), (3, 1)):
        with pytest.raises(ValueError, match=rf"^{name} of shape .* must be \(\) or"):
            measure(images, torch.zeros(shape))
    assert contrast(images, torch.zeros(1, 1, 9, 9)).shape == (3,)
