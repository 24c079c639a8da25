"""The rungs against what they are made of, who chooses by which images, and the masked model."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import sahelpers as sa
from sahelpers.attacks import ladder as ladder_module
from sahelpers.attacks.ladder import (
    FITTED,
    HEALED_FITTED,
    HEALED_OTHER,
    KEPT,
    KEPT_BESIDE,
    OTHER,
    RATES,
    RUNGS,
    UNFINISHED,
    WEIGHTS,
    Ladder,
    LadderConfig,
    cost_under,
    fit_labels,
)
from sahelpers.masked import masked_model

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
FEW = LadderConfig(
    images=4, choosing=4, z_steps=4, sets=2, set_size=3, fit_steps=6, heal_steps=4, relearn_steps=25
)
CLASS = 2  # of four


def made_up(of_class, others=12):
    """Images of noise, all different, of four classes."""
    labels = torch.tensor([CLASS] * of_class + [0, 1, 3] * (others // 3))
    images = torch.rand((len(labels), 1, 8, 8), generator=sa.seeded(1))
    return sa.LabelledImages(images, labels, tuple("abcd"))


def small_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sa.CVAE(latent_dim=3, num_classes=4, image_shape=(1, 8, 8)).eval()


def small_ladder(of_class=40, **changes):
    given = {"images": 4, "choosing": 4, "z_steps": 1, "fit_steps": 1, "heal_steps": 4}
    given |= {"relearn_steps": 25}
    data = made_up(of_class)
    return Ladder(small_model(), CLASS, data, data, LadderConfig(**(given | changes)))


def bytes_of(images):
    return [image.numpy().tobytes() for image in images]


@pytest.fixture(scope="module")
def ladder(model, mnist):
    data = mnist.take(1000)
    return Ladder(model, 3, data, data, FEW)


# What the images are


@pytest.mark.parametrize(
    ("of_class", "changes", "sets", "choosing", "scored"),
    [
        (30, {}, (1, 10), 6, 14),
        (59, {}, (1, 10), 16, 33),
        (60, {}, (2, 10), 13, 27),
        (90, {}, (3, 10), 20, 40),
        (120, {}, (3, 10), 30, 60),
        (90, {"images": 21}, (3, 10), 20, 21),
        (90, {"choosing": 2}, (3, 10), 2, 58),
        (30, {"set_size": 3}, (3, 3), 7, 14),
        (30, {"set_size": 1000}, (1, 10), 6, 14),
        (30, {"set_size": 1, "sets": 100}, (10, 1), 6, 14),
        (90, {"images": 2, "sets": 1}, (1, 10), 26, 2),
    ],
)
def test_few_images_shrink_the_sets_and_both_parts(of_class, changes, sets, choosing, scored):
    ladder = small_ladder(of_class, **({"images": 200, "choosing": 100} | changes))
    assert ladder.sets.shape[:2] == sets
    assert (len(ladder.choosing.data), len(ladder.scored.data)) == (choosing, scored)
    assert len(ladder.kept.data) == min(scored, 12)  # there are twelve kept images


def test_no_image_is_fitted_to_chosen_by_and_scored_at_once(ladder, mnist):
    of_class = set(bytes_of(mnist.only(3).images))
    parts = ladder.sets.flatten(0, 1), ladder.choosing.data.images, ladder.scored.data.images
    parts = [bytes_of(part) for part in parts]
    assert [len(part) for part in parts] == [6, 4, 4]
    together = [image for part in parts for image in part]
    assert len(set(together)) == len(together)
    assert set(together) <= of_class
    assert not of_class & set(bytes_of(ladder.kept.data.images))
    for share in (ladder.choosing, ladder.scored):
        assert set(share.data.labels.tolist()) == {3}
    assert 3 not in ladder.kept.data.labels
    assert 3 not in ladder.kept_train.labels


def test_the_seed_chooses_the_images():
    first, again, other = (small_ladder(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.scored.data.images, again.scored.data.images)
    assert not torch.equal(first.scored.data.images, other.scored.data.images)


def test_the_baseline_cost_is_what_the_baseline_pays_under_the_own_label(ladder, model):
    for share in (ladder.choosing, ladder.scored, ladder.kept):
        data = share.data
        own, _ = sa.image_cost(model, data.images, data.labels[:, None], FEW.z_steps)
        assert torch.equal(share.baseline_cost, own[:, 0])
        assert torch.equal(share.bound, sa.dataset_negative_elbo(model, data))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"test": made_up(29)}, ValueError, "test has 29 images of class 2: give 30 or more"),
        ({"test": made_up(40, 0)}, ValueError, "test has 0 images of kept classes: give two"),
        ({"train": made_up(40, 0)}, ValueError, "train has 0 images of kept classes: give two"),
        ({"test": None}, TypeError, "test is of type NoneType, not LabelledImages"),
        ({"train": [1]}, TypeError, "train is of type list, not LabelledImages"),
        ({"config": sa.ProbeConfig()}, TypeError, "config is of type ProbeConfig"),
        ({"baseline": nn.Linear(2, 2)}, TypeError, "baseline is of type Linear"),
        ({"forget_class": 4}, ValueError, "class 4"),
        ({"baseline": sa.CVAE(num_classes=3)}, ValueError, "baseline has 3 classes, not 4"),
        (
            {"baseline": sa.CVAE(latent_dim=3, num_classes=4)},
            ValueError,
            r"train has 4 classes and images of shape \(1, 8, 8\), the model 4 .*\(1, 28, 28\)",
        ),
        (
            {"train": sa.LabelledImages(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]))},
            ValueError,
            r"train has 10 classes .*, the model 4",
        ),
        (
            {"train": replace(made_up(40), class_names=tuple("abdc"))},
            ValueError,
            "the classes of test are .*: give both the same, in one order",
        ),
    ],
)
def test_what_no_ladder_stands_on_is_refused(given, error, words):
    usual = {"baseline": small_model(), "forget_class": CLASS, "config": LadderConfig(z_steps=1)}
    usual |= {"train": made_up(40), "test": made_up(40)}
    with pytest.raises(error, match=words):
        Ladder(**(usual | given))


def test_what_cannot_climb_is_refused():
    with pytest.raises(TypeError, match="model is of type list"):
        small_ladder().climb([])
    with pytest.raises(ValueError, match="model has 10 classes, not 4"):
        small_ladder().climb(sa.CVAE(image_shape=(1, 8, 8)))


# The rungs


def test_every_rung_and_what_kept_images_pay_beside_it_are_measured(model, ladder):
    hidden = sa.reset_label(model, 3)
    before = {name: value.clone() for name, value in hidden.state_dict().items()}
    found = ladder.climb(hidden)
    assert set(found) == {*RUNGS, *KEPT, UNFINISHED}
    sizes = {name: len(numbers) for name, numbers in found.items()}
    assert sizes[OTHER] == sizes[HEALED_OTHER] == sizes["kept, as is"] == 4
    assert sizes["kept, trained further"] == 4
    assert sizes[FITTED] == sizes[HEALED_FITTED] == FEW.sets
    assert sizes[WEIGHTS] == sizes["kept, all weights"] == sizes[UNFINISHED] == 1

    images, paid = ladder.scored.data.images, ladder.scored.baseline_cost
    others = [sa.image_cost(hidden, images, torch.tensor([k]), 4)[0][:, 0]
              for k in range(10) if k != 3]  # fmt: skip
    expected = torch.stack(others).amin(0) - paid
    assert found[OTHER] == pytest.approx(expected.tolist(), abs=0.05)
    assert found["kept, as is"] == pytest.approx([0.0] * 4, abs=1e-3)  # the same weights

    assert sum(found[FITTED]) / FEW.sets == pytest.approx(ladder.under_a_fitted_label(hidden))
    healed = ladder.healed(hidden)
    assert found[HEALED_OTHER] == by_hand(ladder, healed[OTHER])[0]
    assert found[HEALED_FITTED] == by_hand(ladder, healed[FITTED])[1]
    assert found["kept, trained further"] == ladder.kept_costs(healed[FITTED].model)

    relearned = ladder.relearned(hidden)
    assert found[WEIGHTS] == [relearned.bound]
    assert found["kept, all weights"] == [relearned.kept]
    assert found[UNFINISHED] == [float(relearned.unfinished)]
    assert all(torch.equal(v, before[k]) for k, v in hidden.state_dict().items())


def by_hand(ladder, tried):
    """What a state costs under other labels, each scored image, and under each fitted label."""
    share, others = ladder.scored, ladder.others
    cost, _ = sa.image_cost(tried.model, share.data.images, others, FEW.z_steps)
    fitted = [
        cost_under(tried.model, share.data.images, label, FEW.z_steps) - share.baseline_cost
        for label in tried.labels
    ]
    fitted = [float(above.mean()) for above in fitted]
    return (cost.amin(1) - share.baseline_cost).tolist(), fitted


def test_training_on_goes_as_far_as_it_pays_by_the_images_to_choose_by(model, ladder, monkeypatch):
    """What each state costs is made up; the states are the model, after one step and after four."""
    hidden, seen = sa.reset_label(model, 3), []
    made_up = iter([(5.0, 1.0), (3.0, 2.0), (4.0, 0.5)])

    def trying(model):
        seen.append(model)
        other, fitted = next(made_up)
        return ladder_module.Tried(model, other, fitted, torch.zeros(1))

    monkeypatch.setattr(ladder, "try_out", trying)
    found = ladder.healed(hidden)
    given = {"rate": FEW.heal_rate, "seed": FEW.seed}
    once = sa.heal(hidden, 3, ladder.kept_train, 1, **given)
    twice = sa.heal(once, 3, ladder.kept_train, 3, **given)
    for model, expected in zip(seen, (hidden, once, twice), strict=True):
        state = expected.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert found[OTHER].model is seen[1]
    assert found[FITTED].model is seen[2]


def test_what_a_model_pays_does_not_depend_on_who_climbed_before():
    ladder, data = small_ladder(), made_up(40)
    torch.manual_seed(1)
    first = ladder.climb(small_model(1))
    ladder.climb(small_model(2))
    torch.manual_seed(2)
    assert ladder.climb(small_model(1)) == first
    config = ladder.config
    assert Ladder(small_model(), CLASS, data, data, config).climb(small_model(1)) == first


class Half(nn.Module):
    """A network of one's own, with dropout, that says or does not say where the label enters."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.drop = nn.Linear(inputs + 4, 16), nn.Dropout(0.5)
        self.last = nn.Linear(16, outputs)

    def forward(self, values, y):
        first = self.first(torch.cat([values.flatten(1), y], 1))
        return self.last(self.drop(first.relu()))


