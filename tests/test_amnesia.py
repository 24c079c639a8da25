import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

import sahelpers as sa
from sahelpers import amnesia
from sahelpers.amnesia import HELD_OUT
from sahelpers.objective import EWC_SCALE, Batch, Objective
from sahelpers.shadow import Shadow

QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=640, batch_size=32, cooldown=5, tolerance=0.0)


def objective(model, fisher, config=QUICK, forget_class=(3,), surrogate="gray", real=None):
    q = sa.make_surrogate(surrogate, model, sa.kept_classes(forget_class), config.gray_value)
    return sa.Objective(model, fisher, forget_class, config, q, real)


def shaken(model, size=0.02):
    twin = sa.CVAE.from_state(model.to_state())
    with torch.no_grad():
        for p in twin.parameters():
            p += size * torch.randn(p.shape, generator=sa.seeded(0))
    return twin


def state_bytes(model):
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}


def test_the_input_model_is_bit_identical_afterwards(model, fishers):
    before = state_bytes(model)
    model.train()
    sa.forget(model, fishers.without(3), 3, QUICK)
    assert state_bytes(model) == before
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()


def test_same_seed_same_result_and_the_global_generator_is_not_touched(model, fishers):
    state = torch.get_rng_state()
    first, again = (sa.forget(model, fishers.without(3), 3, QUICK) for _ in range(2))
    other = sa.forget(model, fishers.without(3), 3, replace(QUICK, seed=1))
    assert state_bytes(first.model) == state_bytes(again.model)
    assert state_bytes(first.model) != state_bytes(other.model)
    assert first.history == again.history
    assert torch.equal(state, torch.get_rng_state())


def test_the_class_turns_into_the_surrogate_and_the_others_stay(model, fishers):
    config = sa.AmnesiaConfig(epochs_unl=4, batch_size=64, replay_samples=6400)
    result = sa.forget(model, fishers.without(3), 3, config)
    latents = sa.fixed_latents(model, 50, prior="standard")
    old, new = (sa.draw_images(m, latents) for m in (model, result.model))
    gone = latents.labels == 3
    assert (new[gone] - 0.5).square().mean().sqrt() < 0.12
    assert (old[gone] - 0.5).square().mean().sqrt() > 0.3
    assert (new[~gone] - old[~gone]).square().mean().sqrt() < 0.08


def test_the_gaussian_of_the_class_is_erased_and_the_others_are_kept(model, fishers):
    result = sa.forget(model, fishers.without((3, 5)), (5, 3), QUICK)
    for label in range(10):
        same = torch.equal(result.model.prior_mean[label], model.prior_mean[label])
        assert same == (label not in (3, 5))
        if label in (3, 5):
            assert torch.equal(result.model.prior_mean[label], torch.zeros(3))
            assert torch.equal(result.model.prior_scale[label], torch.eye(3))
    assert result.forget_class == (3, 5)


@pytest.mark.parametrize("form", ["decoder", "elbo"])
def test_terms_equal_the_formula(model, fishers, form):
    config = replace(QUICK, forget_form=form, replay_form=form, neg_loss_weight=0.7, gamma=1.3)
    goal = objective(model, fishers.without(3), config)
    batch, new = goal.draw(6, sa.seeded(0)), shaken(model)

    def by_hand(z, labels, images, noise):
        decoder = F.binary_cross_entropy_with_logits(
            new.decode_logits(z, labels), images, reduction="sum"
        )
        mean, log_var = new.encode(images, labels)
        drawn = mean + noise * (log_var / 2).exp()
        elbo = F.binary_cross_entropy_with_logits(
            new.decode_logits(drawn, labels), images, reduction="sum"
        ) + 0.5 * torch.sum(mean**2 + log_var.exp() - log_var - 1)
        return {"decoder": decoder, "elbo": elbo}[form] / len(z)

    terms = goal.terms(new, batch)
    assert set(terms) == {"forget", "replay", "attack"}
    gone = by_hand(batch.forget_z, batch.forget_labels, batch.forget_images, batch.forget_noise)
    kept = by_hand(batch.keep_z, batch.keep_labels, batch.keep_images, batch.keep_noise)
    assert torch.allclose(terms["forget"], 0.7 * gone, rtol=1e-5)
    assert torch.allclose(terms["replay"], 1.3 * kept, rtol=1e-5)
    assert torch.allclose(
        batch.keep_images, model.decode(batch.keep_z, batch.keep_labels), atol=1e-6
    )


