"""The attacker in the loop: which images it tries, its loss, and where it moves."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import sahelpers as sa
from sahelpers.attacker import IMAGES, LEAK, NEAREST, RATE, REACH, Attacker


def make(model, forget_class=(3,), weight=0.5, push=10.0, seed=0):
    return Attacker(model.requires_grad_(False), forget_class, weight, push, sa.seeded(seed))


@pytest.fixture
def frozen(model):
    return sa.CVAE.from_state(model.to_state())


def price(model, z, labels, images):
    """One by one."""
    found = []
    for k in range(len(z)):
        logits = model.decode_logits(z[k : k + 1], labels[k : k + 1])
        drawn = F.binary_cross_entropy_with_logits(logits, images[k : k + 1], reduction="sum")
        found.append(drawn + 0.5 * (z[k] ** 2).sum())
    return torch.stack(found)


def test_each_image_is_tried_under_the_labels_where_it_is_cheapest(frozen):
    made = make(frozen, (3, 5))
    kept = [c for c in range(10) if c not in (3, 5)]
    assert len(made) == IMAGES * NEAREST == len(made.images)
    assert set(made.labels.tolist()) <= set(kept)
    for k in (0, 17, 200):
        image = made.images[k * NEAREST : k * NEAREST + 1]
        y = torch.tensor(kept)
        z = frozen.encode(image.expand(8, -1, -1, -1), y)[0]
        costs = price(frozen, z, y, image.expand(8, -1, -1, -1))
        best = y[costs.topk(NEAREST, largest=False).indices]
        assert made.labels[k * NEAREST : (k + 1) * NEAREST].tolist() == best.tolist()
        assert made.allowed[k * NEAREST : (k + 1) * NEAREST].unique().numel() == 1
        own = torch.tensor([3, 5])
        z = frozen.encode(image.expand(2, -1, -1, -1), own)[0]
        prices = price(frozen, z, own, image.expand(2, -1, -1, -1)) + 10.0
        assert (prices - made.allowed[k * NEAREST]).abs().min() < 1e-2


def test_there_may_be_fewer_kept_labels():
    torch.manual_seed(0)
    two = make(sa.CVAE(latent_dim=3, num_classes=2).eval(), (0,))
    assert len(two) == IMAGES
    assert set(two.labels.tolist()) == {1}


def test_the_loss_is_what_the_images_lack(frozen):
    made, index = make(frozen), torch.tensor([4, 90, 300])
    missing = made.allowed[index] - price(
        frozen, made.z[index], made.labels[index], made.images[index]
    )
    expected = 0.5 * torch.where(missing > 0, missing, LEAK * missing).mean()
    assert made.loss(frozen, index).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("push", [10.0, -1000.0])  # all images lack something; none does
def test_z_descends_the_cost_whether_or_not_the_image_costs_enough(frozen, push):
    made, index = make(frozen, push=push), torch.arange(0, 600, 7)
    before = made.z[index].clone().requires_grad_(True)
    cost = price(frozen, before, made.labels[index], made.images[index])
    (slope,) = torch.autograd.grad(cost.sum(), [before])
    made.loss(frozen, index).backward()
    made.step()
    expected = before - (RATE * slope).clamp(-REACH, REACH)
    torch.testing.assert_close(made.z[index], expected, atol=2e-3, rtol=1e-3)
    after = price(frozen, made.z[index], made.labels[index], made.images[index])
    assert after.mean() < cost.mean()
    made.step()  # nothing was tried since
    torch.testing.assert_close(made.z[index], expected, atol=2e-3, rtol=1e-3)


def test_the_weights_raise_the_cost(frozen):
    made, index = make(frozen, push=100.0), torch.arange(0, 600, 7)
    new = sa.CVAE.from_state(frozen.to_state())
    tried = made.z[index], made.labels[index], made.images[index]
    before = price(new, *tried).mean()
    optimizer = torch.optim.Adam(new.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        made.loss(new, index).backward()
        optimizer.step()
        made.step()
    assert price(new, *tried).mean() > before + 20
    assert price(new, made.z[index], *tried[1:]).mean() < price(new, *tried).mean()


def test_forgetting_attacks_unless_it_is_told_not_to(model, fishers):
    config = sa.AmnesiaConfig(epochs_unl=1, batch_size=64, replay_samples=640)
    result = sa.forget(model, fishers.without(3), 3, config)
    assert len(result.history["attack"]) == result.steps
    alone = sa.forget(model, fishers.without(3), 3, replace(config, w_attack=0.0))
    assert "attack" not in alone.history
