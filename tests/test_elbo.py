import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

import sahelpers as sa


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
    assert torch.allclose(sa.bernoulli_nats(logits, binary), expected, rtol=1e-5)
    gray = digits.images
    by_hand = -(gray * logits.sigmoid().log() + (1 - gray) * (-logits).sigmoid().log())
    assert torch.allclose(reconstruction, by_hand.sum((1, 2, 3)), rtol=1e-4)


def test_extreme_logits_stay_finite():
    logits = torch.full((1, 1, 28, 28), 1e4)
    assert sa.bernoulli_nats(logits, torch.ones(1, 1, 28, 28)).item() == 0
    assert torch.isfinite(sa.bernoulli_nats(-logits, torch.ones(1, 1, 28, 28))).all()


def test_batches_do_not_change_the_value(tiny, digits):
    values = [
        sa.negative_elbo(tiny, digits.images, digits.labels, sa.seeded(0), batch=b) for b in (7, 40)
    ]
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
    exact = -sa.bernoulli_nats(logits, images)
    at_prior = (torch.zeros(40, 3), torch.zeros(40, 3))
    assert torch.allclose(
        sa.iwae(model, images, digits.labels, 1, sa.seeded(0), at_prior), exact, rtol=1e-5
    )
    wide = sa.iwae(model, images, digits.labels, 300, sa.seeded(0))
    assert (wide - exact).abs().max() < 0.5


def test_iwae_equals_a_plain_formula(tiny, digits):
    images, labels, k = digits.images[:5], digits.labels[:5], 4
    found = sa.iwae(tiny, images, labels, k, sa.seeded(2))
    mean, log_var = tiny.encode(images, labels)
    noise = torch.randn((k, 5, 3), generator=sa.seeded(2))
    weights = []
    for draw in noise:
        z = mean + draw * (0.5 * log_var).exp()
        log_p = -sa.bernoulli_nats(tiny.decode_logits(z, labels), images)
        log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        log_q = Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(1)
        weights.append(log_p + log_prior - log_q)
    expected = torch.stack(weights).logsumexp(0) - math.log(k)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_likelihood_bound_is_at_least_as_tight_as_the_encoders(tiny, digits):
    images, labels = digits.images.round(), digits.labels
    other = sa.CVAE(latent_dim=3)
    best = sa.log_likelihood(tiny, images, labels, sa.seeded(0), k=50, others=(other,)).mean()
    own = sa.iwae(tiny, images, labels, 50, sa.seeded(0)).mean()
    assert best >= own - 1e-3


def test_zero_draws_are_refused(tiny, digits):
    with pytest.raises(ValueError, match="k=0"):
        sa.iwae(tiny, digits.images, digits.labels, 0, sa.seeded(0))