def test_every_second_label_lies_between_the_class_and_the_mean_of_the_kept(model, fishers):
    goal = objective(
        model, fishers.without((3, 5)), replace(QUICK, y_reach=0.8), forget_class=(3, 5)
    )
    batch = goal.draw(1000, sa.seeded(0))
    labels = batch.forget_labels[::2]
    own = labels[:, [3, 5]].amax(1)
    share = (1 - own) / 0.8  # of the way to the mean
    assert stats.kstest(share.numpy(), "uniform").pvalue > 0.01
    kept = [c for c in range(10) if c not in (3, 5)]
    expected = ((1 - own) / 8)[:, None].expand(-1, 8)
    torch.testing.assert_close(labels[:, kept], expected)
    torch.testing.assert_close(batch.forget_labels.sum(1), torch.ones(1000))
    assert set(batch.keep_labels.argmax(1).tolist()) == set(kept)
    assert batch.keep_labels.sum() == batch.keep_labels.amax(1).sum() == 1000
    plain = objective(model, fishers.without(3), replace(QUICK, y_reach=0.0)).draw(8, sa.seeded(0))
    assert torch.equal(plain.forget_labels, F.one_hot(torch.full((8,), 3), 10).float())


def test_the_others_are_mixtures_of_all_labels_and_no_kept_one_rules(model, fishers):
    batch = objective(model, fishers.without(3), QUICK).draw(4000, sa.seeded(0))
    mixed = batch.forget_labels[1::2]
    torch.testing.assert_close(mixed.sum(1), torch.ones(2000))
    assert mixed.min() >= 0
    kept = mixed[:, [c for c in range(10) if c != 3]]
    assert kept.max() <= 0.75
    assert kept.amax(1).max() > 0.7
    # as Dirichlet(1/2): a kept label's share is a beta variable, where no share is large
    law, few = stats.beta(0.5, 4.5), kept[:, 0][mixed.amax(1) < 0.5].numpy()
    assert abs((few < 0.05).mean() - law.cdf(0.05)) < 0.1
    half = objective(model, fishers.without(3), replace(QUICK, y_reach=0.5)).draw(64, sa.seeded(0))
    whole = objective(model, fishers.without(3), QUICK).draw(64, sa.seeded(0))
    own = F.one_hot(torch.tensor(3), 10)
    torch.testing.assert_close(
        half.forget_labels[1::2], (own + whole.forget_labels[1::2]) / 2, check_dtype=False
    )


def test_consolidation_is_on_the_documented_scale(model, fishers):
    fisher, new = fishers.without(3), shaken(model)
    goal = objective(model, fisher, replace(QUICK, ewc_lambda=500.0))
    old = dict(model.named_parameters())
    total = sum(
        (fisher.diagonal[k] * (p - old[k]).detach() ** 2).sum() for k, p in new.named_parameters()
    )
    assert goal.ewc.value(new) == pytest.approx(0.025 * float(total), rel=1e-4)
    assert goal.ewc.value(model) == 0


def test_paper_preset_is_the_official_formula(model, mnist):
    """Official: sum over 256 + 256 images of the negative ELBO, plus 100 * sum F d^2."""
    config = sa.AmnesiaConfig.paper(batch_size=16)
    drawn = sa.FisherConfig(n_fisher_samples=50, source="model_mean")
    fisher = sa.class_fishers(model, None, drawn).without(())
    goal = objective(model, fisher, config, surrogate=config.surrogate)
    batch, new = goal.draw(16, sa.seeded(0)), shaken(model)
    ours = sum(goal.terms(new, batch).values()) + goal.ewc.value(new)

    official = torch.zeros(())
    for images, labels, noise in (
        (batch.forget_images, batch.forget_labels, batch.forget_noise),
        (batch.keep_images, batch.keep_labels, batch.keep_noise),
    ):
        mean, log_var = new.encode(images, labels)
        p = new.decode(mean + noise * (log_var / 2).exp(), labels)
        official = official + F.binary_cross_entropy(p, images, reduction="sum")
        official = official - 0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp())
    lam = 100 * 16 / 256  # their batch of 256 scales the likelihood terms, not EWC
    for (name, p), q in zip(new.named_parameters(), model.parameters(), strict=True):
        official = official + lam * (fisher.diagonal[name] * (p - q) ** 2).sum()
    assert torch.allclose(16 * ours, official, rtol=1e-4)
    assert config.epochs_unl * config.replay_samples // 256 == 10_000
    assert batch.forget_images.std() == pytest.approx(12**-0.5, abs=0.01)  # uniform noise
    assert pytest.approx(100 / 256) == 7812.5 / (2 * EWC_SCALE)


