"""Reading a model: walks, round trips, bounds, hidden layers, against plain code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sahelpers as sa

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more


def tiny_model(arch="mlp", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sa.CVAE(arch, latent_dim=3, num_classes=4).eval()


def some_images(n=6, seed=1):
    images = torch.rand((n, 1, 28, 28), generator=sa.seeded(seed))
    return sa.LabelledImages(images, torch.arange(n) % 4, tuple("abcd"))


def test_a_walk_goes_in_a_straight_line_between_its_ends():
    model, z = tiny_model(), torch.randn((2, 3), generator=sa.seeded(0))
    walk = sa.label_walk(model, z, 1, 3, steps=5)
    torch.testing.assert_close(walk[0], model.decode(z, torch.tensor([1, 1])))
    torch.testing.assert_close(walk[-1], model.decode(z, torch.tensor([3, 3])))
    quarter = torch.tensor([[0.0, 0.75, 0.0, 0.25]]).expand(2, -1)
    torch.testing.assert_close(walk[1], model.decode(z, quarter))
    with pytest.raises(ValueError, match="steps=1"):
        sa.label_walk(model, z, 1, 3, steps=1)


def test_a_round_trip_under_each_label():
    model, data = tiny_model(), some_images()
    trips = sa.round_trip(model, data.images)
    assert trips.shape == (6, 4, 1, 28, 28)
    for b in range(6):
        for c in range(4):
            y = torch.tensor([c])
            one = model.decode(model.encode(data.images[b][None], y)[0], y)[0]
            torch.testing.assert_close(trips[b, c], one)


def test_label_bounds_are_the_bound_under_each_label():
    model, data = tiny_model(), some_images()
    bounds = sa.label_bounds(model, data.images, k=7, seed=4)
    for c in range(4):
        one = sa.iwae(model, data.images, torch.full((6,), c), 7, sa.seeded(4))
        torch.testing.assert_close(bounds[:, c], one)


def test_membership_is_the_share_of_ordered_pairs():
    model, first, second = tiny_model(), some_images(8, 1), some_images(5, 2)
    losses = [sa.negative_elbo(model, d.images, d.labels, sa.seeded(0)) for d in (first, second)]
    pairs = [(a < b) + (a == b) / 2 for a in losses[0].tolist() for b in losses[1].tolist()]
    expected = sum(pairs) / len(pairs)
    assert sa.membership_auc(model, first, second) == pytest.approx(expected)
    assert sa.membership_auc(model, second, first) == pytest.approx(1 - expected)
    assert sa.membership_auc(model, first, first) == pytest.approx(0.5)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_activations_are_those_of_the_forward_pass(arch):
    model, images = tiny_model(arch), some_images().images
    layers = sa.activations(model, images)
    assert next(iter(layers)) == "encoder.1"
    y = torch.full((6, 4), 0.25)
    mean = model.encode(images, y)[0]
    torch.testing.assert_close(layers["mean"], mean)
    first = model.decoder[1](model.decoder[0](torch.cat([mean, y], 1)))
    torch.testing.assert_close(layers["decoder.1"], first.flatten(1))
    names = list(layers)
    assert names.index("mean") == sum(n.startswith("encoder") for n in names)
    assert not model.encoder[1]._forward_hooks


def test_a_linear_probe_finds_what_is_there_and_nothing_else():
    generator = sa.seeded(0)
    is_class = torch.rand(600, generator=generator) < 0.3
    noise = torch.randn((600, 5), generator=generator)
    found = sa.linear_probe({"there": noise + 3 * is_class[:, None], "noise": noise}, is_class)
    assert found["there"] > 0.99
    assert 0.35 < found["noise"] < 0.65


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_cka_ignores_rotation_scale_and_shift(seed, scale, shift):
    rng = np.random.default_rng(seed)
    a, b = torch.tensor(rng.normal(size=(40, 4))), torch.tensor(rng.normal(size=(40, 7)))
    rotation = torch.tensor(np.linalg.qr(rng.normal(size=(4, 4)))[0])
    assert sa.cka(a, scale * a @ rotation + shift) == pytest.approx(1)
    assert sa.cka(a, b) == pytest.approx(sa.cka(b, a))
    centred = [x - x.mean(0) for x in (a, b)]
    kernels = [x @ x.T for x in centred]  # the same by kernels, as the paper writes it
    expected = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
    assert sa.cka(a, b) == pytest.approx(float(expected))
    assert sa.cka(a, b) < 0.9


def test_cka_needs_the_same_images():
    with pytest.raises(ValueError, match="5 and 4 images"):
        sa.cka(torch.zeros(5, 2), torch.zeros(4, 2))
