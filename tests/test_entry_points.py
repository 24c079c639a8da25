"""Whatever is started first in a clean folder, all others find what they need there."""

import itertools
from types import SimpleNamespace

import pytest
import torch

import sahelpers as sa
from sahelpers.__main__ import from_docs
from sahelpers.store.archive import same
from sahelpers.study import Effort, Grid, grid

CONFIGS = {
    "baseline": sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
    "fisher": sa.FisherConfig(n_fisher_samples=50),
    "amnesia": sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2),
    "judge": sa.JudgeConfig(epochs=1, batch_size=50),
}
LITTLE = Effort(
    samples=20, frechet_samples=20, iwae_images=3, iwae_draws=5, restarts=2, attack_steps=1,
    relearn_images=5, relearn_steps=1, relearn_runs=1, inversion_steps=1, repeats=2,
)  # fmt: skip


class Clone:
    """A clean clone in which every entry point works on little data."""

    def __init__(self, folder, data, monkeypatch):
        self.folder, self.data = folder, data
        monkeypatch.setenv("SA_CHECKPOINTS", str(folder / "checkpoints"))
        monkeypatch.setattr(grid, "load_dataset", lambda name, split="train": data[split == "test"])
        clone = SimpleNamespace(**vars(sa) | {"Story": self.story})
        monkeypatch.setattr(from_docs("repository"), "sa", clone)
        monkeypatch.setattr(from_docs("repository"), "probe", lambda *a: {})

    def story(self):
        return sa.Story(self.data, **CONFIGS)

    def grid(self, part, *methods):
        configs = {k: CONFIGS[k] for k in ("baseline", "amnesia", "judge")}
        seeds = (CONFIGS["baseline"].seed,)
        made = Grid(part, methods, (3,), seeds, effort=LITTLE, expensive=(), folder=self.folder,
                    **configs)  # fmt: skip
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
        assert len(s.control(3).history["held_out"]) == CONFIGS["baseline"].epochs
        assert s.hidden(3).num_classes == 10

    def scoreboard(self):
        self.grid("scoreboard", "retraining", "selective amnesia")

    def audit(self):
        self.grid("audit", "baseline", "retraining")

    def report(self):
        from_docs("repository").measure(3, self.folder, n=5)

    def dashboard(self):
        sa.live.forget.AmnesiaController(self.story())


ENTRIES = ("snippet", "first_notebook", "probing_notebook", "scoreboard", "audit", "report",
           "dashboard")  # fmt: skip


@pytest.mark.parametrize("first", ENTRIES)
def test_any_entry_point_may_be_the_first(tmp_path, monkeypatch, mnist, first):
    threes = mnist.only(3).take(150, seed=2)  # relearning takes a hundred of them
    few = mnist.take(100, seed=1)
    test = sa.LabelledImages(
        torch.cat([few.images, threes.images]), torch.cat([few.labels, threes.labels])
    )
    clone = Clone(tmp_path, (mnist.take(300), test), monkeypatch)
    others = [name for name in ENTRIES if name != first]
    for name in (first, *others):
        getattr(clone, name)()


def test_the_order_changes_no_bit(tmp_path, monkeypatch, mnist):
    """A control that the scoreboard retrained is the one that the story would have made."""
    data = mnist.take(300), mnist.take(100, seed=1)
    found = []
    for k, order in enumerate(itertools.permutations(["scoreboard", "probing_notebook"])):
        (tmp_path / str(k)).mkdir()
        clone = Clone(tmp_path / str(k), data, monkeypatch)
        for name in order:
            getattr(clone, name)()
        s = clone.story()
        found.append([s.control(3).to_state(), s.forgotten(3).model.to_state()])
    assert same(found[0], found[1])