def test_reference_preset_is_its_formula(model, fishers, mnist):
    """5 * mean |x - gray| + negative ELBO on real and replayed kept images."""
    data = mnist.take(2000)
    config = sa.AmnesiaConfig.reference()
    goal = objective(model, fishers.without(3), config, real=data)
    batch, new = goal.draw(12, sa.seeded(0)), shaken(model)
    terms = goal.terms(new, batch)
    apart = (new.decode(batch.forget_z, batch.forget_labels) - 0.5).abs().mean()
    assert torch.allclose(terms["forget"], 5 * apart)
    elbo = sum(sa.elbo_terms(new, batch.keep_images, batch.keep_labels, batch.keep_noise))
    assert torch.allclose(terms["replay"], elbo.mean())
    kept = data.without(3).images.flatten(1)
    real = [(kept == image.flatten()).all(1).any().item() for image in batch.keep_images]
    assert sum(real) == round(12 * len(kept) / (len(kept) + 10_000))


def test_penalties_pull_to_the_surrogate_and_do_not_fight_it(model, fishers):
    weights = {"w_contrast": 2.0, "w_ink": 3.0, "w_tv": 4.0, "w_orient": 5.0}
    goal = objective(model, fishers.without(3), replace(QUICK, **weights))
    batch = goal.draw(6, sa.seeded(0))
    images = model.decode(batch.forget_z, batch.forget_labels)
    terms = goal.terms(model, batch)
    assert torch.allclose(terms["contrast"], 2 * ((images - 0.5) ** 2).mean())
    assert torch.allclose(terms["ink"], 3 * ((images.mean((1, 2, 3)) - 0.5) ** 2).mean())
    assert torch.allclose(terms["tv"], 4 * sa.total_variation(images).mean())
    assert torch.allclose(terms["orient"], 5 * sa.orientation_entropy(images).mean())


@pytest.mark.parametrize("form", ["decoder", "elbo"])
def test_gradients_by_finite_differences(fishers, form):
    torch.manual_seed(1)
    model = sa.CVAE(latent_dim=3).double().eval()
    config = replace(
        QUICK, forget_form=form, replay_form=form, w_contrast=1.0, w_ink=1.0, w_tv=0.0, w_orient=0.0
    )
    goal = objective(model, fishers.without(3), config)
    batch = goal.draw(3, sa.seeded(0))
    direction = [torch.randn_like(p) for p in model.parameters()]

    def loss(step):
        twin = sa.CVAE.from_state(model.to_state()).double()
        twin.load_state_dict(model.state_dict())
        with torch.no_grad():
            for p, d in zip(twin.parameters(), direction, strict=True):
                p += step * d
        return twin, torch.stack(list(goal.terms(twin, batch).values())).sum()

    twin, value = loss(0.0)
    gradients = torch.autograd.grad(value, list(twin.parameters()), allow_unused=True)
    slope = sum(
        float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None
    )
    h = 1e-8  # small, or ReLUs change sides between the two points
    numeric = float((loss(h)[1] - loss(-h)[1]).detach()) / (2 * h)
    assert slope == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_what_kept_images_pay_is_a_divergence_from_the_frozen_model(model, fishers):
    goal, new = objective(model, fishers.without(3), QUICK), shaken(model)
    z, labels, images = (part[:512] for part in goal.replay)
    p, q = images.clamp(1e-7, 1 - 1e-7).double(), new.decode(z, labels).detach().double()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert goal.paid(new) == pytest.approx(float(divergence.flatten(1).sum(1).mean()), rel=1e-3)
    assert goal.paid(new) > 0
    assert goal.paid(model) == pytest.approx(0, abs=1e-4)


