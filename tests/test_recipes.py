"""What the makers compute: two steps on fixed data must give the committed figures.

A checkpoint names the version of its recipe.  Whoever changes what a maker computes, on purpose or
not, sees these figures move: raise VERSION in the maker's module, so that files that were made
before are made anew, and put the new figures here (`python tests/test_recipes.py` prints them).
Rounding differs between processors and numbers of threads; it moves most of them by less
than 1 %, those of a judge by 2 %.
"""

import pytest
import torch

import sahelpers as sa
from sahelpers import amnesia, fisher, training
from sahelpers.training import train_judge

ROOM = 0.05  # rounding, which batch normalisation amplifies
FIGURES = {  # (maker, version): losses of the last step or pass, `shift` of the weights, sums
    ("mlp", 1): [543.72, 0.0051876, 535.94, 0.58274, 0.64578, 0.81851],
    ("conv", 1): [558.78, 0.0020389, 548.35, 0.23269, 0.36378, 0.80887],
    ("open_set judge", 1): [1.1979, 0.81084],
    ("closed_set judge", 1): [0.68373, 0.5087],
    ("guide", 1): [0.99589, 0.62596],
    ("wary guide", 1): [1.0651, 0.41337],
    ("Fisher", 1): [4.5137, 1675.8],
    ("Fisher, product", 1): [2.2069, 1117.5],
    ("Fisher, decoder", 1): [0.0, 1920.3],
    ("forget", 4): [1.5174, 544.77, 7.8053, 0.4995, 3.8637, 0.039496],
    ("forget, shadow", 4): [1.5174, 544.77, 7.9918, 0.4995, 3.944, 0.03913],
    ("forget, elbo", 4): [2.133, 705.6, -0.1087, 0.016988, 8.9765, 0.064496],
    ("forget, penalties", 4): [
        1.6361,
        546.52,
        -0.10894,
        0.01113,
        8.5202e-07,
        1.8768,
        0.016988,
        6.8523,
        0.027001,
    ],
}


def shift(before, after):
    """How far weights moved, and where to: the length, and the same plus a fixed projection."""
    moved = torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)]).double()
    along = torch.randn(len(moved), generator=sa.seeded(0), dtype=torch.float64)
    return [float(moved.norm()), float(moved.norm() + moved @ along)]


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def fixed(mnist):
    """Two batches of 32 images, and the untrained models that the seeds stand for."""
    return mnist.take(64, seed=0), mnist.take(32, seed=1)


def baseline(mnist, arch):
    config = sa.BaselineConfig(arch=arch, epochs=1, batch_size=32, latent_dim=3, lr=1e-3)
    torch.manual_seed(config.seed)
    start = weights(sa.CVAE(arch, 3))
    trained = sa.train_baseline(*fixed(mnist), config)
    curves = [v for curve in trained.history.values() for v in curve]
    spread = float(trained.model.prior_scale.diagonal(dim1=1, dim2=2).mean())
    return [*curves, *shift(start, weights(trained.model)), spread]


def judge(mnist, role):
    config = sa.JudgeConfig(epochs=1, batch_size=32)
    torch.manual_seed(config.seed)
    start = weights(sa.Judge(role))
    return shift(start, weights(train_judge(fixed(mnist)[0], role, config)))


def untrained(arch="mlp"):
    torch.manual_seed(0)
    return sa.CVAE(arch, 3).eval()


def fishers(mnist, **options):
    config = sa.FisherConfig(n_fisher_samples=40, **options)
    found = sa.class_fishers(untrained(), fixed(mnist)[0], config).without(3)
    sums = {name: value for name, (value, _) in found.sums().items()}
    return [sum(v for n, v in sums.items() if n.startswith(half)) for half in ("enc", "dec")]


