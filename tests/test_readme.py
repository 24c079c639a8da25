"""The Python in README runs as it stands there."""

import re
from functools import partial

import pytest
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT

BLOCKS = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def quick(monkeypatch, tmp_path, model, mnist):
    """The package with a small baseline ready, and without what the blocks leave in it."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    few = sa.FisherConfig(n_fisher_samples=100)
    story = partial(sa.Story, (mnist, mnist), baseline=model, fisher=few)
    monkeypatch.setattr(sa, "Story", story)
    monkeypatch.setattr(sa.study, "METHODS", sa.study.METHODS.copy())


def test_forgetting_another_digit(quick, model):
    found = {}
    exec(BLOCKS[0], found)
    assert found["result"].forget_class == (7,)
    assert found["images"].shape == (10, 1, 28, 28)
    seven = torch.full((50,), 7)
    before, after = (
        m.sample(seven, generator=sa.seeded(0)) for m in (model, found["result"].model)
    )
    assert (after - 0.5).abs().mean() < 0.05 < 0.3 < (before - 0.5).abs().mean()


def test_adding_a_method(quick, model):
    exec(BLOCKS[1], {})
    new = sa.study.METHODS["shrink label"](sa.Story(), (3,)).model
    before, after = (m.get_parameter("decoder.0.weight") for m in (model, new))
    assert torch.equal(after[:, 3 + 3], before[:, 3 + 3] / 2)
    assert int((before != after).any(0).sum()) == 1
    assert not new.prior_mean[3].any()
    assert len(BLOCKS) == 2
