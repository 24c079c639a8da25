"""What the encoder gives away: the rows on tiny models, and the committed page."""

import re
from types import SimpleNamespace

import pytest
import torch

import sahelpers as sa
from sahelpers.attacks.ladder import Ladder
from study.experiments import encoder
from study.grid import RESULTS
from study.methods import KEPT_IMAGES, METHODS

LITTLE = sa.LadderConfig(
    images=4, z_steps=2, sets=1, set_size=3, fit_steps=2, heal_steps=2, relearn_steps=25
)


def made(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sa.CVAE(latent_dim=2, num_classes=3, image_shape=(1, 8, 8)).eval()


@pytest.fixture
def story(monkeypatch):
    """Untrained models of three classes, and noise for images."""
    moved = lambda story, classes: SimpleNamespace(model=made(2))  # noqa: E731
    monkeypatch.setitem(METHODS, KEPT_IMAGES, moved)
    images = torch.rand((60, 1, 8, 8), generator=sa.seeded(0))
    data = sa.LabelledImages(images, torch.tensor([0, 2] * 15 + [1] * 30), ("a", "b", "c"))
    return SimpleNamespace(
        baseline=SimpleNamespace(model=made(0)),
        train=data,
        test=data,
        forgotten=lambda digit: SimpleNamespace(model=made(1)),
        retrained=lambda digit: SimpleNamespace(model=made(3)),
    )


def test_the_encoder_stays_and_the_decoder_is_made_anew_and_trained(story):
    old, new = made(1), encoder.with_new_decoder(made(1), 1, story.train, 200)
    shorter = encoder.with_new_decoder(made(1), 1, story.train, 1)
    for name, weight in new.named_parameters():
        assert torch.equal(weight, old.get_parameter(name)) == name.startswith("encoder")
        assert torch.equal(weight, shorter.get_parameter(name)) == name.startswith("encoder")


def test_a_row_is_what_the_ladder_finds_with_this_encoder(story):
    found = list(encoder.rows(story, (1,), 3, LITTLE))
    names = ["forgotten", "forgotten with kept images", "retrained"]
    assert [row[:2] for row in found] == [(1, name) for name in names]
    ladder = Ladder(story.baseline.model, 1, story.train, story.test, LITTLE)
    for seed, row in enumerate(found, 1):
        model = encoder.with_new_decoder(made(seed), 1, story.train, 3)
        assert row[2] == pytest.approx(ladder.under_a_fitted_label(model), abs=0.06)
        assert row[3] == pytest.approx(ladder.relearned(model).bound, abs=0.06)


def test_the_page_says_in_words_what_its_table_shows():
    text = (RESULTS / "encoder.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text)
    found = [(int(d), name, *map(float, nats)) for d, name, *nats in rows]
    assert {d for d, *_ in found} == set(encoder.DIGITS)
    assert encoder.page(found) == text
