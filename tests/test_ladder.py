"""The ladder's costs against the functions that ask for one of them, and the masked model."""

import pytest
import torch

import sahelpers as sa
from sahelpers.attacks.ladder import Ladder, LadderConfig, cost_under, fit_labels
from sahelpers.attacks.masked import masked_model

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
FEW = LadderConfig(images=5, z_steps=4, sets=2, set_size=3, fit_steps=6)


@pytest.fixture(scope="module")
def ladder(model, mnist):
    return Ladder(model, 3, mnist.take(1000), FEW)


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
    assert torch.allclose(fit_labels(model, mean, ladder.sets, 6), label, atol=1e-4)


def test_of_several_starts_the_cheapest_counts(model, ladder):
    columns = model.label_columns()
    far = columns.mean(0, keepdim=True) + 50  # nothing is drawn from there
    near = columns[3:4]
    together = fit_labels(model, torch.cat([far, near]), ladder.sets, 6)
    assert torch.allclose(together, fit_labels(model, near, ladder.sets, 6), atol=1e-4)


def test_the_costs_are_above_what_the_baseline_pays(model, ladder):
    hidden = sa.reset_label(model, 3)
    before = {name: value.clone() for name, value in hidden.state_dict().items()}
    found = ladder.climb(hidden)
    own, _ = sa.image_cost(model, ladder.images, torch.tensor([3]), FEW.z_steps)
    others, _ = sa.image_cost(hidden, ladder.images, ladder.others, FEW.z_steps)
    assert found.other_labels == pytest.approx((others.amin(1) - own[:, 0]).tolist(), abs=0.05)
    assert len(found.fitted_label) == FEW.sets
    assert found.kept == pytest.approx([0.0] * FEW.images, abs=1e-3)  # the same weights
    assert all(torch.equal(v, before[k]) for k, v in hidden.state_dict().items())


def test_a_label_is_scored_on_images_that_it_was_not_fitted_to(ladder):
    fitted = {image.numpy().tobytes() for image in ladder.sets.flatten(0, 1)}
    assert len(fitted) == FEW.sets * FEW.set_size
    assert not fitted & {image.numpy().tobytes() for image in ladder.images}
    assert 3 not in ladder.kept.labels


def test_too_few_images_are_named(model, mnist):
    with pytest.raises(ValueError, match=r"test has \d+ images of class 3, and 11 are asked for"):
        Ladder(model, 3, mnist.take(40), FEW)


def test_a_masked_model_differs_in_its_last_layer_and_at_the_label(model, fishers):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masked = masked_model(model, fishers.without(3), 3, steps=3)
    hidden = sa.reset_label(model, 3).state_dict()
    changed = [k for k, v in masked.state_dict().items() if not torch.equal(v, hidden[k])]
    assert set(changed) == {"decoder.4.weight", "decoder.4.bias", "prior_mean", "prior_scale"}
    assert not masked.prior_mean[3].any()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in masked.parameters())


def test_a_mask_needs_an_attacker(model, fishers):
    with pytest.raises(ValueError, match="give more than 0"):
        masked_model(model, fishers.without(3), 3, w_attack=0.0)
