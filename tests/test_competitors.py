from dataclasses import replace

import pytest
import torch

import sahelpers as sa
from sahelpers import competitors


@pytest.fixture
def task(model, fishers, mnist, monkeypatch):
    monkeypatch.setattr(competitors, "STEPS", 5)
    quick = {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": 5}
    return sa.Task(
        model=model,
        forgotten=(3, 5),
        fishers=fishers,
        train=mnist.take(500),
        baseline=sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
        config=sa.AmnesiaConfig(**quick),
    )


def shorten(monkeypatch):
    """The two recipes with a budget of a few steps; what they descend on stays theirs."""
    for name in ("paper", "reference"):
        full = getattr(sa.AmnesiaConfig, name)
        few = {"epochs_unl": 1, "replay_samples": 64, "batch_size": 32}
        short = classmethod(lambda cls, full=full, few=few, **k: full(**{**k, **few}))
        monkeypatch.setattr(sa.AmnesiaConfig, name, short)
    few_images = lambda m, d, c: sa.class_fishers(m, d, replace(c, n_fisher_samples=50))  # noqa: E731
    monkeypatch.setattr(competitors, "class_fishers", few_images)


@pytest.mark.parametrize("name", list(sa.METHODS))
def test_every_method_returns_a_new_model_without_the_gaussian_of_the_class(
    task, name, monkeypatch
):
    shorten(monkeypatch)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    result = sa.METHODS[name](task)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert result.forgotten == (3, 5)
    assert result.seconds > 0
    steps = {"label column": 0, "retraining": 1}  # a pass, of retraining
    assert result.steps == steps.get(name) or result.steps > 1
    assert not result.model.training
    for label in range(10):
        erased = torch.equal(result.model.prior_mean[label], torch.zeros(3))
        assert erased == (label in (3, 5))
    changed = [k for k, p in result.model.named_parameters() if not torch.equal(p, before[k])]
    assert changed
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


def test_real_images_are_counted(task, monkeypatch):
    shorten(monkeypatch)
    kept = int((~torch.isin(task.train.labels, torch.tensor([3, 5]))).sum())
    expected = {
        "reference": kept,
        "reference, 3 passes": kept,
        "gradient ascent": len(task.train) - kept,
        "fine-tuning": kept,
        "random labels": kept,
        "retraining": kept,
    }
    for name, method in sa.METHODS.items():
        assert method(task).real_images == expected.get(name, 0), name


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_label_column_is_the_mean_of_the_kept_ones(task, arch):
    model = sa.CVAE(arch, latent_dim=3)
    new = sa.METHODS["label column"](replace(task, model=model, forgotten=(3,))).model
    old, now = model.decoder[0].weight, new.decoder[0].weight
    others = [3 + c for c in range(10) if c != 3]
    assert torch.allclose(now[:, 6], old[:, others].mean(1), atol=1e-6)
    assert torch.equal(now[:, others], old[:, others])
    labels = model.encoder[0].weight.shape[1] - 10
    old, now = model.encoder[0].weight, new.encoder[0].weight
    others = [labels + c for c in range(10) if c != 3]
    assert torch.allclose(now[:, labels + 3], old[:, others].mean(1), atol=1e-6)
    assert torch.equal(now[:, :labels], old[:, :labels])


def test_saliency_mask_moves_about_half_of_the_weights(task):
    new = sa.METHODS["saliency mask"](task).model
    moved = total = 0
    for name, p in new.named_parameters():
        if name.startswith("decoder"):
            moved += int((p != task.model.get_parameter(name)).sum())
            total += p.numel()
    assert 0.2 < moved / total <= 0.55
