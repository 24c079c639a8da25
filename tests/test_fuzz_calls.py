"""Whatever plausible thing the main functions are given: a right result, or an error that names it.

A right result is finite and of the right shape.  The error is a ValueError or TypeError (so also a
CheckpointError) with the name of an argument in it: what torch or Python say by themselves has not.
"""

import copy
from dataclasses import fields
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sahelpers as sa
from sahelpers.config import (
    AmnesiaConfig,
    BaselineConfig,
    FisherConfig,
    JudgeConfig,
    ProbeConfig,
    fingerprint,
)
from sahelpers.models import NOISY
from sahelpers.surrogates import NAMES

pytestmark = pytest.mark.full  # the table of bad calls is in `make test`
few = settings(max_examples=40, deadline=None, derandomize=True)
many = settings(max_examples=150, deadline=None, derandomize=True)

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    MODEL, SMALL = sa.CVAE("mlp", 2).eval(), sa.CVAE("mlp", 3, num_classes=4).eval()
    JUDGE, GUIDE, FOUR = (
        sa.Judge("closed_set").eval(),
        sa.Judge("guide").eval(),
        sa.Judge("closed_set", 4),
    )
    IMAGES = torch.rand(20, 1, 28, 28)
LABELS = torch.arange(10).repeat(2)
DATA = sa.LabelledImages(IMAGES, LABELS)
BROKEN = copy.deepcopy(MODEL)
BROKEN.encoder[0].bias.data[0] = float("nan")
FISHERS = sa.class_fishers(MODEL, DATA, FisherConfig(n_fisher_samples=10))

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from((10**30, -(10**30))),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(("gray", "mlp", "data", "both", "class:3", "class:12", [3], (2, 5), {}, print)),
    st.sampled_from((torch.tensor(3), torch.tensor(2.5), torch.ones(2), MODEL, DATA, FISHERS)),
)


def mostly(usual, *rest):
    """The usual in three of four cases."""
    return st.integers(0, 3).flatmap(lambda k: usual if k else st.one_of(*rest, anything))


def configurations(kind, **fields):
    """Small ones of a kind, and other things; not None, the default, which takes long."""
    return mostly(st.builds(kind, **fields)).filter(lambda config: config is not None)


models = mostly(st.just(MODEL), st.sampled_from((SMALL, BROKEN)))
classes = mostly(st.integers(0, 9), st.lists(st.integers(-1, 10), max_size=10))


@st.composite
def tensors(draw, shapes, low=-1.0, high=2.0):
    """A tensor of one of these shapes and of some type, range and place."""
    shape = draw(st.sampled_from(shapes))
    kind = draw(st.sampled_from((torch.float32, torch.float32, torch.float64, torch.uint8)))
    first, last = sorted(draw(st.tuples(*2 * [st.sampled_from((0.0, 1.0, low, high))])))
    seed = draw(st.integers(0, 3))
    values = first + (last - first) * torch.rand(shape, generator=sa.seeded(seed))
    if values.numel() and draw(st.integers(0, 5)) == 0:
        values.view(-1)[0] = draw(st.sampled_from((float("nan"), float("inf"))))
    values = values.nan_to_num() if kind == torch.uint8 else values
    return values.clamp(min=0).to(kind) if kind == torch.uint8 else values.to(kind)


pictures = mostly(
    st.just(IMAGES[:3]),
    tensors([(3, 1, 28, 28), (3, 1, 28, 28), (1, 1, 28, 28), (0, 1, 28, 28), (3, 28, 28), (2,)]),
)
numbers = mostly(
    st.just(LABELS[:3]),
    st.lists(st.integers(-1, 10), max_size=3).map(lambda x: torch.tensor(x, dtype=torch.int64)),
    tensors([(3,), (3, 10), (1, 10), (3, 1)]),
)
latents = mostly(st.none(), tensors([(2, 2), (1, 2), (0, 2), (2, 3), (2,)]))