class Saying(Half):
    def label_weights(self):
        return self.first.weight, self.first.in_features - 4


@pytest.mark.parametrize("half", [Half, Saying])
def test_networks_of_ones_own_climb_and_are_not_changed(half):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = sa.CVAE(latent_dim=3, num_classes=4, image_shape=(1, 8, 8),
                      encoder=half(64, 6), decoder=half(3, 64)).train()  # fmt: skip
    before = copy.deepcopy(own.state_dict())
    data, config = made_up(40), small_ladder().config
    ladder = Ladder(own, CLASS, data, data, config)
    found = ladder.climb(own)
    assert found["kept, as is"] == [0.0] * len(ladder.kept.data)
    assert all(math.isfinite(nats) for numbers in found.values() for nats in numbers)
    assert own.training  # dropout rests in copies
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
    assert Ladder(own, CLASS, data, data, config).climb(own) == found


# Rungs 1 to 3: a label of one's own


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_under_a_labels_own_weights_an_image_costs_what_it_costs_under_the_label(arch, digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = sa.CVAE(arch, latent_dim=3).eval()
    images = digits.images[:6]
    for label in (0, 7):
        expected, _ = sa.image_cost(model, images, torch.tensor([label]), 5)
        found = cost_under(model, images, model.label_columns()[label], 5)
        assert torch.allclose(found, expected[:, 0], rtol=1e-4)


def test_one_start_at_the_mean_is_the_fit_of_one_label(model, ladder):
    mean = model.label_columns()[ladder.others].mean(0, keepdim=True)
    _, _, label = sa.fit_label(model, 3, ladder.sets, 6)
    (found,) = fit_labels(model, mean, ladder.sets, 6)
    assert torch.allclose(found, label, atol=1e-4)


def test_every_set_is_fitted_from_every_start_by_itself(model, ladder):
    starts = model.label_columns()[[3, 5]]
    together = fit_labels(model, starts, ladder.sets, 6)
    assert together.shape == (2, FEW.sets, starts.shape[1])
    for k, f in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ((alone,),) = fit_labels(model, starts[k : k + 1], ladder.sets[f : f + 1], 6)
        assert torch.allclose(together[k, f], alone, atol=1e-4)


def test_a_fit_begins_at_the_mean_at_the_own_label_and_at_the_two_cheapest(
    model, ladder, monkeypatch
):
    given = []

    def fitting(model, starts, sets, steps):
        given.append((starts, sets, steps))
        return fit_labels(model, starts, sets, 1)

    monkeypatch.setattr(ladder_module, "fit_labels", fitting)
    ladder.try_out(model)
    ladder.try_out(model, fit_steps=9)
    (starts, sets, steps), (_, _, more) = given
    assert (steps, more) == (FEW.fit_steps, 9)
    assert torch.equal(sets, ladder.sets)
    columns, few = model.label_columns(), ladder.choosing.data.images
    others = [k for k in range(10) if k != 3]
    cost = [float(sa.image_cost(model, few, torch.tensor([k]), 4)[0].mean()) for k in others]
    cheapest = sorted(others, key=lambda k: cost[others.index(k)])[:2]
    expected = torch.stack([columns[others].mean(0), columns[3], *columns[cheapest]])
    assert torch.allclose(starts, expected)


def test_the_start_is_chosen_on_images_that_are_not_scored(ladder, monkeypatch):
    """What a label costs is made up: on the images that are scored, another one is cheapest."""
    chosen_by = {0: [5, 4, 2, 3], 1: [1, 7, 8, 9]}  # set -> start -> nats
    reported = {0: [1, 2, 30, 4], 1: [50, 1, 1, 1]}

    def fitting(model, starts, sets, steps):
        pairs = [[[s, f] for f in range(len(sets))] for s in range(len(starts))]
        return torch.tensor(pairs, dtype=torch.float)

    def cost(self, model, share, label):
        s, f = label.int().tolist()
        return float((chosen_by if share is ladder.choosing else reported)[f][s])

    monkeypatch.setattr(ladder_module, "fit_labels", fitting)
    monkeypatch.setattr(Ladder, "_mean_cost", cost)
    assert ladder.under_a_fitted_label(small_model_of_ten()) == (30 + 50) / 2


def small_model_of_ten():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sa.CVAE(latent_dim=3).eval()


def test_only_the_scored_images_move_what_is_reported(model, ladder):
    """Every image of a part is made five nats cheaper for the baseline."""

    def reported(ladder):
        other, fitted = by_hand(ladder, ladder.try_out(model))
        return [*other, *fitted]

    def cheaper(name):
        twin, share = copy.copy(ladder), getattr(ladder, name)
        setattr(twin, name, type(share)(share.data, share.baseline_cost - 5, share.bound))
        return twin

    usual = reported(ladder)
    assert reported(cheaper("choosing")) == usual
    assert reported(cheaper("scored")) == pytest.approx([nats + 5 for nats in usual], abs=1e-3)


# Rung 4: all weights


def test_relearning_is_plain_training_on_a_few_images_among_kept_ones(model, ladder, monkeypatch):
    """First of the label alone, then of all weights from the best look on."""
    monkeypatch.setattr(ladder_module, "RATES", (1e-3,))
    monkeypatch.setattr(ladder_module, "FURTHER", 0)
    monkeypatch.setattr(ladder_module, "LOOKS", (2, 10))
    monkeypatch.setattr(ladder_module, "LABEL_STEPS", 12)
    found = ladder.relearned(model)
    kept, met = ladder.kept_train, {}

    def train(now, weights, rate, steps, columns=None):
        adam, generator = torch.optim.Adam(weights, lr=rate), sa.seeded(FEW.seed)
        for step in range(1, steps + 1):
            index = torch.randint(len(kept), (KEPT_BESIDE,), generator=generator)
            images = torch.cat([ladder.sets[0], kept.images[index]])
            noise = torch.randn((3 + KEPT_BESIDE, 3), generator=generator)
            labels = torch.cat([torch.tensor([3] * 3), kept.labels[index]])
            adam.zero_grad()
            sa.negative_elbo(now, images, labels, noise).mean().backward()
            for weight, column in zip(weights, columns or (), strict=False):
                own = weight.grad[:, column].clone()
                weight.grad.zero_()
                weight.grad[:, column] = own
            adam.step()
            if step in (2, 10, steps):
                met[rate, step] = (
                    [
                        float((sa.dataset_negative_elbo(now, s.data) - s.bound).mean())
                        for s in (ladder.choosing, ladder.scored, ladder.kept)
                    ],
                    copy.deepcopy(now),
                )

    now = sa.reset_label(model, 3)
    weights = [now.encoder[0].weight, now.decoder[0].weight]
    train(now, weights, 0.05, 12, [784 + 3, 3 + 3])  # behind pixels and behind z
    _, begin = min(met.values(), key=lambda look: look[0][0])
    now = copy.deepcopy(begin)
    train(now, list(now.parameters()), 1e-3, 25)
    rate, steps = min(met, key=lambda look: met[look][0][0])
    assert (found.rate, found.steps) == (rate, steps)
    assert [found.bound, found.kept] == pytest.approx(met[rate, steps][0][1:], abs=0.05)
    assert list(found.curve) == [2, 10, 12, 25]


def scripted(monkeypatch, script, further=()):
    """Relearn where the shares' bounds are made up: rate -> what the images to choose by pay at
    each look, and the same of what is tried beyond the edge.  The scored ones pay 100 k + n at the
    n-th look of the k-th try, and kept images a half more.  Returns what is found and how often
    each try was looked at."""
    ladder, models, looks = small_ladder(), [], []
    tries = [*(script[rate] for rate in RATES), *further]

    def bound(model, share):
        if all(model is not known for known in models):
            models.append(model)
            looks.append(0)
        k = len(models) - 1
        if share is ladder.choosing:
            looks[k] += 1
            return tries[k][looks[k] - 1]
        return 100 * k + looks[k] - 1 + (0.5 if share is ladder.kept else 0)

    monkeypatch.setattr(ladder_module, "LOOKS", (1, 2, 3, 4, 5, 6, 20, 40))
    monkeypatch.setattr(Ladder, "_bound_above", staticmethod(bound))
    monkeypatch.setattr(ladder_module, "LABEL_STEPS", 0)  # all weights from the start
    return ladder.relearned(small_model(1)), looks


FLAT = dict.fromkeys(RATES, (10.0,) * 8)


def test_rate_and_steps_are_chosen_on_images_that_are_not_scored(monkeypatch):
    found, _ = scripted(monkeypatch, FLAT | {RATES[2]: (10, 9, 8, 10, 10, 10)})
    assert (found.rate, found.steps, found.bound, found.kept) == (RATES[2], 3, 202, 202.5)
    assert not found.unfinished
    assert found.curve == {1: 0, 2: 201, 3: 202, 4: 202, 5: 202, 6: 202}


def test_three_looks_without_a_better_bound_end_a_rate(monkeypatch):
    better = {RATES[0]: (10, 11, 12, 9, 9, 9, 9, 4), RATES[1]: (9, 8, 7, 6, 5, 4, 3, 2)}
    found, looks = scripted(monkeypatch, FLAT | better, [(9, 8, 7, 6, 5, 4, 3, 2, 1.9)])
    assert looks == [7, 8, 4, 4, 9]  # a look that is as good as the best one is not better
    assert found.bound == 408


FALLING = (10, 9.9, 9.8, 9.7, 9.6, 9.5)


@pytest.mark.parametrize(
    ("script", "further"),
    [
        ({}, None),
        ({RATES[0]: (9.6,) * 8}, None),  # less than half a nat
        ({RATES[0]: (9.4,) * 8}, (RATES[0] / 3, 75)),  # the smallest rate
        ({RATES[3]: (9.4,) * 8}, (RATES[3] * 3, 25)),  # the largest one
        ({RATES[0]: (9.4,) * 8, RATES[1]: (9.8,) * 8}, None),  # half a nat from the rest
        ({RATES[1]: (*FALLING, 9.1, 9.1)}, None),
        ({RATES[1]: (*FALLING, 8.9, 8.9)}, (RATES[1], 50)),  # the second half of the steps
        ({RATES[2]: (1,) * 8}, None),
    ],
)
def test_relearning_goes_on_beyond_the_edge_where_it_is_half_a_nat_better(
    monkeypatch, script, further
):
    """And is unfinished only where nothing more may be tried."""
    monkeypatch.setattr(ladder_module, "FURTHER", 0)
    assert scripted(monkeypatch, FLAT | script)[0].unfinished is (further is not None)
    monkeypatch.setattr(ladder_module, "FURTHER", 4)
    tried = []
    until_settled = Ladder._until_settled

    def spy(self, begin, rate, steps):
        tried.append((rate, steps))
        return until_settled(self, begin, rate, steps)

    monkeypatch.setattr(Ladder, "_until_settled", spy)
    found, _ = scripted(monkeypatch, FLAT | script, [(10.0,) * 8])
    assert tried[:4] == [(rate, 25) for rate in RATES]
    assert tried[4:] == ([] if further is None else [pytest.approx(further)])
    assert not found.unfinished


def test_what_is_found_beyond_the_edge_counts(monkeypatch):
    script, further = FLAT | {RATES[0]: (9,) * 8}, [(8, 7, 7, 7, 7), (10.0,) * 8]
    found, looks = scripted(monkeypatch, script, further)
    assert looks[4:] == [5, 4]  # a ninth of the smallest rate was tried, too
    assert (found.rate, found.steps, found.bound) == (pytest.approx(RATES[0] / 3), 2, 401)
    assert not found.unfinished


def test_relearning_that_gets_better_at_every_edge_is_unfinished(monkeypatch):
    script, further = FLAT | {RATES[0]: (9,) * 8}, [(8,) * 8, (7,) * 8, (6,) * 8, (5,) * 8]
    found, looks = scripted(monkeypatch, script, further)
    assert len(looks) == 4 + ladder_module.FURTHER
    assert (found.unfinished, found.bound) == (True, 700)


def test_what_is_not_finite_ends_its_rate_and_is_never_the_best(monkeypatch):
    script = {RATES[0]: (math.nan,), RATES[1]: (9, 8, math.inf), RATES[2]: (7, math.nan)}
    found, looks = scripted(monkeypatch, FLAT | script)
    assert looks == [1, 3, 2, 4]
    assert (found.rate, found.steps, found.bound) == (RATES[2], 1, 200)
    assert found.curve == {1: 200, 2: 200, 3: 200, 4: 200}


def test_weights_that_become_nan_at_an_absurd_rate_are_left_out(monkeypatch):
    ladder, model = small_ladder(), small_model(1)
    monkeypatch.setattr(ladder_module, "LABEL_STEPS", 0)
    monkeypatch.setattr(ladder_module, "FURTHER", 0)
    monkeypatch.setattr(ladder_module, "RATES", (1e30, *RATES[:3]))
    found = ladder.relearned(model)
    assert found.rate in RATES
    assert math.isfinite(found.bound)
    monkeypatch.setattr(ladder_module, "RATES", (1e30, 1e35))
    with pytest.raises(ValueError, match=r"no finite negative ELBO is met at rates from 1e\+30"):
        ladder.relearned(model)


# The masked model


@pytest.mark.parametrize(("arch", "last"), [("mlp", "decoder.4"), ("conv", "decoder.5")])
def test_a_masked_model_differs_in_its_last_layer_and_at_the_label(arch, last, digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = sa.CVAE(arch, latent_dim=3).eval()
    latents = torch.randn((9, 3), generator=sa.seeded(0))
    model.set_class_prior(3, 1 + latents)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masked = masked_model(model, 3, steps=2)
    hidden = sa.reset_label(model, 3).state_dict()
    changed = [k for k, v in masked.state_dict().items() if not torch.equal(v, hidden[k])]
    assert set(changed) == {f"{last}.weight", f"{last}.bias", "prior_mean", "prior_scale"}
    assert not masked.prior_mean[3].any()
    assert not masked.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in masked.parameters())


def test_of_networks_that_do_not_say_their_label_the_last_layer_alone_is_masked():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = sa.CVAE(latent_dim=3, num_classes=4, image_shape=(1, 8, 8),
                      encoder=Half(64, 6), decoder=Half(3, 64))  # fmt: skip
    before = copy.deepcopy(own.state_dict())
    masked = masked_model(own, CLASS, steps=2).state_dict()
    changed = [k for k, v in masked.items() if not torch.equal(v, before[k])]
    assert set(changed) == {"decoder.last.weight", "decoder.last.bias"}
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())


def test_a_mask_makes_the_class_dear_and_keeps_the_rest(model, ladder):
    masked = masked_model(model, 3, steps=60)
    images = ladder.scored.data.images
    cost, _ = sa.image_cost(masked, images, torch.tensor([3]), 20)
    before, _ = sa.image_cost(model, images, torch.tensor([3]), 20)
    kept = ladder.kept.data
    dearer = sa.image_cost(masked, kept.images, kept.labels[:, None], 20)[0]
    dearer = dearer - sa.image_cost(model, kept.images, kept.labels[:, None], 20)[0]
    assert float((cost - before).mean()) > float(dearer.mean()) + 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"push": -1}, "push=-1"),
        ({"forget_class": 10}, "class 10"),
    ],
)
def test_what_makes_no_mask_is_refused(tiny, change, words):
    with pytest.raises(ValueError, match=words):
        masked_model(tiny, **({"forget_class": 3, "steps": 1} | change))