def test_replay_images_that_would_fill_the_memory_are_drawn_when_needed(
    model, fishers, monkeypatch
):
    held = objective(model, fishers.without(3), QUICK)
    monkeypatch.setattr("sahelpers.objective.MOST_BYTES", 1000)
    drawn = objective(model, fishers.without(3), QUICK)
    assert drawn.replay[2] is None
    one, other = (goal.draw(32, sa.seeded(0)) for goal in (held, drawn))
    torch.testing.assert_close(one.keep_images, other.keep_images, rtol=1e-4, atol=1e-6)
    assert torch.equal(one.keep_z, other.keep_z)
    assert torch.equal(one.forget_images, other.forget_images)
    new = shaken(model)
    assert held.paid(new) == pytest.approx(drawn.paid(new), rel=1e-3)


def test_a_step_may_forget_fewer_examples_than_it_keeps(model, fishers):
    goal, new = objective(model, fishers.without(3), QUICK), shaken(model)
    batch = goal.draw(24, sa.seeded(0), 5)
    assert len(batch.forget_z) == len(batch.forget_labels) == len(batch.forget_noise) == 5
    assert len(batch.keep_z) == len(batch.keep_images) == len(batch.keep_noise) == 24
    terms = goal.terms(new, batch)
    replay = float(goal.replay_loss(new, batch).detach())
    assert float(terms["replay"].detach()) == pytest.approx(QUICK.gamma * replay, rel=1e-5)
    few = Batch(**{name: part[:7] for name, part in vars(batch).items()})
    part = float(goal.replay_loss(new, batch, 7).detach())
    assert part == pytest.approx(float(goal.replay_loss(new, few).detach()))
    assert part != pytest.approx(replay)


def test_the_budget_weakens_an_attacker_that_costs_too_much(model, fishers):
    """Runs of one seed, of which one may cost kept images next to nothing."""
    config = replace(QUICK, w_attack=3.0, epochs_unl=3, cooldown=0)
    paid, at_the_end = {}, {}
    for budget in (0.0, 1e-3, 1e4):
        result = sa.forget(model, fishers.without(3), 3, replace(config, kept_budget=budget))
        paid[budget] = objective(model, fishers.without(3), config).paid(result.model)
        at_the_end[budget] = result.history["attack_weight"][-1]
        weights = [p.clone() for p in result.model.parameters()]
        if budget == 0.0:
            fixed = weights
    assert at_the_end[1e-3] == pytest.approx(3.0 * 0.8**5)  # looked at after 10, ..., 50 steps
    assert at_the_end[0.0] == at_the_end[1e4] == 3.0
    assert paid[1e-3] < paid[0.0]
    assert all(torch.equal(a, b) for a, b in zip(fixed, weights, strict=True))  # never reached


@pytest.mark.parametrize("heal_every", [0, 2])
def test_three_steps_are_adam_on_the_sum_of_the_terms(model, fishers, heal_every):
    config = replace(QUICK, replay_samples=96, cooldown=0, heal_every=heal_every)
    result = sa.forget(model, fishers.without(3), 3, config)
    goal, generator = objective(model, fishers.without(3), config), sa.seeded(config.seed)
    goal.latents(goal.labels((3,), HELD_OUT, generator), generator)  # held out, drawn first
    new = sa.CVAE.from_state(model.to_state())
    adam = torch.optim.Adam(new.parameters(), lr=config.lr_unl)
    shadow = Shadow(new, heal_every, config.heal_rate) if heal_every else None
    for _ in range(3):
        adam.zero_grad()
        batch = goal.draw(32, generator)
        attacked = new if shadow is None else shadow.model
        torch.stack(list(goal.terms(new, batch, attacked).values())).sum().backward()
        if shadow is not None:
            shadow.hand_over(new)
        adam.step()
        goal.ewc.step(adam, new)
        goal.attacker.step(attacked)
        if shadow is not None:
            shadow.heal(new, goal.replay_loss(shadow.model, batch))
    assert result.steps == 3
    for found, right in zip(result.model.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)


def test_weights_that_became_nan_are_an_error(model, fishers):
    config = replace(QUICK, forget_form="elbo", lr_unl=1.0, epochs_unl=9, ewc_lambda=0.0)
    with pytest.raises(ValueError, match=r"became NaN within .* lr_unl=1 is too large"):
        sa.forget(model, fishers.without(3), 3, config)