def attempt(call, *names):
    """The result, or None after an error that names one of these."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        if not any(name in str(error) for name in names):
            raise


def is_right(values, *shape):
    return tuple(values.shape) == shape and bool(values.isfinite().all())


@pytest.mark.parametrize(
    "kind", [BaselineConfig, JudgeConfig, FisherConfig, AmnesiaConfig, ProbeConfig, sa.LadderConfig]
)
@many
@given(data=st.data())
def test_configurations(kind, data):
    names = [f.name for f in fields(kind)]
    values = data.draw(st.dictionaries(st.sampled_from(names), anything, max_size=3))
    made = attempt(lambda: kind(**values), *values, "class")
    if made is not None:
        assert len(fingerprint(made)) == 8
        for f in fields(kind):
            if f.metadata.get("low") is not None:
                assert f.metadata["low"] <= getattr(made, f.name) <= f.metadata["high"]


@many
@given(classes, mostly(st.integers(1, 12)), st.booleans())
def test_class_numbers(given_classes, num_classes, empty):
    found = attempt(
        lambda: sa.check_classes(given_classes, num_classes, allow_empty=empty),
        "class",
        "num_classes",
    )
    if found is not None:
        assert found == tuple(sorted(set(found)))
        assert all(type(c) is int and 0 <= c < num_classes for c in found)
        assert empty or found


@few
@given(
    models,
    mostly(st.just(DATA), st.sampled_from((DATA.only(3), DATA.only(())))),
    configurations(
        FisherConfig,
        n_fisher_samples=st.integers(1, 30),
        source=st.sampled_from(("data", "model_mean", "model_sample")),
        estimator=st.sampled_from(("square", "product", "decoder")),
        draws=st.integers(1, 2),
    ),
    classes,
)
def test_fisher(model, data, config, exclude):
    words = ("model", "data", "config", "class")
    fisher = attempt(lambda: sa.diagonal_fisher(model, data, config, exclude), *words)
    if fisher is not None:
        for name, p in model.named_parameters():
            assert is_right(fisher.diagonal[name], *p.shape)
            assert config.estimator == "product" or (fisher.diagonal[name] >= 0).all()


@few
@given(
    models,
    mostly(st.just(FISHERS.without(3))),
    classes,
    configurations(
        AmnesiaConfig,
        surrogate=st.sampled_from(("gray", "noise", "blank", "mixture", "class:5", "class:x")),
        forget_form=st.sampled_from(("decoder", "elbo", "l1")),
        replay_form=st.sampled_from(("decoder", "elbo")),
        neg_loss_weight=st.floats(0, 1e6),
        ewc_lambda=st.floats(0, 1e12),
        lr_unl=st.floats(1e-7, 1),
        w_orient=st.sampled_from((0.0, 1.0, 1e6)),
        tolerance=st.floats(0, 1),
        epochs_unl=st.integers(1, 2),
        replay_samples=st.integers(1, 3),
        batch_size=st.integers(1, 4),
        cooldown=st.integers(0, 3),
    ),
    mostly(st.none(), st.sampled_from((DATA, DATA.only(3), DATA.only(())))),
)
def test_forget(model, fisher, forget_class, config, real):
    before = copy.deepcopy(model)
    words = ("model", "isher", "class", "config", "surrogate", "real_images", "lr_unl", *NAMES)
    result = attempt(
        lambda: sa.forget(model, fisher, forget_class, config, real_images=real), *words
    )
    if result is not None:
        for name, p in result.model.named_parameters():
            assert is_right(p, *model.get_parameter(name).shape)
            assert torch.equal(model.get_parameter(name), before.get_parameter(name))
        assert len(result.history.get("distance", [])) == result.steps


@many
@given(pictures, mostly(tensors([(), (3,), (3, 1), (3, 1, 28, 28)])))
def test_penalties(images, level):
    for call in (
        lambda: sa.total_variation(images),
        lambda: sa.orientation_entropy(images),
        lambda: sa.contrast(images, level),
        lambda: sa.ink(images, level),
    ):
        found = attempt(call, "images", "level", "target")
        if found is not None:
            known = images.isfinite().all() and (
                not isinstance(level, torch.Tensor) or level.isfinite().all()
            )
            assert found.shape == images.shape[:1]
            assert found.isfinite().all() or not known


@few
@given(
    pictures,
    mostly(st.floats(0, 1), tensors([(), (3,), (2,)])),
    mostly(st.floats(1e-3, 1)),
)
def test_denoise_tv(noisy, weight, gap):
    def call():
        try:
            with mock.patch("sahelpers.denoising.MAX_STEPS", 200):
                return sa.denoise_tv(noisy, weight, gap=gap)
        except RuntimeError as error:
            if "not reached in 200 steps" not in str(error):  # which is documented
                raise

    found = attempt(call, "noisy", "weight", "gap")
    if found is not None:
        assert is_right(found, *noisy.shape)
        assert not len(found) or (found.min() > NOISY[0] - 0.1 and found.max() < NOISY[1] + 0.1)


@few
@given(
    models,
    classes,
    configurations(
        ProbeConfig,
        n_restarts=st.integers(1, 3),
        steps=st.integers(1, 3),
        lr_z=st.floats(1e-6, 10),
        lr_y=st.floats(0, 10),
        w_tv=st.floats(0, 1e6),
        w_contrast=st.floats(0, 1e6),
    ),
    mostly(st.sampled_from(("both", "z", "y", "free_y"))),
    latents,
)
def test_probes(model, forget_class, config, over, start):
    for call in (
        lambda: sa.invert_prototypes(model, forget_class, config, baseline=MODEL, start=start),
        lambda: sa.invert_blind(model, forget_class, config, start=start),
        lambda: sa.guided_attack(model, forget_class, config, guide=GUIDE, over=over, start=start),
    ):
        words = ("model", "baseline", "guide", "class", "config", "over", "start")
        found = attempt(call, *words)
        if found is not None:
            n = config.n_restarts if start is None else len(start)
            assert is_right(found.images, n, 1, 28, 28)
            assert is_right(found.loss, n)
            assert is_right(found.z, n, model.latent_dim)


@many
@given(
    models,
    mostly(st.integers(1, 3)),
    mostly(st.sampled_from(("class", "standard"))),
    mostly(st.integers(-1, 2**40)),
    mostly(st.just(JUDGE), st.just(FOUR)),
)
def test_latents_and_verdicts(model, per_class, prior, seed, judge):
    words = ("model", "per_class", "prior", "seed")
    fixed = attempt(lambda: sa.fixed_latents(model, per_class, prior, seed), *words)
    if fixed is not None:
        n = model.num_classes
        assert is_right(fixed.z, n * per_class, model.latent_dim)
        verdict = attempt(lambda: sa.judge_samples(model, judge, fixed), "judge")
        if verdict is not None:
            assert is_right(verdict.probability, n, n)
            assert torch.allclose(verdict.argmax.sum(1), torch.ones(n))


@few
@given(
    models,
    pictures,
    numbers,
    mostly(st.integers(1, 3)),
    st.lists(models, max_size=2),
)
def test_log_likelihood(model, images, labels, k, others):
    words = ("model", "images", "labels", "k=", "others")
    found = attempt(
        lambda: sa.iwae_bound(model, images, labels, k, tuple(others), sa.seeded(0)), *words
    )
    if found is not None:
        assert is_right(found, len(images))
