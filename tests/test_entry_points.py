"""Whatever is started first in a clean folder, all others find what they need there."""

import itertools
from types import SimpleNamespace

import pytest

import sahelpers as sa
from sahelpers.live.forgetting import AmnesiaController
from sahelpers.store.archive import same
from study import grid
from study.grid import Grid
from study.measures import MeasureConfig
from study.methods import HIDDEN, OURS, RETRAINED
from tools import run

CONFIGS = {
    "baseline": sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
    "fisher": sa.FisherConfig(n_fisher_samples=50),
    "amnesia": sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2),
    "judge": sa.JudgeConfig(epochs=1, batch_size=50),
}
MEASURES = MeasureConfig(samples=20, frechet_samples=20, iwae_images=3, iwae_draws=5)
LADDER = sa.LadderConfig(
    images=6, z_steps=1, sets=1, set_size=3, fit_steps=1, heal_steps=2, relearn_steps=25
)


class Clone:
    """A clean clone in which every entry point works on little data."""

    def __init__(self, folder, data, monkeypatch):
        self.folder, self.data = folder, data
        monkeypatch.setenv("SA_CHECKPOINTS", str(folder / "checkpoints"))
        monkeypatch.setattr(grid, "load_dataset", lambda name, split="train": data[split == "test"])
        clone = SimpleNamespace(**vars(sa) | {"Story": self.story})
        monkeypatch.setattr(run, "sa", clone)
        monkeypatch.setattr(run, "probe", lambda *a: {})

    def story(self):
        return sa.Story(self.data, **CONFIGS)

    def grid(self, part, *methods):
        configs = {k: CONFIGS[k] for k in ("baseline", "amnesia", "judge")}
        seeds = (CONFIGS["baseline"].seed,)
        made = Grid(part, methods, (3,), seeds, measures=MEASURES, ladder=LADDER, bounded=(),
                    folder=self.folder, **configs)  # fmt: skip
        made.run()
        assert made.missing() == []

    def snippet(self):
        """README: from Python."""
        s = self.story()
        sa.forget(s.baseline.model, s.fishers.without(7), 7, s.config.amnesia)

    def first_notebook(self):
        """Draws the curve of the test images."""
        history = self.story().baseline.history
        assert len(history["held_out"]) == len(history["kl"]) == CONFIGS["baseline"].epochs

    def probing_notebook(self):
        s = self.story()
        assert s.forgotten(3).forget_class == (3,)
        assert len(s.retrained(3).history["held_out"]) == CONFIGS["baseline"].epochs
        assert s.hidden(3).num_classes == 10

    def scoreboard(self):
        self.grid("scoreboard", RETRAINED, OURS)

    def ladder(self):
        self.grid("ladder", HIDDEN, RETRAINED)

    def report(self):
        run.measure(3, self.folder, n=5)

    def dashboard(self):
        AmnesiaController(self.story())


ENTRIES = ("snippet", "first_notebook", "probing_notebook", "scoreboard", "ladder", "report",
           "dashboard")  # fmt: skip


@pytest.fixture
def data():
    """Training and test images, small ones: what is asked is who makes what, not how well."""
    return sa.load_dataset("digits8").take(300), sa.load_dataset("digits8", "test")


@pytest.mark.parametrize(
    "first", [ENTRIES[0], *(pytest.param(name, marks=pytest.mark.full) for name in ENTRIES[1:])]
)
def test_any_entry_point_may_be_the_first(tmp_path, monkeypatch, data, first):
    clone = Clone(tmp_path, data, monkeypatch)
    others = [name for name in ENTRIES if name != first]
    for name in (first, *others):
        getattr(clone, name)()


@pytest.mark.full
def test_the_order_changes_no_bit(tmp_path, monkeypatch, data):
    """A model that the scoreboard retrained is the one that the story would have made."""
    found = []
    for k, order in enumerate(itertools.permutations(["scoreboard", "probing_notebook"])):
        (tmp_path / str(k)).mkdir()
        clone = Clone(tmp_path / str(k), data, monkeypatch)
        for name in order:
            getattr(clone, name)()
        s = clone.story()
        found.append([s.retrained(3).to_state(), s.forgotten(3).model.to_state()])
    assert same(found[0], found[1])
