import pytest
import torch

import sahelpers as sa


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_shapes_and_ranges(arch, digits):
    model = sa.CVAE(arch, latent_dim=4).eval()
    mean, log_var = model.encode(digits.images, digits.labels)
    assert mean.shape == log_var.shape == (40, 4)
    images = model.decode(mean, digits.labels)
    assert images.shape == (40, 1, 28, 28)
    assert 0 <= images.min() <= images.max() <= 1
    logits = model.decode_logits(mean, digits.labels)
    assert torch.allclose(images, torch.sigmoid(logits))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_soft_label_on_a_corner_is_the_hard_label(arch, digits):
    model = sa.CVAE(arch, latent_dim=4).eval()
    soft = torch.eye(10)[digits.labels]
    for a, b in zip(
        model.encode(digits.images, digits.labels), model.encode(digits.images, soft), strict=True
    ):
        assert torch.equal(a, b)
    z = torch.randn(40, 4)
    assert torch.equal(model.decode(z, digits.labels), model.decode(z, soft))


def test_a_label_vector_takes_a_gradient(tiny):
    soft = torch.full((2, 10), 0.1, requires_grad=True)
    tiny.decode(torch.zeros(2, 3), soft).sum().backward()
    assert soft.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(4, 9),
        torch.zeros(4),
        torch.zeros(4, 10, dtype=torch.long),
        torch.zeros(1, 4, 10),
    ],
)
def test_labels_of_another_kind_are_refused(tiny, labels):
    with pytest.raises(ValueError, match=r"labels of shape .* \(B, 10\) float"):
        tiny.decode(torch.zeros(4, 3), labels)


def test_wrong_shapes_are_named(tiny):
    with pytest.raises(ValueError, match=r"\(2, 28, 28\) must be \(B, 1, 28, 28\)"):
        tiny.encode(torch.zeros(2, 28, 28), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"z of shape \(2, 4\) must be \(B, 3\)"):
        tiny.decode(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="arch='gan'"):
        sa.CVAE("gan")
    with pytest.raises(ValueError, match="role='boss'"):
        sa.Judge("boss")
    with pytest.raises(ValueError, match="prior='flat'"):
        tiny.sample(torch.tensor([1]), prior="flat")


def test_sampling_is_reproducible_and_leaves_the_global_generator_alone(tiny):
    labels = torch.arange(10)
    state = torch.get_rng_state()
    first, second = (tiny.sample(labels, generator=sa.seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, tiny.sample(labels, generator=sa.seeded(4)))


def test_class_prior_has_the_moments_of_its_latents(tiny):
    latents = torch.randn(500, 3, generator=sa.seeded(0)) @ torch.tensor(
        [[2.0, 0.5, 0.0], [0.0, 0.3, 0.1], [0.0, 0.0, 1.0]]
    ) + torch.tensor([1.0, -2.0, 0.5])
    tiny.set_class_prior(4, latents)
    labels = torch.full((200_000,), 4)
    drawn = tiny.draw_latents(labels, generator=sa.seeded(1))
    assert torch.allclose(drawn.mean(0), latents.mean(0), atol=0.03)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(latents.T), atol=0.06)
    noise = tiny.draw_latents(labels, "standard", sa.seeded(1))
    assert torch.allclose(noise.std(0), torch.ones(3), atol=0.02)
    tiny.set_class_prior(4)
    assert torch.equal(tiny.draw_latents(labels, generator=sa.seeded(1)), noise)


def test_class_prior_needs_enough_latents(tiny):
    with pytest.raises(ValueError, match="3 latents are too few for 3 dims"):
        tiny.set_class_prior(0, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="class 12"):
        tiny.set_class_prior(12)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_state_round_trip(arch):
    model = sa.CVAE(arch, latent_dim=5).eval()
    model.set_class_prior(2, torch.randn(50, 5))
    twin = sa.CVAE.from_state(model.to_state())
    labels = torch.arange(10)
    one, other = (m.sample(labels, generator=sa.seeded(0)) for m in (model, twin))
    assert torch.equal(one, other)
    assert not twin.training


def test_labels_are_interpolated_in_a_straight_line(four):
    z = torch.randn((2, 3), generator=sa.seeded(0))
    walk = sa.interpolate_labels(four, z, 1, 3, steps=5)
    torch.testing.assert_close(walk[0], four.decode(z, torch.tensor([1, 1])))
    torch.testing.assert_close(walk[-1], four.decode(z, torch.tensor([3, 3])))
    quarter = torch.tensor([[0.0, 0.75, 0.0, 0.25]]).expand(2, -1)
    torch.testing.assert_close(walk[1], four.decode(z, quarter))
    with pytest.raises(ValueError, match="steps=1"):
        sa.interpolate_labels(four, z, 1, 3, steps=1)


def test_images_are_reconstructed_under_each_label(four, four_images):
    found = sa.reconstruct(four, four_images)
    assert found.shape == (6, 4, 1, 28, 28)
    for b in range(6):
        for c in range(4):
            y = torch.tensor([c])
            one = four.decode(four.encode(four_images[b][None], y)[0], y)[0]
            torch.testing.assert_close(found[b, c], one)
