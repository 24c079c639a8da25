"""The methods that the scoreboard compares: what each does, and what its outcome depends on."""

from dataclasses import fields, replace
from functools import partial

import pytest
import torch

import sahelpers as sa
import study
from study import METHODS, methods
from study.methods import (
    DISTILLED,
    HIDDEN,
    KEPT_HEAVILY,
    KEPT_IMAGES,
    KEPT_SLOWLY,
    MASKED,
    OURS,
    PAPER,
    REFERENCE,
    RETRAINED,
    UNDO,
    VERSION3,
    as_method,
)

GONE = (3, 5)


def gone(name):
    """The classes that a method forgets here: two, where it takes two."""
    return (3,) if name == MASKED else GONE


@pytest.fixture
def story(model, fishers, mnist, monkeypatch):
    """A story whose baseline and Fishers are there already."""
    for steps in ("STEPS", "DISTILLED_STEPS", "UNDO_STEPS"):
        monkeypatch.setattr(methods, steps, 5)
    monkeypatch.setattr(methods, "DISTILLED_IMAGES", 320)
    quick = {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": 5}
    story = sa.Story(
        (mnist.take(500), mnist.take(100, seed=1)),
        baseline=sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
        amnesia=sa.AmnesiaConfig(**quick),
    )
    vars(story).update(baseline=sa.TrainedCVAE(model, {}), fishers=fishers)
    return story


def shorten(monkeypatch):
    """The recipes and the mask with a few steps; what they descend on stays theirs."""
    for name in ("paper", "reference", "version3", "with_kept_images"):
        full = getattr(sa.AmnesiaConfig, name)
        few = {"epochs_unl": 1, "replay_samples": 64, "batch_size": 32}
        short = classmethod(lambda cls, full=full, few=few, **k: full(**{**k, **few}))
        monkeypatch.setattr(sa.AmnesiaConfig, name, short)
    soon = partial(methods.earlier, make=sa.AmnesiaConfig.version3)
    monkeypatch.setitem(METHODS, VERSION3, replace(METHODS[VERSION3], function=soon))
    few_images = lambda m, d, c: sa.class_fishers(m, d, replace(c, n_fisher_samples=50))  # noqa: E731
    monkeypatch.setattr(methods, "class_fishers", few_images)
    monkeypatch.setattr(sa.story, "masked_model", partial(sa.masked_model, steps=3))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_returns_a_new_model_without_the_gaussian_of_the_class(
    story, name, monkeypatch
):
    shorten(monkeypatch)
    old = story.baseline.model
    before = {k: v.clone() for k, v in old.state_dict().items()}
    result = METHODS[name](story, gone(name))
    assert all(torch.equal(v, before[k]) for k, v in old.state_dict().items())
    assert result.forget_class == gone(name)
    assert result.seconds > 0
    steps = {HIDDEN: 0, MASKED: 0, RETRAINED: 1}  # a pass, of retraining
    assert result.steps == steps.get(name) or result.steps > 1
    assert not result.model.training
    for label in range(10):
        erased = torch.equal(result.model.prior_mean[label], torch.zeros(3))
        assert erased == (label in gone(name))
    changed = [k for k, p in result.model.named_parameters() if not torch.equal(p, before[k])]
    assert changed
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    kept = len(story.train.without(GONE))
    with_real = (KEPT_IMAGES, KEPT_SLOWLY, KEPT_HEAVILY, REFERENCE, f"{REFERENCE}, 3 passes")
    real = dict.fromkeys(with_real, kept)
    real |= {"gradient ascent": len(story.train) - kept, RETRAINED: kept}
    real |= {"fine-tuning": kept, "random labels": kept}
    assert result.real_images == real.get(name, 0)


def test_two_classes_are_refused_in_words_by_the_method_that_masks_one(story):
    for several in (GONE, ()):
        with pytest.raises(ValueError, match=r"forget_class=\(.*\): this method takes one class"):
            METHODS[MASKED](story, several)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_label_column_is_the_mean_of_the_kept_ones(story, arch):
    model = sa.CVAE(arch, latent_dim=3)
    story.baseline = sa.TrainedCVAE(model, {})
    new = METHODS[HIDDEN](story, (3,)).model
    old, now = model.decoder[0].weight, new.decoder[0].weight
    others = [3 + c for c in range(10) if c != 3]
    assert torch.allclose(now[:, 6], old[:, others].mean(1), atol=1e-6)
    assert torch.equal(now[:, others], old[:, others])
    labels = model.encoder[0].weight.shape[1] - 10
    old, now = model.encoder[0].weight, new.encoder[0].weight
    others = [labels + c for c in range(10) if c != 3]
    assert torch.allclose(now[:, labels + 3], old[:, others].mean(1), atol=1e-6)
    assert torch.equal(now[:, :labels], old[:, :labels])


def test_saliency_mask_moves_about_half_of_the_weights(story):
    new = METHODS["saliency mask"](story, GONE).model
    moved = total = 0
    for name, p in new.named_parameters():
        if name.startswith("decoder"):
            moved += int((p != story.baseline.model.get_parameter(name)).sum())
            total += p.numel()
    assert 0.2 < moved / total <= 0.55


def test_students_begin_on_the_way_to_a_decoder_that_is_nobodys_start(story, monkeypatch):
    """All the way or a part of it; a baseline's own first weights would be a way back."""

    def started(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return sa.CVAE(latent_dim=3)

    seed = story.config.amnesia.seed
    made_anew = started(seed + methods.FRESH)
    for steps in ("DISTILLED_STEPS", "UNDO_STEPS"):
        monkeypatch.setattr(methods, steps, 0)
    shorten(monkeypatch)
    new = METHODS[DISTILLED](story, (3,)).model
    for name, weight in new.named_parameters():
        source = made_anew if name.startswith("decoder") else story.baseline.model
        assert torch.equal(weight, source.get_parameter(name))
        assert not torch.equal(weight, started(seed).get_parameter(name))
    version3 = sa.AmnesiaConfig.version3
    suppressed = methods.earlier(story.with_own_baseline(), (3,), version3).model
    part = METHODS[UNDO](story, (3,)).model
    for name, weight in part.named_parameters():
        old, fresh = suppressed.get_parameter(name), made_anew.get_parameter(name)
        share = methods.UNDO_SHARE
        expected = torch.lerp(old, fresh, share) if name.startswith("decoder") else old
        assert torch.equal(weight, expected)


def test_a_student_comes_nearer_to_its_teacher_and_to_the_surrogate(story, monkeypatch):
    """Every step goes down the loss, in which each class counts alike."""
    teacher, z = story.baseline.model, torch.randn((20, 3), generator=sa.seeded(1))
    student = {}
    for steps in (1, 60):
        monkeypatch.setattr(methods, "DISTILLED_STEPS", steps)
        student[steps] = METHODS[DISTILLED](story, GONE).model
        for name, weight in student[steps].encoder.named_parameters():
            assert torch.equal(weight, teacher.encoder.get_parameter(name))
    far, near = (
        {c: student[n].decode(z, torch.full((20,), c)).detach() for c in range(10)} for n in (1, 60)
    )
    gray = {c: float((images - 0.5).abs().mean()) for c, images in near.items()}
    for c in set(range(10)) - set(GONE):
        kept = teacher.decode(z, torch.full((20,), c)).detach()
        assert (near[c] - kept).abs().mean() < (far[c] - kept).abs().mean()
        assert max(gray[gone] for gone in GONE) < gray[c]
    assert methods.distilling(story.config.amnesia, 0.25).neg_loss_weight == 0.25


def test_the_steps_of_undo_are_those_of_both_parts(story, monkeypatch):
    shorten(monkeypatch)
    version3 = sa.AmnesiaConfig.version3
    first = methods.earlier(story.with_own_baseline(), (3,), version3).steps
    assert METHODS[UNDO](story, (3,)).steps == first + methods.UNDO_STEPS


def test_retraining_gives_the_retrained_model_of_the_story(story, tmp_path, monkeypatch):
    """One recipe: what the scoreboard trains is what the audit attacks, to the bit."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    mine = METHODS[RETRAINED](story, GONE).model.state_dict()
    theirs = story.retrained(GONE).model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in mine.items())


OTHER = {
    "surrogate": "noise", "gray_value": 0.25, "z_reach": 2.0, "y_reach": 0.5, "forget_form": "l1",
    "replay_form": "elbo", "neg_loss_weight": 0.01, "gamma": 3.0, "ewc_lambda": 10.0,
    "w_attack": 0.3, "push": 30.0, "z_fits": 3, "heal_every": 7, "heal_rate": 0.01,
    "kept_budget": 0.5, "heal_batch": 5, "forget_batch": 7,
    "w_contrast": 1.0, "w_ink": 1.0, "w_tv": 1.0, "w_orient": 1.0,
    "epochs_unl": 2, "replay_samples": 160, "batch_size": 16, "lr_unl": 1e-3, "tolerance": 0.1,
    "cooldown": 3,
}  # fmt: skip


def unread(name):
    """The knobs of forgetting that a method's rows do not depend on."""
    config, method = sa.AmnesiaConfig(), as_method(METHODS[name])
    before = method.digests(config)
    return {k: v for k, v in OTHER.items() if method.digests(replace(config, **{k: v})) == before}


def test_which_knobs_the_methods_read():
    assert set(OTHER) == {f.name for f in fields(sa.AmnesiaConfig)} - {"seed"}
    knobs = {name: set(unread(name)) for name in METHODS}
    assert knobs[OURS] == set()
    shadow = {"heal_every", "heal_rate", "heal_batch"}
    assert knobs["ours (without the loop)"] == {"w_attack", "z_fits", "kept_budget", *shadow}
    assert knobs["ours (without the healing)"] == shadow
    assert knobs["ours (without EWC)"] == {"ewc_lambda"}
    assert knobs["ours (without replay)"] == {"gamma"}
    objective = {"epochs_unl", "batch_size", "lr_unl", "tolerance", "cooldown", "w_attack", "push"}
    objective |= {"ewc_lambda", "neg_loss_weight", "z_reach", "y_reach", "gamma", "z_fits", *shadow}
    objective |= {"kept_budget", "forget_batch", "replay_samples"}
    variants = {f"ours (without {what})" for what in ("the loop", "the healing", "EWC", "replay")}
    for name in set(METHODS) - {OURS, *variants}:
        part = objective if name in ("saliency mask", "projection") else set(OTHER)
        part = part - {"surrogate", "gray_value"} if name in (DISTILLED, UNDO) else part
        assert knobs[name] == part, name
    for name in METHODS:
        moved = replace(sa.AmnesiaConfig(), seed=43)
        assert as_method(METHODS[name]).digests(moved) == as_method(METHODS[name]).digests(
            sa.AmnesiaConfig()
        )


@pytest.mark.parametrize("name", [name for name in METHODS if unread(name)])
def test_what_a_method_does_not_read_changes_no_bit(story, name, monkeypatch):
    """Or rows of other knobs would be taken for today's."""
    shorten(monkeypatch)
    before = METHODS[name](story, gone(name)).model.state_dict()
    changed = replace(story.config.amnesia, **unread(name))
    story.config = replace(story.config, amnesia=changed)
    after = METHODS[name](story, gone(name)).model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_rows_of_every_method_are_told_apart():
    found = [as_method(f).digests(sa.AmnesiaConfig()) for f in METHODS.values()]
    assert len({tuple(digests.values()) for digests in found}) == len(METHODS)
    full, short = (as_method(METHODS[n]).digests(sa.AmnesiaConfig()) for n in (
        PAPER, f"{PAPER}, 1,000 steps"))  # fmt: skip
    assert full["own"] != short["own"]


def test_a_plain_function_may_be_a_method():
    """README says how; it is taken to read every knob."""

    def mine(story, forget_class):
        return METHODS[HIDDEN](story, forget_class)

    method = as_method(mine)
    assert method.function is mine
    assert as_method(method) is method
    assert method.digests(sa.AmnesiaConfig()) != method.digests(sa.AmnesiaConfig(gamma=3.0))
    assert study.METHODS is METHODS


def test_masked_models_are_the_storys_and_how_far_they_are_pushed_counts(story, monkeypatch):
    shorten(monkeypatch)
    method = METHODS[MASKED]
    before = method.digests(sa.AmnesiaConfig())
    made = method(story, (3,)).model.state_dict()
    kept = story.masked(3)
    assert all(torch.equal(v, made[k]) for k, v in kept.state_dict().items())
    monkeypatch.setitem(methods.MNIST_PUSH, 3, 99)
    assert method.digests(sa.AmnesiaConfig())["own"] != before["own"]
