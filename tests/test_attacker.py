"""The attacker in the loop: where its fits begin, its loss, and where it moves."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import sahelpers as sa
from sahelpers.attacker import FITS, IMAGES_PER_FIT, LEAK, STEPS_PER_FIT, Attacker
from sahelpers.surrogates import make_surrogate


def make(model, forget_class=(3,), weight=0.5, push=10.0, seed=0, z_fits=0):
    model, gray = model.requires_grad_(False), make_surrogate("gray", model, (0,))
    return Attacker(model, forget_class, gray, weight, push, sa.seeded(seed), z_fits)


@pytest.fixture
def frozen(model):
    return sa.CVAE.from_state(model.to_state())


def price(model, made):
    """Of every image, one by one, with the label's weights in the network itself."""
    model, found = sa.CVAE.from_state(model.to_state()), torch.zeros(FITS, IMAGES_PER_FIT)
    for fit in range(FITS):
        with torch.no_grad():
            model.decoder[0].weight[:, model.latent_dim] = made.labels[fit]  # in place of the 0
        for k in range(IMAGES_PER_FIT):
            logits = model.decode_logits(made.z[fit, k : k + 1], torch.tensor([0]))
            image = made.images[fit, k : k + 1]
            drawn = F.binary_cross_entropy_with_logits(logits, image, reduction="sum")
            found[fit, k] = drawn.detach() + 0.5 * (made.z[fit, k] ** 2).sum()
    return found


def move(made, model, steps=1):
    for _ in range(steps):
        made.loss(model).backward()
        made.step(model)


def test_fits_begin_at_kept_labels_or_their_mean_with_images_of_the_forgotten_classes(frozen):
    made, kept = make(frozen, (3, 5)), [c for c in range(10) if c not in (3, 5)]
    starts = frozen.label_columns()[kept]
    starts = torch.cat([starts, starts.mean(0, keepdim=True)])
    near = torch.cdist(made.labels, starts).min(1)
    assert near.values.max() < 1e-5
    assert 8 in near.indices  # the mean
    assert len(near.indices.unique()) > 3
    assert not made.z.any()
    assert made.images.shape == (FITS, IMAGES_PER_FIT, 1, 28, 28)
    for fit in range(FITS):
        prices = []
        for label in (3, 5):  # one class, at the frozen model's own price for it
            own = torch.full((IMAGES_PER_FIT,), label)
            z = frozen.encode(made.images[fit], own)[0]
            logits = frozen.decode_logits(z, own)
            drawn = F.binary_cross_entropy_with_logits(logits, made.images[fit], reduction="none")
            prices.append(drawn.flatten(1).sum(1) + 0.5 * (z**2).sum(1) + 10.0)
        wrong = [(p - made.allowed[fit]).abs().max() for p in prices]
        assert min(wrong) < 1e-2
    again = make(frozen, (3, 5))
    assert torch.equal(again.images, made.images)


def test_there_may_be_one_kept_label():
    torch.manual_seed(0)
    two = sa.CVAE(latent_dim=3, num_classes=2).eval()
    made = make(two, (0,))
    torch.testing.assert_close(made.labels, two.label_columns()[1].expand(FITS, -1))


def test_the_loss_is_what_the_images_lack(frozen):
    made = make(frozen)
    missing = made.allowed - price(frozen, made)
    expected = 0.5 * torch.where(missing > 0, missing, LEAK * missing).mean()
    assert made.loss(frozen).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("push", [10.0, -1000.0])  # all images lack something; none does
