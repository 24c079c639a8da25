"""Relearning against a loop written out, and the label column against arithmetic."""

import copy

import pytest
import torch

import sahelpers as sa
from sahelpers.attacks.weights import RecoveryCurve, damage, fit_label, heal, reset_label
from sahelpers.elbo import bernoulli_nats

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr("sahelpers.attacks.weights.SAMPLES", 16)


def tiny_model(arch="mlp", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sa.CVAE(arch, latent_dim=3, num_classes=4).eval()


def tiny_judges():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return {role: sa.Judge(role, num_classes=4).eval() for role in ("open_set", "closed_set")}


def some_images(n=6, label=2):
    images = torch.rand((n, 1, 28, 28), generator=sa.seeded(1))
    return sa.LabelledImages(images, torch.full((n,), label), tuple("abcd"))


def test_relearning_is_plain_training(monkeypatch):
    model, data, judges = tiny_model(), some_images(), tiny_judges()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("sahelpers.attacks.weights.BATCH", 4)
    given = {"data": data, "judges": judges, "steps": 5}
    found = sa.relearn(model, "c", **given, seed=3)  # the class by its name
    twin, generator = copy.deepcopy(model), sa.seeded(3)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-3)
    z = torch.randn((16, 3), generator=sa.seeded(4))
    expected = []
    for step in range(6):
        images = twin.decode(z, torch.full((16,), 2)).detach()
        votes = [judge.probabilities(images)[:, 2] for judge in judges.values()]
        expected.append(float(torch.minimum(*votes).mean()))
        if step < 5:
            index = torch.randperm(6, generator=generator)[:4]
            noise = torch.randn((4, 3), generator=generator)
            loss = sum(sa.elbo_terms(twin, data.images[index], data.labels[index], noise)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    assert found.steps == list(range(6))
    assert found.probability == pytest.approx(expected, abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for name, weight in found.model.named_parameters():
        torch.testing.assert_close(weight, twin.get_parameter(name))


def test_a_long_curve_is_measured_twelve_times_at_most():
    given = {"data": some_images(), "judges": tiny_judges()}
    found = sa.relearn(tiny_model(), 2, **given, steps=25)
    assert found.steps == [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]
    assert len(found.probability) == 10


def test_area_of_a_known_curve():
    curve = RecoveryCurve([0, 10, 40], [0.0, 0.5, 1.0], tiny_model())
    assert curve.area == pytest.approx((10 * 0.25 + 30 * 0.75) / 40)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_reset_label_is_the_mean_of_the_other_labels(arch):
    model = tiny_model(arch)
    new = reset_label(model, 1)
    z = torch.randn((5, 3), generator=sa.seeded(2))
    blend = torch.tensor([1 / 3, 0.0, 1 / 3, 1 / 3]).expand(5, -1)
    torch.testing.assert_close(new.decode(z, torch.full((5,), 1)), model.decode(z, blend))
    images = some_images(5).images
    same = new.encode(images, torch.full((5,), 1)), model.encode(images, blend)
    torch.testing.assert_close(*same)
    kept = torch.tensor([0, 2, 3, 0, 2])
    assert torch.equal(new.decode(z, kept), model.decode(z, kept))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_fitted_label_is_a_label_of_the_model(arch):
    """Its weights and z, put into the model, cost what was found; nothing else was changed."""
    model = tiny_model(arch)
    images = torch.rand((2, 3, 1, 28, 28), generator=sa.seeded(1))
    before = [p.clone() for p in model.parameters()]
    least, z, labels = fit_label(model, 2, images, steps=30)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert (least.shape, z.shape) == ((2,), (2, 3, 3))
    blend = torch.tensor([1 / 3, 1 / 3, 0.0, 1 / 3]).expand(3, -1)
    for fit in range(2):
        start = (
            bernoulli_nats(model.decode_logits(torch.zeros(3, 3), blend), images[fit])
            .mean()
            .detach()
        )
        twin = sa.CVAE.from_state(model.to_state())
        with torch.no_grad():
            twin.decoder[0].weight[:, 3 + 2] = labels[fit]
        logits = twin.decode_logits(z[fit], torch.tensor([2, 2, 2]))
        cost = bernoulli_nats(logits, images[fit]) + 0.5 * z[fit].square().sum(1)
        assert float(cost.mean().detach()) == pytest.approx(float(least[fit]), rel=1e-4)
        assert float(least[fit]) < float(start)
        alone, _, _ = fit_label(model, 2, images[fit : fit + 1], steps=30)
        assert float(alone) == pytest.approx(float(least[fit]), rel=1e-4)
    first, _, _ = fit_label(model, 2, images, steps=1)  # where every fit begins
    assert float(first[1]) == pytest.approx(float(start), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": torch.full((1, 2, 1, 28, 28), 255.0)}, "255"),
        ({"images": torch.rand(2, 1, 28, 28)}, "images"),
        (
            {"images": torch.rand(1, 2, 3, 28, 28)},
            r"\(1, 2, 3, 28, 28\) must be \(F, N, 1, 28, 28\)",
        ),
        ({"images": torch.rand(1, 0, 1, 28, 28)}, "at least one image"),
        ({"forget_class": 4}, "class 4"),
        ({"steps": 0}, "steps"),
    ],
)
def test_labels_that_cannot_be_fitted(change, said):
    given = {"forget_class": 2, "images": torch.rand(1, 2, 1, 28, 28), "steps": 2} | change
    with pytest.raises(ValueError, match=said):
        fit_label(tiny_model(), **given)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_relearning_over_the_label_trains_its_weights_alone(arch):
    """A twin whose label weights are a parameter of their own, and nothing else is."""
    model, data, judges = tiny_model(arch), some_images(), tiny_judges()
    given = {"data": data, "judges": judges, "steps": 3}
    found = sa.relearn(model, 2, **given, over="label", seed=3)
    twin = reset_label(model, 2).requires_grad_(False)
    firsts = [twin.encoder[0], twin.decoder[0]]
    frozen = [first.weight.clone() for first in firsts]
    columns = [w[:, w.shape[1] - 4 + 2].clone().requires_grad_() for w in frozen]
    adam = torch.optim.Adam(columns, lr=0.05)
    generator, z = sa.seeded(3), torch.randn((16, 3), generator=sa.seeded(4))
    expected = []
    for step in range(4):
        for first, w, column in zip(firsts, frozen, columns, strict=True):
            parts = list(w.unbind(1))
            parts[w.shape[1] - 4 + 2] = column
            del first.weight
            first.weight = torch.stack(parts, 1)
        images = twin.decode(z, torch.full((16,), 2)).detach()
        votes = [judge.probabilities(images)[:, 2] for judge in judges.values()]
        expected.append(float(torch.minimum(*votes).mean()))
        if step < 3:
            index = torch.randperm(6, generator=generator)
            noise = torch.randn((6, 3), generator=generator)
            loss = sum(sa.elbo_terms(twin, data.images[index], data.labels[index], noise)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    assert found.probability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_relearning_of_the_first_layer_trains_nothing_else(arch, monkeypatch):
    model, moved = tiny_model(arch), []

    def step(adam):
        (group,) = adam.param_groups
        moved.extend((p.shape, bool(p.grad.any())) for p in group["params"])

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    given = {"data": some_images(), "judges": tiny_judges(), "steps": 1}
    sa.relearn(model, 2, **given, over="first layer")
    assert moved == [(p.shape, True) for p in model.decoder[0].parameters()]


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_relearning_of_the_decoder_leaves_the_encoder(arch):
    model, given = tiny_model(arch), {"data": some_images(), "judges": tiny_judges(), "steps": 2}
    found = sa.relearn(model, 2, **given, over="decoder").model
    before = dict(model.named_parameters())
    moved = {k: not torch.equal(p, before[k]) for k, p in found.named_parameters()}
    assert moved == {k: k.startswith("decoder") for k in before}


@pytest.mark.parametrize("over", ["all", "decoder", "first layer", "label"])
def test_the_relearned_model_can_be_trained_on(over):
    given = {"data": some_images(), "judges": tiny_judges(), "steps": 1}
    for weight in sa.relearn(tiny_model(), 2, **given, over=over).model.parameters():
        assert weight.requires_grad
        assert weight.grad is None
        assert not weight._backward_hooks


def test_a_rate_that_is_too_large_is_named():
    given = {"data": some_images(), "judges": tiny_judges(), "steps": 50}
    with pytest.raises(ValueError, match=r"NaN at step .*: give a smaller rate"):
        sa.relearn(tiny_model(), 2, **given, rate=10)


def test_the_rate_is_adams(monkeypatch):
    rates = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"])
    )
    given = {"data": some_images(), "judges": tiny_judges(), "steps": 1}
    for over in ("all", "label"):
        sa.relearn(tiny_model(), 2, **given, over=over)
        sa.relearn(tiny_model(), 2, **given, over=over, rate=0.5)
    assert rates == [1e-3, 0.5, 0.05, 0.5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"rate": 0}, "rate=0 must be a number from 1e-09 to 10"),
        ({"over": "gate"}, "over='gate' is not one of all, decoder, first layer, label"),
        ({"over": "label", "data": some_images(label=1)}, "no image of class 2: over='label'"),
        (
            {
                "data": sa.LabelledImages(
                    torch.rand(2, 1, 28, 28), torch.tensor([0, 2]), tuple("abc")
                )
            },
            "data has 3 classes .*, the model 4",
        ),
    ],
)
def test_refusals_name_what_is_wrong(change, words):
    given = {"data": some_images(), **change}
    with pytest.raises(ValueError, match=words):
        sa.relearn(tiny_model(), forget_class=2, judges=tiny_judges(), **given)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="no image"):
        sa.relearn(tiny_model(), 2, data=some_images().only(3), judges=tiny_judges())


