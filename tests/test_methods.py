from dataclasses import replace

import pytest
import torch

import sahelpers as sa
from sahelpers.study import METHODS, methods

GONE = (3, 5)


@pytest.fixture
def story(model, fishers, mnist, monkeypatch):
    """A story whose baseline and Fishers are there already."""
    monkeypatch.setattr(methods, "STEPS", 5)
    quick = {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": 5}
    story = sa.Story(
        (mnist.take(500), mnist.take(100, seed=1)),
        baseline=sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
        amnesia=sa.AmnesiaConfig(**quick),
    )
    vars(story).update(baseline=sa.TrainedCVAE(model, {}), fishers=fishers)
    return story


def shorten(monkeypatch):
    """The two recipes with a budget of a few steps; what they descend on stays theirs."""
    for name in ("paper", "reference"):
        full = getattr(sa.AmnesiaConfig, name)
        few = {"epochs_unl": 1, "replay_samples": 64, "batch_size": 32}
        short = classmethod(lambda cls, full=full, few=few, **k: full(**{**k, **few}))
        monkeypatch.setattr(sa.AmnesiaConfig, name, short)
    few_images = lambda m, d, c: sa.class_fishers(m, d, replace(c, n_fisher_samples=50))  # noqa: E731
    monkeypatch.setattr(methods, "class_fishers", few_images)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_returns_a_new_model_without_the_gaussian_of_the_class(
    story, name, monkeypatch
):
    shorten(monkeypatch)
    old = story.baseline.model
    before = {k: v.clone() for k, v in old.state_dict().items()}
    result = METHODS[name](story, GONE)
    assert all(torch.equal(v, before[k]) for k, v in old.state_dict().items())
    assert result.forget_class == GONE
    assert result.seconds > 0
    steps = {"label column": 0, "retraining": 1}  # a pass, of retraining
    assert result.steps == steps.get(name) or result.steps > 1
    assert not result.model.training
    for label in range(10):
        erased = torch.equal(result.model.prior_mean[label], torch.zeros(3))
        assert erased == (label in GONE)
    changed = [k for k, p in result.model.named_parameters() if not torch.equal(p, before[k])]
    assert changed
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


def test_real_images_are_counted(story, monkeypatch):
    shorten(monkeypatch)
    kept = int((~torch.isin(story.train.labels, torch.tensor(GONE))).sum())
    expected = {
        "reference": kept,
        "reference, 3 passes": kept,
        "gradient ascent": len(story.train) - kept,
        "fine-tuning": kept,
        "random labels": kept,
        "retraining": kept,
    }
    for name, method in METHODS.items():
        assert method(story, GONE).real_images == expected.get(name, 0), name


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_label_column_is_the_mean_of_the_kept_ones(story, arch):
    model = sa.CVAE(arch, latent_dim=3)
    story.baseline = sa.TrainedCVAE(model, {})
    new = METHODS["label column"](story, (3,)).model
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


def test_retraining_is_the_control_of_the_story(story, tmp_path, monkeypatch):
    """One recipe: what the scoreboard trains is what the audit attacks, to the bit."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    mine, theirs = (r.model.state_dict() for r in (METHODS["retraining"](story, GONE),
                                                   story.control(GONE)))  # fmt: skip
    assert all(torch.equal(v, theirs[k]) for k, v in mine.items())