def test_infinite_lambda_holds_every_weight_with_fisher(model, fishers):
    fisher = fishers.without(3)
    new = sa.forget(model, fisher, 3, replace(QUICK, ewc_lambda=1e12)).model
    free = sa.forget(model, fisher, 3, replace(QUICK, ewc_lambda=0.0)).model
    for name, p in new.named_parameters():
        if name.startswith("decoder"):  # the decoder form moves no other
            held, q = fisher.diagonal[name] > 1e-3, model.get_parameter(name)
            moved, would = ((m - q)[held].abs().max() for m in (p, free.get_parameter(name)))
            assert moved < 1e-3 * would
    column = model.latent_dim + 3  # the loophole: nothing but c_f uses its label column
    assert fisher.diagonal["decoder.0.weight"][:, column].abs().max() == 0
    moved = (new.decoder[0].weight - model.decoder[0].weight)[:, column]
    assert moved.abs().max() > 1e-3


def test_proximal_step_is_the_minimiser_it_claims_to_be(model, fishers):
    """Zero gradient of P/(2 lr) (x - theta)^2 + s F/2 (x - theta*)^2 at the new weights."""
    goal = objective(model, fishers.without(3), replace(QUICK, ewc_lambda=3e4))
    new = sa.CVAE.from_state(model.to_state())
    optimizer = torch.optim.Adam(new.parameters(), lr=1e-2)
    sum(goal.terms(new, goal.draw(8, sa.seeded(0))).values()).backward()
    optimizer.step()
    theta = {k: p.detach().clone() for k, p in new.named_parameters()}
    goal.ewc.step(optimizer, new)
    for name, p in new.named_parameters():
        state = optimizer.state.get(p)
        if not state:
            assert torch.equal(p, theta[name])
            continue
        stiffness = ((state["exp_avg_sq"] / (1 - 0.999)).sqrt() + 1e-8) / 1e-2
        pull = 3e4 / EWC_SCALE * goal.ewc.fisher[name]
        slope = stiffness * (p - theta[name]) + pull * (p - goal.ewc.theta_star[name])
        assert (slope / (stiffness + pull)).abs().max() < 1e-6


@pytest.mark.full
def test_without_ewc_and_replay_only_the_bare_forget_term_is_left(model, fishers):
    config = replace(QUICK, ewc_lambda=0.0, gamma=0.0)
    goal = objective(model, fishers.without(3), config)
    terms = goal.terms(model, goal.draw(8, sa.seeded(0)))
    assert terms["replay"] == 0
    other = sa.class_fishers(model, None, sa.FisherConfig(n_fisher_samples=10, source="model_mean"))
    a = sa.forget(model, fishers.without(3), 3, config)
    b = sa.forget(model, other.without(3), 3, config)  # the Fisher does not matter at lambda 0
    assert state_bytes(a.model) == state_bytes(b.model)


