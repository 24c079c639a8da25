import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sahelpers as sa
from sahelpers.config import CHECKOUT, fingerprint
from sahelpers.store.archive import pack, unpack

CONFIGS = [sa.BaselineConfig, sa.FisherConfig, sa.AmnesiaConfig, sa.ProbeConfig, sa.JudgeConfig]
NUMBERS = [(c, f) for c in CONFIGS for f in fields(c) if f.metadata.get("low") is not None]
WORDS = [(c, f) for c in CONFIGS for f in fields(c) if f.metadata.get("choices") is not None]


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda x: getattr(x, "name", ""))
def test_every_number_is_held_to_its_range(kind, field):
    low, high = field.metadata["low"], field.metadata["high"]
    for good in (low, high):
        assert getattr(kind(**{field.name: type(field.default)(good)}), field.name) == good
    for bad in (low - 1, high * 2 + 1, float("nan"), float("inf"), "3", None, True):
        with pytest.raises(ValueError, match=field.name) as caught:
            kind(**{field.name: bad})
        assert repr(bad) in str(caught.value)
        assert f"{low:g}" in str(caught.value)


@pytest.mark.parametrize(("kind", "field"), WORDS, ids=lambda x: getattr(x, "name", ""))
def test_every_word_is_one_of_the_choices(kind, field):
    for good in field.metadata["choices"]:
        kind(**{field.name: good})
    for bad in ("", "cnn", None, 3):
        with pytest.raises(ValueError, match=field.name):
            kind(**{field.name: bad})


@pytest.mark.parametrize(("kind", "field"), NUMBERS + WORDS, ids=lambda x: getattr(x, "name", ""))
def test_every_knob_is_explained(kind, field):
    assert len(field.metadata["help"]) > 3


def test_a_float_field_takes_a_whole_number_but_a_whole_field_no_fraction():
    assert sa.AmnesiaConfig(gamma=2).gamma == 2
    with pytest.raises(ValueError, match=r"epochs=2\.5 must be a whole number"):
        sa.BaselineConfig(epochs=2.5)


def test_fingerprint_changes_with_any_field_and_with_nothing_else():
    base = sa.AmnesiaConfig()
    assert fingerprint(base) == fingerprint(sa.AmnesiaConfig())
    seen = {fingerprint(base)}
    for field in fields(base):
        value = getattr(base, field.name)
        words = {"surrogate": "noise", "forget_form": "elbo", "replay_form": "elbo"}
        other = words.get(field.name, 1.5 if field.name == "z_reach" else None)
        other = other or (0.25 if isinstance(value, float) else value + 1)
        seen.add(fingerprint(replace(base, **{field.name: other})))
    assert len(seen) == 1 + len(fields(base))
    whole, number = sa.AmnesiaConfig(push=30), sa.AmnesiaConfig(push=30.0)  # equal, so one print
    assert (whole, fingerprint(whole)) == (number, fingerprint(number))


@pytest.mark.parametrize("bad", [11, -1, 10, "three", "3", 3.0, None, True, (3, 10), (3, "x"), ()])
def test_classes_that_do_not_exist_are_named(bad):
    with pytest.raises(ValueError, match="0 to 9"):
        sa.check_classes(bad)


def test_all_classes_cannot_be_forgotten():
    with pytest.raises(ValueError, match="at least one must be kept"):
        sa.check_classes(range(10))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(lambda c: len(set(c)) < 10))
def test_classes_come_back_sorted_and_once(classes):
    assert sa.check_classes(classes) == tuple(sorted(set(classes)))
    assert sa.check_classes(classes[0]) == (classes[0],)


