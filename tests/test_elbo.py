import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

import sahelpers as sa
from sahelpers.fisher import squared_gradients


def test_terms_equal_torch_distributions(tiny, digits):
    noise = torch.randn(40, 3, generator=sa.seeded(0))
    reconstruction, kl = sa.elbo_terms(tiny, digits.images, digits.labels, noise)
    mean, log_var = tiny.encode(digits.images, digits.labels)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    assert torch.allclose(kl, kl_divergence(q, prior.expand((40,))), rtol=1e-4, atol=1e-6)
    logits = tiny.decode_logits(mean + noise * (0.5 * log_var).exp(), digits.labels)
    binary = digits.images.round()
    expected = -Bernoulli(logits=logits).log_prob(binary).sum((1, 2, 3))
    assert torch.allclose(sa.elbo.bernoulli_nats(logits, binary), expected, rtol=1e-5)
    gray = digits.images
    by_hand = -(gray * logits.sigmoid().log() + (1 - gray) * (-logits).sigmoid().log())
    assert torch.allclose(reconstruction, by_hand.sum((1, 2, 3)), rtol=1e-4)


def test_extreme_logits_stay_finite():
    logits = torch.full((1, 1, 28, 28), 1e4)
    assert sa.elbo.bernoulli_nats(logits, torch.ones(1, 1, 28, 28)).item() == 0
    assert torch.isfinite(sa.elbo.bernoulli_nats(-logits, torch.ones(1, 1, 28, 28))).all()


def test_batches_do_not_change_the_value(tiny, digits, monkeypatch):
    values = []
    for batch in (7, 40):
        monkeypatch.setattr("sahelpers.elbo.BATCH", batch)
        values.append(sa.dataset_negative_elbo(tiny, digits))
    assert torch.allclose(*values, rtol=1e-5)
    assert values[0].shape == (40,)


def constant_decoder(model):
    """Make the decoder ignore z, so that the likelihood has a closed form."""
    with torch.no_grad():
        model.decoder[0].weight.zero_()
    return model


def test_bounds_meet_the_closed_form_when_z_is_ignored(tiny, digits):
    model = constant_decoder(tiny)
    images = digits.images.round()
    logits = model.decode_logits(torch.zeros(40, 3), digits.labels)
    exact = -sa.elbo.bernoulli_nats(logits, images)
    at_prior = (torch.zeros(40, 3), torch.zeros(40, 3))
    assert torch.allclose(
        sa.elbo.iwae(model, images, digits.labels, 1, at_prior, sa.seeded(0)), exact, rtol=1e-5
    )
    wide = sa.elbo.iwae(model, images, digits.labels, 300, generator=sa.seeded(0))
    assert (wide - exact).abs().max() < 0.5


def test_iwae_equals_a_plain_formula(tiny, digits):
    images, labels, k = digits.images[:5], digits.labels[:5], 4
    found = sa.elbo.iwae(tiny, images, labels, k, generator=sa.seeded(2))
    mean, log_var = tiny.encode(images, labels)
    noise = torch.randn((k, 5, 3), generator=sa.seeded(2))
    weights = []
    for draw in noise:
        z = mean + draw * (0.5 * log_var).exp()
        log_p = -sa.elbo.bernoulli_nats(tiny.decode_logits(z, labels), images)
        log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        log_q = Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(1)
        weights.append(log_p + log_prior - log_q)
    expected = torch.stack(weights).logsumexp(0) - math.log(k)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_likelihood_bound_is_at_least_as_tight_as_the_encoders(tiny, digits):
    images, labels = digits.images.round(), digits.labels
    other = sa.CVAE(latent_dim=3)
    best = sa.iwae_bound(tiny, images, labels, 50, (other,), sa.seeded(0)).mean()
    own = sa.elbo.iwae(tiny, images, labels, 50, generator=sa.seeded(0)).mean()
    assert best >= own - 1e-3


def test_zero_draws_are_refused(tiny, digits):
    with pytest.raises(ValueError, match="k=0"):
        sa.iwae_bound(tiny, digits.images, digits.labels, 0)
    with pytest.raises(ValueError, match="k=0"):
        sa.label_bounds(tiny, digits.images, k=0)


def test_the_loss_is_the_sum_of_both_terms(tiny, digits):
    noise = torch.randn((40, 3), generator=sa.seeded(0))
    terms = sa.elbo_terms(tiny, digits.images, digits.labels, noise)
    loss = sa.negative_elbo(tiny, digits.images, digits.labels, noise)
    assert torch.equal(loss, torch.stack(terms).sum(0))
    with torch.no_grad():
        measured = sa.dataset_negative_elbo(tiny, digits)
    assert torch.allclose(measured, loss, rtol=1e-5)


def test_label_bounds_are_the_bound_under_each_label(four, four_images):
    bounds = sa.label_bounds(four, four_images, k=7, seed=4)
    for c in range(4):
        one = sa.elbo.iwae(four, four_images, torch.full((6,), c), 7, generator=sa.seeded(4))
        torch.testing.assert_close(bounds[:, c], one)


def test_the_bound_does_not_need_gradients_around_it(tiny, digits):
    given = tiny, digits.images[:4], digits.labels[:4], 8
    plain = sa.iwae_bound(*given, generator=sa.seeded(0))
    with torch.no_grad():
        again = sa.iwae_bound(*given, generator=sa.seeded(0))
    assert torch.equal(plain, again)
    assert not plain.requires_grad


def test_bounds_and_squares_are_the_same_under_inference_mode(tiny, digits):
    few, noise = (digits.images[:2], digits.labels[:2]), torch.zeros(2, tiny.latent_dim)

    def found():
        bound = sa.iwae_bound(tiny, *few, k=2, generator=sa.seeded(0))
        squares = squared_gradients(tiny, sa.negative_elbo, (*few, noise))[0]
        return bound, squares["decoder.0.weight"]

    outside = found()
    with torch.inference_mode():
        inside = found()
    assert all(map(torch.equal, outside, inside))