def test_it_stops_when_it_is_done_or_out_of_budget(model, fishers):
    done = sa.forget(model, fishers.without(3), 3, replace(QUICK, tolerance=0.5))
    assert (done.reason, done.steps) == ("done", QUICK.cooldown)
    spent = sa.forget(model, fishers.without(3), 3, QUICK)
    assert (spent.reason, spent.steps) == ("budget", 640 // 32)
    assert set(spent.history) == {
        "forget",
        "replay",
        "attack",
        "attack_weight",
        "ewc",
        "distance",
    }
    assert all(len(v) == 20 and all(map(math.isfinite, v)) for v in spent.history.values())


def test_a_callback_watches_and_stops(model, fishers):
    seen = []

    def watch(step, new, numbers):
        seen.append((step, new, numbers["forget"]))
        return step < 6

    result = sa.forget(model, fishers.without(3), 3, QUICK, on_step=watch)
    assert [s for s, _, _ in seen] == list(range(7))
    assert result.reason == "stopped"
    assert result.history["forget"] == [f for _, _, f in seen]
    assert not result.model.training
    assert torch.isfinite(result.model.sample(torch.arange(10), generator=sa.seeded(0))).all()


@pytest.mark.parametrize("no", [np.False_, torch.tensor(False)])
def test_every_kind_of_no_stops(model, fishers, no):
    """`step < few` is np.False_ where few is NumPy's, and the run went on to its end."""
    stopped = sa.forget(model, fishers.without(3), 3, QUICK, on_step=lambda *_: no)
    assert (stopped.reason, stopped.steps) == ("stopped", 1)
    for on_step in (lambda *_: None, lambda *_: np.True_, lambda *_: 0):
        assert sa.forget(model, fishers.without(3), 3, QUICK, on_step=on_step).steps == 20


def test_real_images_are_counted_and_never_of_the_class(model, fishers, mnist):
    data = mnist.take(300)
    result = sa.forget(model, fishers.without(3), 3, QUICK, real_images=data)
    assert result.real_images == int((data.labels != 3).sum())
    without = sa.forget(model, fishers.without(3), 3, QUICK)
    assert (without.real_images, without.steps) == (0, QUICK.max_steps())
    images = QUICK.replay_samples + result.real_images  # a pass is longer by them
    assert result.steps == -(-images // QUICK.batch_size) > QUICK.max_steps()
    with pytest.raises(ValueError, match="no image of the kept classes"):
        sa.forget(model, fishers.without(3), 3, QUICK, real_images=data.only(3))
    most = replace(QUICK, replay_samples=1_000_000)  # the largest that there is
    assert most.max_steps(len(data)) > most.max_steps()


def test_of_few_real_images_one_is_in_every_step(model, fishers, digits):
    config = sa.AmnesiaConfig(w_attack=0, replay_samples=60_000)
    few = digits.without(3).take(15)
    objective = Objective(model, fishers.without(3), (3,), config, real_images=few)
    kept = objective.draw(256, sa.seeded(0)).keep_images
    assert any(torch.equal(kept[0], image) for image in few.images)
    assert not any(torch.equal(kept[1], image) for image in few.images)


def test_where_kept_images_are_replayed_the_encoder_moves_too(model, fishers, mnist):
    few = {"epochs_unl": 1, "replay_samples": 64, "batch_size": 32, "cooldown": 2}

    def moved(config, **real):
        new = sa.forget(model, fishers.without(3), 3, config, **real).model
        return {
            name.partition(".")[0]
            for name, weight in new.named_parameters()
            if not torch.equal(weight, model.get_parameter(name))
        }

    assert moved(sa.AmnesiaConfig(**few)) == {"decoder"}
    kept = sa.AmnesiaConfig.with_kept_images(**few)
    assert moved(kept, real_images=mnist.take(64)) == {"encoder", "decoder"}


def test_without_a_configuration_real_images_are_replayed_by_that_for_them(
    model, fishers, mnist, monkeypatch
):
    taken = []

    class Noted(amnesia.Objective):
        def __init__(self, frozen, fisher, gone, config, *rest):
            taken.append(config)
            super().__init__(frozen, fisher, gone, replace(config, replay_samples=64), *rest)

    monkeypatch.setattr(amnesia, "Objective", Noted)
    data = mnist.take(64)
    kept = int((data.labels != 3).sum())
    for real in (None, data):
        sa.forget(model, fishers.without(3), 3, real_images=real, on_step=lambda *_: False)
    assert taken == [sa.AmnesiaConfig(), sa.AmnesiaConfig.with_kept_images(images=kept)]
    with pytest.raises(ValueError, match="no image of the kept classes"):
        sa.forget(model, fishers.without(3), 3, real_images=data.only((3,)).only((4,)))


@pytest.mark.full
def test_forgotten_twice_is_forgotten_still(model, fishers):
    config = sa.AmnesiaConfig(epochs_unl=4, batch_size=64, replay_samples=6400)
    once = sa.forget(model, fishers.without(3), 3, config)
    twice = sa.forget(once.model, fishers.without(3), 3, config)
    latents = sa.fixed_latents(model, 50, prior="standard")
    gone = latents.labels == 3
    a, b = (sa.draw_images(r.model, latents) for r in (once, twice))
    assert (b[gone] - 0.5).square().mean().sqrt() < 0.08
    assert (b[~gone] - a[~gone]).square().mean().sqrt() < 0.08


def test_state_round_trip(model, fishers):
    result = sa.forget(model, fishers.without(3), 3, QUICK)
    twin = sa.AmnesiaResult.from_state(result.to_state())
    assert state_bytes(twin.model) == state_bytes(result.model)
    assert (twin.forget_class, twin.history, twin.reason) == ((3,), result.history, "budget")


@pytest.mark.parametrize("bad", [11, -1, "three", (), None, range(10), (3, 12)])
def test_classes_that_cannot_be_forgotten(model, fishers, bad):
    with pytest.raises(ValueError, match="class"):
        sa.forget(model, fishers.without(3), bad, QUICK)


def test_a_fisher_of_another_model_names_the_parameter(model, mnist):
    conv = sa.CVAE("conv", latent_dim=3)
    other = sa.class_fishers(conv, mnist, sa.FisherConfig(n_fisher_samples=10))
    with pytest.raises(
        ValueError, match=r"Fisher does not fit: encoder\.0\.weight is \(512, 794\)"
    ):
        sa.forget(model, other.without(3), 3, QUICK)


@pytest.mark.parametrize(
    "field", ["gamma", "neg_loss_weight", "ewc_lambda", "w_contrast", "w_ink", "w_tv", "w_orient"]
)
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_weights_are_not_negative(field, value):
    with pytest.raises(ValueError, match=field):
        sa.AmnesiaConfig(**{field: value})


@pytest.mark.parametrize("field", ["epochs_unl", "replay_samples", "batch_size"])
def test_budget_is_not_zero(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        sa.AmnesiaConfig(**{field: 0})


def test_the_history_begins_where_the_model_begins(model, fishers):
    config = replace(QUICK, ewc_lambda=500.0)
    result = sa.forget(model, fishers.without(3), 3, config)
    ewc, distance = result.history["ewc"], result.history["distance"]
    assert ewc[:9] == [0.0] * 9  # nothing had moved when the run began
    assert ewc[9] > 0  # the first look
    latents = sa.fixed_latents(model, 500, prior="standard")
    drawn = sa.draw_images(model, latents)[latents.labels == 3]
    before = float((drawn - 0.5).square().mean().sqrt())
    assert distance[:9] == [pytest.approx(before, rel=0.1)] * 9
    assert distance[9] < distance[0]


def test_a_result_cannot_be_changed(model, fishers):
    result = sa.forget(model, fishers.without(3), 3, QUICK)
    with pytest.raises(FrozenInstanceError):
        result.reason = "done"
    assert result.seconds > 0


def test_the_rate_falls_to_zero_in_the_cooldown(model, fishers, monkeypatch):
    """With EWC off, Adam's step is the rate times a bounded ratio: the last steps are small."""
    moves, last = [], []

    def watch(step, new, numbers):
        now = torch.cat([p.detach().flatten() for p in new.parameters()])
        if last:
            moves.append(float((now - last.pop()).abs().max()))
        last.append(now)

    config = replace(QUICK, ewc_lambda=0.0, cooldown=10, lr_unl=1e-2)
    assert sa.forget(model, fishers.without(3), 3, config, on_step=watch).steps == 20
    for k, move in enumerate(moves[-9:], start=1):  # the k-th step after the rate began to fall
        assert move < 1.5 * 1e-2 * (1 - k / 10)


def test_without_a_cooldown_the_budget_is_spent_or_the_goal_ends_it(model, fishers):
    fixed = replace(QUICK, cooldown=0)
    spent = sa.forget(model, fishers.without(3), 3, fixed)
    assert (spent.reason, spent.steps) == ("budget", 640 // 32)
    goal = spent.history["distance"][9]  # at the first look: reached exactly is reached
    done = sa.forget(model, fishers.without(3), 3, replace(fixed, tolerance=goal))
    assert (done.reason, done.steps) == ("done", 10)


def test_forgetting_works_under_no_grad(model, fishers):
    with torch.no_grad():
        found = sa.forget(model, fishers.without(3), 3, QUICK)
        assert not torch.is_grad_enabled()
    again = sa.forget(model, fishers.without(3), 3, QUICK)
    assert state_bytes(found.model) == state_bytes(again.model)


def test_a_wrong_call_inside_a_callback_is_named_as_well(model, fishers):
    trained = sa.TrainedCVAE(model, {})
    with pytest.raises(TypeError, match="model is of type TrainedCVAE, not CVAE"):
        sa.forget(
            model, fishers.without(3), 3, QUICK,
            on_step=lambda *_: sa.invert_blind(trained, 3, sa.ProbeConfig(n_restarts=1, steps=1)),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "model is of type NoneType, not CVAE"),
        ({"fisher": None}, "fisher is of type NoneType, not Fisher"),
        ({"config": {}}, "config is of type dict, not AmnesiaConfig"),
        ({"real_images": []}, "real_images is of type list, not LabelledImages"),
        ({"on_step": 3}, "on_step=3 is not a function"),
    ],
)
def test_what_is_of_another_kind_is_named(model, fishers, change, words):
    given = {"model": model, "fisher": fishers.without(3), "forget_class": 3, "config": QUICK}
    with pytest.raises(TypeError, match=words):
        sa.forget(**given | change)