def told_defaults():
    """(knob, default) as the tables of docs/knobs.md say."""
    for line in (CHECKOUT / "docs" / "knobs.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"`([A-Z_]+)`", cells[0])
        words = re.split(r", ", cells[1]) if len(cells) == 4 else []
        if names and len(names) == len(words):
            for name, word in zip(names, words, strict=True):
                number = re.match(r"\d[\d.e-]*(?: \d{3})*", word)
                yield name.lower(), float(number[0].replace(" ", "")) if number else word


def test_the_page_of_the_knobs_gives_the_defaults():
    told = list(told_defaults())
    assert len(told) == 40
    for name, value in told:
        defaults = [f.default for c in CONFIGS for f in fields(c) if f.name == name]
        assert value in defaults or name == "forget_class", (name, value, defaults)


def test_push_and_budget_are_in_proportion_to_the_size_of_the_images():
    small, usual = sa.AmnesiaConfig.for_values(196, gamma=3.0), sa.AmnesiaConfig()
    assert (small.push, small.kept_budget) == (usual.push / 4, usual.kept_budget / 4)
    assert replace(small, push=usual.push, kept_budget=usual.kept_budget, gamma=2.0) == usual
    assert sa.AmnesiaConfig.for_values(784, push=1.0) == replace(usual, push=1.0)
    with pytest.raises(ValueError, match="values=0 must be a whole number from 1"):
        sa.AmnesiaConfig.for_values(0)


def test_fewer_kept_images_are_replayed_in_more_passes():
    usual = sa.AmnesiaConfig.with_kept_images()
    assert usual.max_steps(54_000) == 2580
    assert sa.AmnesiaConfig.with_kept_images(images=54_000) == usual
    for images in (1, 300, 5_000, 20_000):
        few = sa.AmnesiaConfig.with_kept_images(images=images, gamma=3.0)
        assert few.gamma == 3.0
        assert 2580 <= few.max_steps(images) < 2700
    changed = sa.AmnesiaConfig.with_kept_images(batch_size=64, replay_samples=6_000, images=20_000)
    assert 2580 <= changed.max_steps(20_000) < 5_000  # twelve passes are more than so many steps
    assert sa.AmnesiaConfig.with_kept_images(epochs_unl=2, images=300).epochs_unl == 2
    with pytest.raises(ValueError, match="images=0 must be a whole number from 1"):
        sa.AmnesiaConfig.with_kept_images(images=0)
    with pytest.raises(ValueError, match="batch_size=0 must be a whole number from 1"):
        sa.AmnesiaConfig.with_kept_images(batch_size=0)


def test_the_fingerprints_of_the_defaults_and_of_those_before():
    """Names of files carry these digits: a changed default would orphan hours of work."""
    marks = {c.__name__: fingerprint(c()) for c in CONFIGS}
    presets = ("version3", "version4", "with_kept_images")
    for name in presets:
        marks[name] = fingerprint(getattr(sa.AmnesiaConfig, name)())
    assert marks == {
        "BaselineConfig": "ad918ee5",
        "FisherConfig": "f400e5b9",
        "AmnesiaConfig": "af2facf9",
        "ProbeConfig": "76651e9d",
        "JudgeConfig": "c9821f1f",
        "version3": "fa04e535",
        "version4": "01158dac",
        "with_kept_images": "9cf2bb9a",
    }


RANGES = {
    (0, 2**31 - 1): "seed",
    (0, 1): "gray_value y_reach tolerance ink_target",
    (0, 1e4): "push kept_budget",
    (0, 1e6): "neg_loss_weight gamma w_attack w_contrast w_ink w_tv w_orient w_z w_y alpha_tv l2z",
    (0, 1e12): "ewc_lambda",
    (0, 100_000): "cooldown heal_every",
    (0, 10): "lr_y",
    (0, 16): "z_fits",
    (1, 100): "z_reach",
    (1, 512): "latent_dim",
    (0, 60_000): "forget_batch heal_batch",
    (1, 60_000): "batch_size",
    (1, 1000): "draws epochs",
    (1, 10_000): "epochs",
    (1, 100_000): "epochs_unl n_restarts",
    (1, 1_000_000): "replay_samples steps",
    (1, 10_000_000): "n_fisher_samples",
    (1e-7, 1): "lr lr_unl heal_rate",
    (1e-6, 10): "lr_z",
}


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda x: getattr(x, "name", ""))
def test_a_range_is_narrowed_on_purpose_only(kind, field):
    limits = (field.metadata["low"], field.metadata["high"])
    assert field.name in RANGES[limits].split()


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda x: getattr(x, "name", ""))
def test_a_slider_covers_a_part_of_the_range_with_the_default(kind, field):
    meta = field.metadata
    if meta["high"] >= 1e6 and meta["low"] == 0 and field.name != "seed":
        assert meta["span"] is not None  # no slider could be set over six decades
    if meta["span"] is not None:
        first, last = meta["span"]
        assert meta["low"] <= first < last <= meta["high"]
        assert first <= field.default <= last or field.default == 0


