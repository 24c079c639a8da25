"""The models that ship: each is the one that its recipe names, and none is taken for another."""

import warnings

import pytest
import torch

import sahelpers as sa
from sahelpers import story as story_module
from sahelpers.store import files
from sahelpers.store.archive import same
from sahelpers.store.files import Recipe, load, load_or_make, save

NAMES = {
    "judge_guide.pt",
    "judge_open_set.pt",
    "judge_closed_set.pt",
    "vae_baseline.pt",
    "vae_forget_3.pt",
    "vae_masked_3-c4bdb23c.pt",
    "vae_without_3-1ccfee3d.pt",
}


class Number:
    def __init__(self, value):
        self.value = value

    def to_state(self):
        return {"value": self.value}

    @classmethod
    def from_state(cls, state):
        return cls(state["value"])


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with x.pt, which holds 1 and was made from a baseline and a Fisher."""
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    path = tmp_path / "shipped" / "x.pt"
    save(path, {"value": 1}, recipe().mark)
    return path


def recipe(version=1, **parents):
    parents = {"baseline": "ab", "Fisher": "cd", **parents}
    return Recipe("x", version, (sa.FisherConfig(),), {"train": "ef"}, parents, usual=True)


def made(*args, **parents):
    return load_or_make(recipe(*args, **parents), lambda: Number(2), Number).value


def test_the_default_story_finds_all_of_it_and_trains_nothing(own, monkeypatch):
    def fail(*args, **given):
        raise AssertionError("something is trained")

    for name in ("train_baseline", "train_judge", "forget", "masked_model"):
        monkeypatch.setattr(story_module, name, fail)
    story = sa.Story()
    assert len(story.baseline.history["held_out"]) == story.config.baseline.epochs
    assert list(story.judges) == ["open_set", "closed_set"]
    assert story.guide.role == "guide"
    assert not story.retrained(3).model.prior_mean[3].any()
    assert story.forgotten(3).forget_class == (3,)
    assert not story.masked(3).prior_mean[3].any()
    assert {path.name for path in files.SHIPPED.iterdir()} == NAMES
    assert {path.name for path in own.iterdir()} <= {"fisher.pt"}
    for other in (story.retrained, story.forgotten, story.masked):  # nothing ships for these
        with pytest.raises(AssertionError, match="trained"):
            other(5)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_torch_alone_opens_what_ships(name):
    """As any saved state dict: `torch.load(path, weights_only=True)`, with equal bits."""
    path = files.SHIPPED / name
    state, mark = load(path)
    found = torch.load(path, weights_only=True)
    assert found.keys() == {"mark", "state"}
    assert same(found["state"], state)
    assert same(found["mark"], mark)
    assert state.get("model", state)["tensors"]


def test_another_seed_has_models_of_its_own(monkeypatch):
    def fail(*args, **given):
        raise AssertionError("trained")

    monkeypatch.setattr(story_module, "train_baseline", fail)
    with pytest.raises(AssertionError, match="trained"):
        _ = sa.Story(baseline=sa.BaselineConfig(seed=1)).baseline


def test_what_ships_is_read_and_not_copied(shipped, own):
    assert made() == 1
    assert not own.exists()


def test_ones_own_file_comes_first(shipped):
    save(recipe().path, {"value": 3}, recipe().mark)
    assert made() == 3


def test_from_another_baseline_it_is_made_anew_but_not_from_another_fisher(shipped):
    with warnings.catch_warnings(action="error"):
        assert made(Fisher="other") == 1
    with pytest.warns(UserWarning, match="x.pt is made anew: it was made from another baseline"):
        assert made(baseline="other") == 2
    with warnings.catch_warnings(action="error"):
        assert made(baseline="other") == 2


def test_another_release_of_torch_is_no_news(shipped, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "99.0")
    with warnings.catch_warnings(action="error"):
        assert made() == 1


@pytest.mark.parametrize("harm", ["torn", "foreign", "version"])
def test_a_wrong_one_is_named_and_made_in_ones_own_folder(shipped, harm):
    if harm == "torn":
        shipped.write_bytes(shipped.read_bytes()[:-9])
    elif harm == "foreign":
        torch.save({"weights": torch.zeros(3)}, shipped)
    with pytest.warns(UserWarning, match=r"x\.pt is made anew: "):
        assert made(2 if harm == "version" else 1) == 2
    assert recipe().path.is_file()
