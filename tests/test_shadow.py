"""The healing in the loop: what the shadow learns, when it begins anew, what it hands over."""

from dataclasses import replace

import pytest
import torch

import sahelpers as sa
from sahelpers.objective import Objective
from sahelpers.shadow import Shadow


@pytest.fixture
def moved(model):
    """The model with other weights: of its own images it has nothing to learn."""
    model = copy_of(model)
    generator = sa.seeded(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def objective(model, fishers):
    frozen = sa.CVAE.from_state(model.to_state()).requires_grad_(False)
    config = sa.AmnesiaConfig(replay_samples=256, batch_size=32, w_attack=0.1)
    return Objective(frozen, fishers.without(3), (3,), config)


def copy_of(model):
    return sa.CVAE.from_state(model.to_state())


def same(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return [torch.equal(a, b) for a, b in pairs]


def test_it_is_trained_on_with_kept_images_and_begins_anew(moved, objective):
    model, shadow = moved, Shadow(moved, every=3, rate=1e-3)
    batch = objective.draw(32, sa.seeded(0))
    costs = []
    for step in range(1, 4):
        replay = objective.replay_loss(shadow.model, batch)
        costs.append(float(replay.detach()))
        shadow.heal(model, replay)
        if step < 3:
            assert not any(same(model.decoder, shadow.model.decoder))
            assert all(same(model.encoder, shadow.model.encoder))
    assert costs[0] > costs[1] > costs[2]
    assert all(same(model, shadow.model))  # after three steps it is the model again
    assert not shadow.optimizer.state  # and Adam remembers nothing


def test_its_gradient_becomes_the_models_own_besides_what_is_there(moved, objective):
    model = moved
    shadow = Shadow(model, every=10, rate=0.01)
    batch = objective.draw(32, sa.seeded(0))
    shadow.heal(model, objective.replay_loss(shadow.model, batch))
    terms = objective.terms(model, batch, attacked=shadow.model)
    (terms["forget"] + terms["replay"] + terms["attack"]).backward()
    own = [p.grad.clone() for p in model.decoder.parameters()]
    of_shadow = [p.grad.clone() for p in shadow.model.decoder.parameters()]
    assert any(gradient.any() for gradient in of_shadow)
    shadow.hand_over(model)
    for parameter, before, added in zip(model.decoder.parameters(), own, of_shadow, strict=True):
        torch.testing.assert_close(parameter.grad, before + added)
    assert all(p.grad is None for p in shadow.model.parameters())
    assert all(p.grad is None for p in model.encoder.parameters())


def test_the_attacker_meets_the_shadow_and_the_other_terms_the_model(moved, objective):
    model, shadow = moved, Shadow(moved, every=10, rate=1e-3)
    batch = objective.draw(32, sa.seeded(0))
    shadow.heal(model, objective.replay_loss(shadow.model, batch))
    beside = objective.terms(model, batch, attacked=shadow.model)
    alone = objective.terms(model, batch)
    assert beside["forget"] == alone["forget"]
    assert beside["replay"] == alone["replay"]
    assert beside["attack"] == objective.attacker.loss(shadow.model) != alone["attack"]


def test_without_an_attacker_or_at_zero_there_is_no_shadow(model, fishers):
    short = sa.AmnesiaConfig(
        replay_samples=64, batch_size=32, epochs_unl=2, cooldown=0, heal_every=0
    )
    forgotten = {
        name: sa.forget(model, fishers.without(3), 3, config).model
        for name, config in {
            "off": short,
            "off, another rate": replace(short, heal_rate=0.1),
            "on": replace(short, heal_every=2),
            "no attacker": replace(short, w_attack=0.0),
            "no attacker, on": replace(short, w_attack=0.0, heal_every=2),
        }.items()
    }
    assert all(same(forgotten["off"], forgotten["off, another rate"]))
    assert all(same(forgotten["no attacker"], forgotten["no attacker, on"]))
    assert not all(same(forgotten["off"].decoder, forgotten["on"].decoder))
