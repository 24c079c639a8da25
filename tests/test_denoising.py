"""Total variation denoising against scikit-image, SciPy's dual solution and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import denoise_tv_chambolle

import sahelpers as sa
from sahelpers.denoising import choose_weight, denoise_tv, sure

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more


def drawing(n=4, sigma=0.0, seed=0):
    """Discs and bars, each (1, 28, 28), with noise on top; float64."""
    grid = torch.arange(28, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    discs = [torch.hypot(x - 13 - k, y - 12) < 5 + k for k in range(n)]
    images = torch.stack([d.double() for d in discs])[:, None]
    noise = torch.randn(images.shape, generator=sa.seeded(seed), dtype=torch.float64)
    return images + sigma * noise


def energy(u, f, weight):
    """The functional, by a plain definition with forward differences."""
    u, f = np.asarray(u)[0], np.asarray(f)[0]
    dx, dy = np.zeros_like(u), np.zeros_like(u)
    dx[:, :-1], dy[:-1] = np.diff(u, axis=1), np.diff(u, axis=0)
    return 0.5 * ((u - f) ** 2).sum() + weight * np.hypot(dx, dy).sum()


@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_isotropic_equals_scikit_image(weight):
    noisy = drawing(2, sigma=0.2)
    ours = denoise_tv(noisy, weight, gap=1e-5)
    for f, u in zip(noisy, ours, strict=True):
        theirs = denoise_tv_chambolle(f[0].numpy(), weight, eps=0, max_num_iter=20_000)
        assert np.abs(u[0].numpy() - theirs).max() < 5e-3
        assert energy(u, f, weight) <= energy(theirs[None], f, weight) + 1e-5


@pytest.mark.full
@given(weight=st.floats(0.01, 12), columns=st.integers(1, 27))
@settings(max_examples=20, deadline=None)
def test_a_step_in_closed_form(weight, columns):
    """Each side moves towards the other by weight / width, until they meet at the mean."""
    step = torch.zeros((1, 1, 28, 28), dtype=torch.float64)
    step[..., columns:] = 1.0
    low, high = weight / columns, 1 - weight / (28 - columns)
    if low >= high:
        low = high = 1 - columns / 28
    expected = torch.full_like(step, low)
    expected[..., columns:] = high
    found = denoise_tv(step, weight, gap=1e-4)
    assert (found - expected).norm() <= (2 * 1e-4) ** 0.5 + 1e-6


@given(seed=st.integers(0, 1000), weight=st.floats(0, 2))
@settings(max_examples=15, deadline=None)
def test_mean_stays_range_and_variation_shrink(seed, weight):
    noisy = drawing(2, sigma=0.3, seed=seed)
    clean = denoise_tv(noisy, weight, gap=1e-3)
    torch.testing.assert_close(clean.mean((1, 2, 3)), noisy.mean((1, 2, 3)))
    room = (2 * 1e-3) ** 0.5
    assert clean.min() >= noisy.min() - room
    assert clean.max() <= noisy.max() + room
    assert (sa.total_variation(clean) <= sa.total_variation(noisy) + 1e-2).all()


@pytest.mark.full
def test_a_smaller_gap_is_closer_as_promised():
    noisy = drawing(3, sigma=0.2)
    exact = denoise_tv(noisy, 0.2, gap=1e-7)
    for gap in (1.0, 1e-2, 1e-4):
        found = denoise_tv(noisy, 0.2, gap=gap)
        assert (found - exact).flatten(1).norm(dim=1).max() <= (2 * gap) ** 0.5 + 1e-3


@pytest.mark.full
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_a_batch_in_chunks(monkeypatch, weight):
    noisy = drawing(5, sigma=0.2)
    together = denoise_tv(noisy, weight, gap=1e-6)
    alone = [denoise_tv(f[None], weight, gap=1e-6) for f in noisy]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=2e-3)
    if not weight:
        torch.testing.assert_close(together, noisy)
    monkeypatch.setattr("sahelpers.denoising.CHUNK", 2)
    torch.testing.assert_close(denoise_tv(noisy, weight, gap=1e-6), together, rtol=0, atol=2e-3)


@pytest.mark.parametrize("weight", [0.0, 1e-60])
def test_a_weight_that_is_zero_in_float32_changes_nothing(weight):
    noisy = drawing(2, sigma=0.2).float()
    assert torch.equal(denoise_tv(noisy, weight), noisy)
    assert denoise_tv(noisy[:0], 0.1).shape == (0, 1, 28, 28)


@pytest.mark.full
@pytest.mark.parametrize(("weight", "sigma"), [(0.05, 0.2), (0.15, 0.2), (0.4, 0.2), (0.01, 0.003)])
def test_sure_estimates_the_error_without_the_clean_image(weight, sigma):
    clean = drawing(4).repeat(10, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=sa.seeded(1), dtype=torch.float64)
    noisy = clean + sigma * noise / noise.square().mean().sqrt()
    true = (denoise_tv(noisy, weight, gap=1e-6) - clean).square().mean()
    assert float(sure(noisy, weight, sigma).mean()) == pytest.approx(
        float(true), abs=0.015 * sigma**2
    )


@pytest.mark.full
def test_the_chosen_weight_is_nearly_the_best():
    clean = drawing(4).repeat(5, 1, 1, 1)
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=sa.seeded(2), dtype=torch.float64)
    weights = [0.02, 0.05, 0.1, 0.2, 0.4, 0.8]
    errors = {w: float((denoise_tv(noisy, w) - clean).square().mean()) for w in weights}
    chosen = choose_weight(noisy, 0.2, weights)
    assert errors[chosen] <= 1.1 * min(errors.values())
    assert errors[chosen] < 0.5 * errors[0.02]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": -0.1}, "weight=-0.1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"weight": torch.ones(3)}, "weight=tensor"),
        ({"gap": 0.0}, "gap=0.0"),
        ({"noisy": 255 * torch.ones(1, 1, 28, 28)}, "divide bytes by 255"),
        ({"noisy": torch.full((1, 1, 28, 28), torch.nan)}, "values of noisy hold NaN"),
        ({"noisy": torch.ones(28, 28)}, r"\(28, 28\)"),
    ],
)
def test_refusals_name_what_is_wrong(change, words):
    arguments = {"noisy": torch.ones(1, 1, 28, 28), "weight": 0.1} | change
    with pytest.raises(ValueError, match=words):
        denoise_tv(**arguments)


def test_a_gap_out_of_reach_and_noise_without_size_are_refused(monkeypatch):
    monkeypatch.setattr("sahelpers.denoising.MAX_STEPS", 20)
    with pytest.raises(RuntimeError, match="not reached"):
        denoise_tv(drawing(1, sigma=0.2), 0.2, gap=1e-12)
    with pytest.raises(ValueError, match="sigma=0"):
        sure(drawing(1), 0.1, 0.0)
