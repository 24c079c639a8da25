"""The Python in README runs as it stands there."""

import re

import pytest
import torch

import sahelpers as sa
from sahelpers.data import CHECKOUT

BLOCKS = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def quick(monkeypatch, model, fishers):
    """The package with a small baseline ready, and without what the blocks leave in it."""
    monkeypatch.setattr(sa, "get_baseline", lambda config, train: sa.TrainedCVAE(model, {}))
    monkeypatch.setattr(sa, "get_fishers", lambda baseline, base, config, train: fishers)
    monkeypatch.setattr(sa, "METHODS", sa.METHODS.copy())


def test_forgetting_another_digit(quick, model):
    found = {}
    exec(BLOCKS[0], found)
    assert found["result"].forgotten == (7,)
    assert found["images"].shape == (10, 1, 28, 28)
    seven = torch.full((50,), 7)
    before, after = (m.sample(seven, sa.seeded(0)) for m in (model, found["result"].model))
    assert (after - 0.5).abs().mean() < 0.05 < 0.3 < (before - 0.5).abs().mean()


def test_adding_a_method(quick, model, fishers, mnist):
    exec(BLOCKS[1], {})
    task = sa.Task(model, (3,), fishers, mnist, sa.BaselineConfig(latent_dim=3))
    new = sa.METHODS["shrink label"](task).model
    before, after = (m.get_parameter("decoder.0.weight") for m in (model, new))
    assert torch.equal(after[:, 3 + 3], before[:, 3 + 3] / 2)
    assert int((before != after).any(0).sum()) == 1
    assert not new.prior_mean[3].any()
    assert len(BLOCKS) == 2