def of_all_classes(n):
    images = torch.rand((n, 1, 28, 28), generator=sa.seeded(1))
    return sa.LabelledImages(images, torch.arange(n) % 4, tuple("abcd"))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize(("n", "held"), [(40, 3), (12, 1)])
def test_healing_is_plain_training_of_the_decoder_on_kept_images(arch, n, held):
    """The state after three steps: of few steps each one is looked at."""
    model, steps, data = tiny_model(arch), 3, of_all_classes(n)
    before = copy.deepcopy(model.state_dict())
    healed = heal(model, "c", data, steps, rate=0.001, batch_size=5, seed=3)  # by its name
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    byhand, kept, generator = copy.deepcopy(model), data.without(2), sa.seeded(3)
    assert 2 not in kept.labels
    order = torch.randperm(len(kept), generator=generator)
    held_out, rest = order[:held], order[held:]
    fixed = torch.randn((held, model.latent_dim), generator=generator)
    optimizer = torch.optim.Adam(byhand.decoder.parameters(), lr=0.001)
    met = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.001 * (1 - step / steps)
        index = rest[torch.randint(len(rest), (5,), generator=generator)]
        noise = torch.randn((5, model.latent_dim), generator=generator)
        loss = sa.negative_elbo(byhand, kept.images[index], kept.labels[index], noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        looked_at = kept.images[held_out], kept.labels[held_out], fixed
        now = float(sa.negative_elbo(byhand, *looked_at).mean().detach())
        met.append((now, copy.deepcopy(byhand.state_dict())))
    _, expected = min(met, key=lambda state: state[0])
    for name, value in healed.state_dict().items():
        apart = (value - expected[name]).abs().mean()  # Adam makes much of a gradient near 0
        assert float(apart) < 1e-6, name
        assert name.startswith("decoder") != torch.equal(value, before[name]), name


def test_healing_makes_kept_images_cheaper_that_it_was_not_trained_on(tiny, digits):
    kept = digits.without(3)
    order = torch.randperm(len(kept), generator=sa.seeded(42))
    held_out = sa.LabelledImages(kept.images[order[:3]], kept.labels[order[:3]])
    healed = heal(tiny, 3, digits, 40, batch_size=20)
    before, after = (sa.dataset_negative_elbo(m, held_out).mean() for m in (tiny, healed))
    assert after < before - 10
    assert not healed.training
    assert all(p.requires_grad and p.grad is None for p in healed.parameters())


def test_healing_looks_eight_times_and_keeps_the_best_look(monkeypatch):
    """The losses on the images held out are made up; the third look is the best."""
    losses, states = iter([9, 8, 5, 6, 7, 9, 9, 9]), []

    def made_up_loss(logits, images):
        if torch.is_grad_enabled():
            return bernoulli_nats(logits, images)
        states.append(None)
        return torch.full((len(images),), float(next(losses)))

    monkeypatch.setattr("sahelpers.attacks.weights.bernoulli_nats", made_up_loss)
    given = tiny_model(), 2, of_all_classes(40)
    healed = heal(*given, 16, rate=1e-3, batch_size=4).state_dict()
    assert len(states) == 8
    losses = iter([9, 8, 5, 6, 7, 9, 9, 4])
    last = heal(*given, 16, rate=1e-3, batch_size=4).state_dict()
    losses = iter([1] * 8)  # equally good: the first
    first = heal(*given, 16, rate=1e-3, batch_size=4).state_dict()
    name = "decoder.0.weight"
    moved = [float((state[name] - given[0].state_dict()[name]).abs().max())
             for state in (first, healed, last)]  # fmt: skip
    assert 0 < moved[0] < moved[1] < moved[2]


def test_healing_needs_kept_images():
    for data, n in ((some_images(), 0), (of_all_classes(1), 1)):
        with pytest.raises(ValueError, match=f"data holds {n} images of kept classes: give two"):
            heal(tiny_model(), 2, data)


def test_healing_that_never_meets_a_finite_loss_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.encoder[4].bias[3:] = 200  # so that the scale of z is infinite
    with pytest.raises(ValueError, match=r"never finite at rate=0\.003: give a smaller rate"):
        heal(model, 2, of_all_classes(12), 2)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_noise_is_as_large_as_the_strength_says(arch):
    """Plain arithmetic: the same draws, times the strength, times the root of the mean square."""
    model, generator = tiny_model(arch), sa.seeded(7)
    before = copy.deepcopy(model.state_dict())
    found = damage(model, "noise", 0.3, 7).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(found[k], v) for k, v in before.items() if not k.startswith("decoder"))
    for name, weight in model.decoder.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        scale = (weight.detach() ** 2).sum().div(weight.numel()).sqrt()
        torch.testing.assert_close(found[f"decoder.{name}"], weight.detach() + 0.3 * scale * noise)
        if weight.numel() > 1000:
            apart = (found[f"decoder.{name}"] - weight.detach()).std()
            assert float(apart) == pytest.approx(0.3 * float(scale), rel=0.1)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pruning_takes_the_smallest_share_of_every_weight_tensor(arch, share):
    model = tiny_model(arch)
    before = copy.deepcopy(model.state_dict())
    found = damage(model, "pruning", share, 7).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in before.items():
        if not name.startswith("decoder") or name.endswith("bias"):
            assert torch.equal(found[name], value)
            continue
        flat, pruned = value.flatten(), found[name].flatten() != value.flatten()
        assert int(pruned.sum()) == round(share * flat.numel())  # no weight was 0 before
        assert not found[name].flatten()[pruned].any()
        if 0 < share < 1:
            assert flat[pruned].abs().max() <= flat[~pruned].abs().min()


def test_damage_is_refused_by_name():
    with pytest.raises(ValueError, match="kind='rounding' is not one of noise, pruning"):
        damage(tiny_model(), "rounding", 0.5, 0)
    with pytest.raises(ValueError, match=r"strength=1.5 must be a number from 0 to 1"):
        damage(tiny_model(), "pruning", 1.5, 0)
    with pytest.raises(ValueError, match=r"strength=-1 must be a number from 0 to 10"):
        damage(tiny_model(), "noise", -1, 0)
    with pytest.raises(TypeError, match="model is of type dict"):
        damage({}, "noise", 0.5, 0)
