"""The chain from data to a forgotten class, on a small configuration."""

import pytest
import torch

import sahelpers as sa


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    return tmp_path


def test_every_link_is_made_once_and_then_loaded(folder, mnist, monkeypatch):
    train = mnist.take(400)
    base = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
    fish = sa.FisherConfig(n_fisher_samples=50)
    quick = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2)
    judge = sa.JudgeConfig(epochs=1, batch_size=50)

    def chain():
        baseline = sa.get_baseline(base, train)
        fishers = sa.get_fishers(baseline, base, fish, train)
        result = sa.get_forgotten(baseline, fishers, (5, 2), base, fish, quick)
        control = sa.get_control(base, train, 3)
        judges = sa.get_judges(judge, train, ("tuning",))
        return baseline, fishers, result, control, judges

    first = chain()
    stems = sorted(p.name.rsplit("-", 1)[0] for p in folder.iterdir())
    assert stems == ["fisher", "judge_tuning", "vae_baseline", "vae_forget_2-5", "vae_without_3"]
    monkeypatch.setattr(sa.story, "train_baseline", None)  # nothing is made again
    monkeypatch.setattr(sa.story, "forget", None)
    again = chain()
    labels = torch.arange(10)
    for link in (0, 2, 3):
        images = [chain[link].model.sample(labels, sa.seeded(0)) for chain in (first, again)]
        assert torch.equal(*images)
    assert first[2].forgotten == again[2].forgotten == (2, 5)
    assert first[1].without(3).n == again[1].without(3).n == 45


def test_default_names(folder):
    default = sa.checkpoint_path("vae_forget_3", *(c() for c in (sa.BaselineConfig,)))
    assert default == folder / "vae_forget_3.pt"


def test_an_interrupted_baseline_is_finished_from_its_part(folder, mnist, monkeypatch):
    train, base = mnist.take(200), sa.BaselineConfig(epochs=3, batch_size=50, latent_dim=3)
    part = sa.checkpoints.part_path(sa.checkpoint_path("vae_baseline", base))
    whole = sa.train_baseline(train, base).to_state()

    def interrupted(items, what):
        yield next(iter(items))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sa.training, "progress", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sa.get_baseline(base, train)
    assert part.exists()
    assert sa.archive.same(sa.get_baseline(base, train).to_state(), whole)
    assert [p.name for p in folder.iterdir() if p.suffix == ".pt"] == [
        sa.checkpoint_path("vae_baseline", base).name
    ]


def test_a_model_is_no_fisher_and_a_fisher_no_model(folder, mnist):
    train, base = mnist.take(400), sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
    fish = sa.FisherConfig(n_fisher_samples=50)
    model, fisher = (
        sa.checkpoint_path("vae_baseline", base),
        sa.checkpoint_path("fisher", base, fish),
    )
    baseline = sa.get_baseline(base, train)
    fishers = sa.get_fishers(baseline, base, fish, train).to_state()
    sa.save(fisher, baseline.to_state(), sa.fingerprint(base, fish))
    with pytest.raises(sa.CheckpointError, match="does not hold a ClassFishers"):
        sa.get_fishers(baseline, base, fish, train)
    sa.save(model, fishers, sa.fingerprint(base))
    with pytest.raises(sa.CheckpointError, match="does not hold a TrainedCVAE"):
        sa.get_baseline(base, train)


def test_corrupt_checkpoint_is_named_and_not_overwritten(folder, mnist):
    base = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
    path = sa.checkpoint_path("vae_baseline", base)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(sa.CheckpointError, match=path.name):
        sa.get_baseline(base, mnist.take(100))
    assert path.read_bytes() == b"not a checkpoint"