def test_the_attacker_descends_the_cost_whether_or_not_the_images_cost_enough(frozen, push):
    made = make(frozen, push=push)
    z, labels, before = made.z.clone(), made.labels.clone(), price(frozen, made)
    move(made, frozen, STEPS_PER_FIT // FITS - 1)
    assert (made.z != z).any(-1).all()
    assert (made.labels != labels).any(-1).all()
    assert (price(frozen, made).mean(1) < before.mean(1)).all()


def test_the_hinge_changes_how_much_the_model_learns_and_not_where_the_attacker_goes(frozen):
    one, other = make(frozen), make(frozen, push=-1000.0)
    move(one, frozen)
    move(other, frozen)
    torch.testing.assert_close(one.z, other.z, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(one.labels, other.labels, atol=1e-4, rtol=1e-3)


def test_each_fit_begins_anew_once_in_its_life(frozen):
    made, begun = make(frozen), []
    begin = made._begin_fit
    made._begin_fit = lambda fit, model: begun.append((made.steps, fit)) or begin(fit, model)
    images = made.images.clone()
    move(made, frozen, STEPS_PER_FIT)
    assert sorted(fit for _, fit in begun) == list(range(FITS))
    steps = [step for step, _ in begun]
    assert min(b - a for a, b in itertools.pairwise(steps)) >= STEPS_PER_FIT // FITS
    assert not (made.images == images).flatten(1).all(1).any()
    last = begun[-1]
    assert last[0] == STEPS_PER_FIT
    assert not made.z[last[1]].any()
    for state in made.optimizer.state.values():
        assert not state["exp_avg"][last[1]].any()
        assert not state["exp_avg_sq"][last[1]].any()


def test_what_was_forgotten_before_is_left_alone(frozen):
    with torch.no_grad():
        frozen.decoder[-1].weight.zero_()  # gray under every label
        frozen.decoder[-1].bias.zero_()
    assert not make(frozen).allowed.any()


def test_the_weights_raise_the_cost(frozen):
    made, new = make(frozen, push=100.0), sa.CVAE.from_state(frozen.to_state())
    move(made, frozen, 10)
    before = price(new, made).mean()
    optimizer = torch.optim.Adam(new.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        made.loss(new).backward()
        optimizer.step()
    assert price(new, made).mean() > before + 20


def test_a_step_needs_a_backward_pass(frozen):
    made = make(frozen)
    made.loss(frozen)
    with pytest.raises(AssertionError, match="backward"):
        made.step(frozen)


def test_forgetting_attacks_unless_it_is_told_not_to(model, fishers):
    config = sa.AmnesiaConfig(epochs_unl=1, batch_size=64, replay_samples=640)
    result = sa.forget(model, fishers.without(3), 3, config)
    assert len(result.history["attack"]) == result.steps
    alone = sa.forget(model, fishers.without(3), 3, replace(config, w_attack=0.0))
    assert "attack" not in alone.history


def test_some_fits_may_keep_their_label(frozen):
    made = make(frozen, z_fits=5)
    before = made.labels.clone()
    move(made, frozen, 3)
    assert torch.equal(made.labels[:5], before[:5])
    assert (made.labels[5:] != before[5:]).any(1).all()
    assert made.z.flatten(1).any(1).all()


def test_the_weight_follows_a_budget(frozen):
    attacker = make(frozen, weight=0.5)
    attacker.follow(paid=1.1, allowed=1.0)  # a tenth too much
    assert attacker.weight == pytest.approx(0.45)
    attacker.follow(paid=50.0, allowed=1.0)  # far too much, but it falls by a fifth at most
    assert attacker.weight == pytest.approx(0.36)
    attacker.follow(paid=1.0, allowed=1.0)
    assert attacker.weight == pytest.approx(0.36)
    attacker.follow(paid=-2.0, allowed=1.0)
    assert attacker.weight == pytest.approx(0.432)
    for _ in range(3):
        attacker.follow(paid=0.0, allowed=1.0)
    assert attacker.weight == 0.5  # never more than it was given


def test_the_loss_has_the_weight_of_the_moment(frozen):
    attacker = make(frozen, weight=0.5)
    before = float(attacker.loss(frozen).detach())
    attacker.follow(paid=0.9, allowed=0.75)
    assert float(attacker.loss(frozen).detach()) == pytest.approx(0.8 * before)