def test_the_words_of_the_choices():
    words = {f.name: f.metadata["choices"] for _, f in WORDS}
    assert words == {
        "arch": ("mlp", "conv"),
        "source": ("data", "model_mean", "model_sample"),
        "estimator": ("square", "product", "decoder"),
        "forget_form": ("decoder", "elbo", "l1"),
        "replay_form": ("decoder", "elbo"),
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_cannot_be_changed_afterwards(kind):
    config = kind()
    with pytest.raises(FrozenInstanceError):
        config.seed = 1


@pytest.mark.parametrize("bad", ["three", "", 3.0, None])
def test_a_class_that_is_no_number_is_named_whole(bad):
    with pytest.raises(ValueError, match=f"^class {bad!r} is not a class: .* or a tuple of them$"):
        sa.check_classes(bad, allow_empty=True)


def test_presets_take_changes():
    assert sa.AmnesiaConfig.paper(gamma=2.0, seed=3).gamma == 2
    assert sa.AmnesiaConfig.reference(lr_unl=1e-3).lr_unl == 1e-3
    assert sa.AmnesiaConfig.cheaper(seed=3) == sa.AmnesiaConfig.version3(seed=3, w_attack=0)
    other = {"push": 30.0, "w_attack": 0.37, "neg_loss_weight": 0.02, "gamma": 3.0, "cooldown": 500}
    assert sa.AmnesiaConfig.conv(seed=3) == sa.AmnesiaConfig.version3(seed=3, **other)
    assert sa.ProbeConfig.prototype(steps=7) == sa.ProbeConfig(n_restarts=6, steps=7)
    assert sa.ProbeConfig.prototype() == sa.ProbeConfig(n_restarts=6, steps=800)


def test_excluded_classes_are_checked_and_sorted(digits):
    assert sa.BaselineConfig(exclude=(7, 2, 7)).exclude == (2, 7)
    assert sa.BaselineConfig().exclude == ()
    with pytest.raises(ValueError, match="class -1 is not a class"):
        sa.BaselineConfig(exclude=(-1,))
    with pytest.raises(ValueError, match="class 10 is not a class"):  # of these data
        sa.Story((digits, digits), baseline=sa.BaselineConfig(exclude=(10,)))


def test_presets_are_what_their_docstrings_say():
    """Paper: noise, ELBO on both sides, 10,000 steps of 256 + 256 at 1e-4, no weight on a term."""
    paper = sa.AmnesiaConfig.paper()
    assert (paper.surrogate, paper.forget_form, paper.replay_form) == ("noise", "elbo", "elbo")
    assert paper.epochs_unl * paper.replay_samples == 10_000 * paper.batch_size
    assert (paper.batch_size, paper.lr_unl) == (256, 1e-4)
    assert paper.neg_loss_weight == paper.gamma == 1
    notebook = sa.AmnesiaConfig.reference()
    assert (notebook.forget_form, notebook.replay_form) == ("l1", "elbo")
    assert (notebook.neg_loss_weight, notebook.epochs_unl, notebook.lr_unl) == (5, 30, 5e-4)
    assert (paper.ewc_lambda, notebook.ewc_lambda) == (7812.5, 500)
    for preset in (paper, notebook):
        assert (preset.z_reach, preset.y_reach, preset.w_attack) == (1, 0, 0)
        assert (preset.tolerance, preset.cooldown) == (0, 0)


@pytest.mark.parametrize("bad", ["10", 2.5, None])
def test_the_number_of_classes_is_whole(bad):
    with pytest.raises(ValueError, match=f"num_classes={bad!r}"):
        sa.check_classes(3, bad)


@given(st.lists(st.integers(0, 9), max_size=30).filter(lambda c: len(set(c)) < 10))
def test_kept_classes_are_the_others(classes):
    assert sorted({*sa.kept_classes(classes), *classes}) == list(range(10))
    assert not {*sa.kept_classes(classes)} & {*classes}


def test_the_budget_in_steps():
    assert sa.AmnesiaConfig(epochs_unl=3, replay_samples=10, batch_size=4).max_steps() == 9
    assert sa.AmnesiaConfig.paper().max_steps() == 10_000


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, torch.tensor])
def test_every_kind_of_whole_number_is_one(kind):
    """np.int64(5) was no whole number in a configuration, and in a model could not be kept."""
    config = sa.BaselineConfig(epochs=kind(5), seed=kind(7))
    assert config == sa.BaselineConfig(epochs=5, seed=7)
    assert fingerprint(config) == fingerprint(sa.BaselineConfig(epochs=5, seed=7))
    assert type(config.epochs) is int
    model = sa.CVAE("mlp", kind(3), kind(4), (kind(1), kind(8), kind(8)))
    again = sa.CVAE.from_state(unpack(pack(model.to_state())))
    assert (again.latent_dim, again.num_classes, again.image_shape) == (3, 4, (1, 8, 8))
    judge = sa.Judge("closed_set", kind(4), (kind(1), kind(8), kind(8)))
    assert sa.Judge.from_state(unpack(pack(judge.to_state()))).num_classes == 4
    assert sa.seeded(kind(200)).initial_seed() == 200
    assert len(sa.fixed_latents(model, kind(100), seed=kind(1)).z) == 400


def test_numbers_of_numpy_are_numbers():
    config = sa.AmnesiaConfig(gamma=np.float32(0.5), push=np.int64(3))
    assert config == sa.AmnesiaConfig(gamma=0.5, push=3)
    assert type(config.push) is type(config.gamma) is float


@pytest.mark.parametrize("value", [np.True_, np.float64(5), torch.tensor(True), np.array([5, 6])])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"epochs=.* must be a whole number from 1 to 10000"):
        sa.BaselineConfig(epochs=value)


@pytest.mark.parametrize("surrogate", ["grey", "", "class:", "class", "Gray", "classes:3"])
def test_a_surrogate_that_does_not_exist_is_refused_at_once(surrogate):
    """It was found only after baseline and Fisher had been made."""
    with pytest.raises(ValueError, match=r"surrogate=.* is not one of gray, .* or class:k"):
        sa.AmnesiaConfig(surrogate=surrogate)
    assert sa.AmnesiaConfig(surrogate="class:ring").surrogate == "class:ring"


def test_numpys_text_becomes_plain_text():
    """A checkpoint cannot hold it, which was found out after the training."""
    assert type(sa.BaselineConfig(arch=np.array(["conv"])[0]).arch) is str
    assert type(sa.AmnesiaConfig(surrogate=np.array(["noise"])[0]).surrogate) is str
