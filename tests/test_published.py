"""The published recipe: what trains its baseline, and that the page says what was measured."""

import math

import pieces
import published
import pytest
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.study.statistics import BESIDE, NAMED


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A story of few images, and a training of forty steps."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(200, 1, 28, 28, generator=draw).round()
    data = sa.LabelledImages(images, torch.arange(200) % 10)
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    story = sa.Story((data, data), baseline=published.SMALL)
    monkeypatch.setattr(published, "usual", lambda: story)
    monkeypatch.setattr(published, "STEPS", 40)
    monkeypatch.setattr(published, "BATCH", 20)
    return story


def plainly(data, steps, classes):
    """The recipe again: Adam at a constant rate, nothing else."""
    torch.manual_seed(42)
    model, draw = sa.CVAE(latent_dim=8), torch.Generator().manual_seed(42)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    kept = data.without(classes)
    done = 0
    while done < steps:
        order = torch.randperm(len(kept), generator=draw)
        for k in range(len(kept) // 20):
            index = order[20 * k : 20 * k + 20]
            images, labels = kept.images[index], kept.labels[index]
            mean, log_var = model.encode(images, labels)
            z = mean + torch.randn(20, 8, generator=draw) * (log_var / 2).exp()
            logits = model.decode_logits(z, labels)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, images, reduction="sum"
            )
            loss = loss + 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
            optimizer.zero_grad()
            (loss / 20).backward()
            optimizer.step()
            done += 1
    return model


@pytest.mark.parametrize("exclude", [(), (3,)])
def test_the_official_training_is_adam_at_a_constant_rate(few, exclude):
    made, expected = published.official(exclude), plainly(few.train, 40, exclude)
    for a, b in zip(made.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_stopped_training_goes_on_to_the_same_bits(few, monkeypatch, tmp_path):
    whole = [p.clone() for p in published.official().parameters()]
    for path in tmp_path.glob("official*"):
        path.unlink()
    save, passes = published.Resume.save, []

    def stop(self, history):
        save(self, history)
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(published.Resume, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        published.official()
    monkeypatch.setattr(published.Resume, "save", save)
    again = published.official()
    assert all(torch.equal(a, b) for a, b in zip(whole, again.parameters(), strict=True))


def test_the_page_says_what_the_journal_holds():
    page = pieces.page(published.tables())
    assert (CHECKOUT / "results/published.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")


def test_the_journal_holds_what_was_asked():
    found, wanted = pieces.read(published.JOURNAL, published.Model), published.models()
    assert set(found) <= set(wanted)
    page = (CHECKOUT / "results/published.md").read_text(encoding="utf-8")
    left = len(wanted) - len(found)
    if found:
        assert (f"Still to be measured: {left} models" in page) == (left > 0)
    for of in found.values():
        assert set(of["values"]) >= {*NAMED, *BESIDE}
        assert 0 <= of["p"] <= 1
        assert 0 <= of["entropy"] <= math.log(10) + 1e-6
