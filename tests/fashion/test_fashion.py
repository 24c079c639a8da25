"""The real Fashion-MNIST, from SA_DATA (`make test-fashion`)."""

import torch

import sahelpers as sa

NAMES = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle\xa0boot"


def test_the_files_hold_what_their_name_says():
    train, test = (sa.load_dataset("fashion_mnist", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert train.class_names == tuple(name.replace("\xa0", " ") for name in NAMES.split(" "))
    assert "in training" in train.report(test)


def test_a_class_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    both = (sa.load_dataset("fashion_mnist", split) for split in ("train", "test"))
    data = tuple(images.take(10_000) for images in both)
    judge, base = sa.JudgeConfig(epochs=2), sa.BaselineConfig(epochs=5)
    story = sa.Story(data, baseline=base, judge=judge)
    before, after = story.baseline.model, story.forgotten(1).model
    latents = sa.fixed_latents(before, 200)
    seen = [sa.judge_samples(m, story.judges["open_set"], latents) for m in (before, after)]
    assert seen[0].argmax[1, 1] > 0.5  # trousers are easy
    assert seen[1].argmax[1, 1] <= 0.01
    assert (
        sa.retained_accuracy(*seen, 1).mean_before - sa.retained_accuracy(*seen, 1).mean_after <= 2
    )
    assert torch.isfinite(after.decode(latents.z, latents.labels)).all()
