import numpy as np
import pytest
import torch

import sahelpers as sa
from sahelpers.surrogates import Surrogate

KEPT = (0, 1, 2, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("name", "mean", "spread"), [("gray", 0.3, 0.0), ("blank", 0.0, 0.0), ("noise", 0.5, 0.2887)]
)
def test_flat_ones_have_their_moments(tiny, name, mean, spread):
    q = sa.make_surrogate(name, tiny, KEPT, gray_value=0.3)
    z = torch.randn(64, 3)
    images = q.draw(z, sa.seeded(0))
    assert images.shape == (64, 1, 28, 28)
    assert images.mean().item() == pytest.approx(mean, abs=0.005)
    assert images.std().item() == pytest.approx(spread, abs=0.005)
    assert torch.allclose(q.mean(z), torch.full((64, 1, 28, 28), mean))


def test_class_draws_what_the_frozen_model_draws_at_the_same_z(tiny):
    z = torch.randn(8, 3)
    q = sa.make_surrogate("class:7", tiny, KEPT)
    expected = tiny.decode(z, torch.full((8,), 7))
    assert torch.equal(q.draw(z, sa.seeded(0)), expected)
    assert torch.allclose(q.mean(z), expected)


def test_mixture_draws_every_kept_class_and_its_mean_is_theirs(tiny):
    z = torch.zeros(400, 3)
    q = sa.make_surrogate("mixture", tiny, KEPT)
    options = torch.stack([tiny.decode(z[:1], torch.tensor([c]))[0] for c in KEPT])
    drawn = q.draw(z, sa.seeded(0))
    which = (drawn[:, None] - options[None]).abs().amax((2, 3, 4)).argmin(1)
    assert set(which.tolist()) == set(range(9))
    assert torch.allclose(q.mean(z[:1])[0], options.mean(0), atol=1e-6)


def test_any_function_will_do(tiny):
    q = sa.make_surrogate(lambda n, g: torch.rand((n, 1, 28, 28), generator=g), tiny, KEPT)
    assert q.draw(torch.zeros(5, 3), sa.seeded(0)).shape == (5, 1, 28, 28)
    assert (q.mean(torch.zeros(5, 3)) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("grey", "surrogate='grey' is not one of gray, noise"),
        ("class:3", "3 is not a kept class"),
        ("class:x", "surrogate='class:x'"),
        ("class:\u0662", "surrogate='class:\u0662' is not one of"),  # a two, but no number here
        (7, "surrogate=7"),
        (np.zeros((5, 28)), r"surrogate is an array of shape \(5, 28\): give a name .* function"),
        (torch.rand(5, 1, 28, 28), r"surrogate is a tensor of shape \(5, 1, 28, 28\): give a name"),
        (lambda n, g: torch.zeros(n, 28, 28), r"returned .*not \(512, 1, 28, 28\)"),
        (lambda n, g: torch.full((n, 1, 28, 28), 2.0), "run from 2 to 2"),
        (lambda n, g: "images", "returned str"),
    ],
)
def test_what_is_no_surrogate_is_named(tiny, what, message):
    with pytest.raises(ValueError, match=message):
        sa.make_surrogate(what, tiny, KEPT)


def test_a_surrogate_is_two_functions():
    q = sa.make_surrogate("gray", sa.CVAE(latent_dim=3), KEPT)
    with pytest.raises(TypeError, match=r"mean=0\.5 is not a function \(z\) -> images"):
        Surrogate(q.draw, 0.5)


def test_a_tensor_is_refused_as_a_surrogate_where_a_model_forgets(tiny):
    """A tensor of one zero was passed over in silence, a larger one was called ambiguous."""
    config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32)
    for images in (torch.zeros(1), torch.rand(1, 28, 28)):
        with pytest.raises(ValueError, match=r"surrogate is a tensor .* or a function, such as"):
            sa.forget(tiny, None, 3, config, surrogate=images)


@pytest.mark.parametrize("make", [lambda n: torch.zeros(n, 1, 28, 28), lambda: 0])
def test_a_function_of_other_arguments_is_refused_with_its_signature(tiny, make):
    with pytest.raises(TypeError, match=r"surrogate takes \(n?\): give .* \(n, generator\) -> im"):
        sa.make_surrogate(make, tiny, KEPT)
    config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32)
    with pytest.raises(TypeError, match=r"on_step takes \(a, b\): give .* \(step, model, terms\)"):
        sa.forget(tiny, None, 3, config, on_step=lambda a, b: None)