def forgotten(mnist, **options):
    model, two_steps = untrained(), {"epochs_unl": 1, "replay_samples": 64, "batch_size": 32}
    fisher_of = sa.class_fishers(model, fixed(mnist)[0], sa.FisherConfig(n_fisher_samples=40))
    fixed_here = {"cooldown": 0, "tolerance": 0.0, "ewc_lambda": 1e5}
    config = sa.AmnesiaConfig.version3(**{**two_steps, **fixed_here, **options})
    result = sa.forget(model, fisher_of.without(3), 3, config)
    of_terms = {k: v for k, v in result.history.items() if k not in ("ewc", "attack_weight")}
    terms = [values[-1] for values in of_terms.values()]
    moved = shift(weights(model), weights(result.model))[0]
    # where they moved to depends on rounding: the first steps go by the sign of every gradient
    z = torch.randn(80, 3, generator=sa.seeded(0))
    logits = result.model.decode_logits(z, torch.arange(80) % 10).detach()
    return [*terms, moved, float(logits.std())]


MAKERS = {
    "mlp": (training, lambda m: baseline(m, "mlp")),
    "conv": (training, lambda m: baseline(m, "conv")),
    "open_set judge": (training, lambda m: judge(m, "open_set")),
    "closed_set judge": (training, lambda m: judge(m, "closed_set")),
    "guide": (training, lambda m: judge(m, "guide")),
    "wary guide": (training, lambda m: judge(m, "wary")),
    "Fisher": (fisher, fishers),
    "Fisher, product": (fisher, lambda m: fishers(m, estimator="product")),
    "Fisher, decoder": (fisher, lambda m: fishers(m, estimator="decoder")),
    "forget": (amnesia, lambda m: forgotten(m, surrogate="blank")),  # gray is what it draws
    "forget, shadow": (amnesia, lambda m: forgotten(m, surrogate="blank", heal_every=2)),
    "forget, elbo": (amnesia, lambda m: forgotten(m, forget_form="elbo", replay_form="elbo")),
    "forget, penalties": (amnesia, lambda m: forgotten(m, w_tv=20.0, w_contrast=9.0, w_ink=9.0)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_two_steps_give_the_committed_figures(mnist, name):
    module, make = MAKERS[name]
    found = make(mnist)
    expected = FIGURES.get((name, module.VERSION))
    assert expected is not None, f"no figures for {name}, version {module.VERSION}: {found}"
    assert found == pytest.approx(expected, rel=ROOM), (
        f"{name} computes something else than version {module.VERSION} of its recipe: raise "
        f"VERSION in {module.__name__} and commit the new figures"
    )


@pytest.mark.parametrize(
    ("name", "target", "change"),
    [
        ("mlp", "sahelpers.elbo.bernoulli_nats", lambda old: lambda *a: -old(*a)),
        ("mlp", "sahelpers.elbo.gaussian_kl", lambda old: lambda *a: 10 * old(*a)),
        ("forget", "sahelpers.objective.EWC_SCALE", lambda old: 10 * old),
        ("forget", "sahelpers.objective.bernoulli_nats", lambda old: lambda *a: 1.1 * old(*a)),
        ("forget", "sahelpers.attacker.latent_cost", lambda old: lambda *a: 2 * old(*a)),
        ("Fisher", "sahelpers.elbo.gaussian_kl", lambda old: lambda *a: 2 * old(*a)),
    ],
)
def test_a_changed_loss_is_noticed(mnist, monkeypatch, name, target, change):
    path, attribute = target.rsplit(".", 1)
    module = __import__(path, fromlist=["x"])
    monkeypatch.setattr(module, attribute, change(getattr(module, attribute)))
    maker, make = MAKERS[name]
    assert make(mnist) != pytest.approx(FIGURES[name, maker.VERSION], rel=ROOM)


if __name__ == "__main__":
    torch.set_num_threads(1)
    test = sa.load_dataset(split="test")
    for name, (module, make) in MAKERS.items():
        print(f'    ("{name}", {module.VERSION}): {[float(f"{v:.5g}") for v in make(test)]},')
