"""Every wrong call ends at once in an error that says what was wrong and what is allowed.

The calls stand in `bad_calls_making.txt` and `bad_calls_looking.txt`, one a line, with the error's
type and what its message must hold: the argument's name, its value (or shape, type or place) and
what is allowed.

    python tests/test_bad_calls.py

prints how many of them are clear, and the slowest.
"""

# ruff: noqa: F401  # the tables use what is imported here

import copy
import os
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sahelpers as sa
from sahelpers import live, plots, study
from sahelpers.config import CHECKOUT
from sahelpers.store import files
from sahelpers.study.statistics import compare, compare_all
from sahelpers.training import train_judge

NAN = float("nan")
META = torch.device("meta")  # another device than the processor, on every machine


def broken(module):
    """A copy with one NaN among its weights."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        list(twin.parameters())[2].view(-1)[5] = NAN
    return twin


def made_up_fisher(model, level=1.0):
    diagonal = {name: torch.full_like(p, level) for name, p in model.named_parameters()}
    return sa.Fisher(diagonal, 10, dict.fromkeys(diagonal, 1.0), "square")


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    MODEL, CONV = sa.CVAE("mlp", 2).eval(), sa.CVAE("conv", 2).eval()
    THREE, SMALL = sa.CVAE("mlp", 3).eval(), sa.CVAE("mlp", 2, num_classes=4).eval()
    OPEN, PLAIN, GUIDE = (sa.Judge(role).eval() for role in ("open", "plain", "guide"))
    CONTROL, LEARNING = sa.CVAE("mlp", 2).eval(), sa.Judge("plain")
    FOUR = sa.Judge("plain", num_classes=4).eval()
    IMAGES = torch.rand(40, 1, 28, 28)
    OTHERS = [sa.CVAE("mlp", 2).eval() for _ in range(2)]  # more controls
TRAINED = sa.TrainedCVAE(MODEL, {})
KNOWS_THREE = copy.deepcopy(MODEL)
KNOWS_THREE.prior_mean[3] = 1.0  # as after training with images of the class
JUDGES = {"open": OPEN, "plain": PLAIN}
LABELS, Z = torch.arange(10).repeat(4), torch.zeros(40, 2)
DATA = sa.LabelledImages(IMAGES, LABELS)
NONE, IS_THREE = DATA.only(()), LABELS == 3
OF_FOUR = sa.LabelledImages(IMAGES[:4], LABELS[:4], tuple("abcd"))
THREES = sa.LabelledImages(IMAGES[:1].expand(100, -1, -1, -1), torch.full((100,), 3))
REAL = sa.LabelledImages(IMAGES[:1].expand(101, -1, -1, -1), torch.tensor([3] * 100 + [4]))
FISHER = made_up_fisher(MODEL)
FISHERS = sa.ClassFishers((FISHER,) * 10)
LATENTS = sa.fixed_latents(MODEL, 2)
VERDICT = sa.Verdict(torch.eye(10, 11), torch.eye(10, 11))
SMALL_VERDICT = sa.Verdict(torch.eye(4), torch.eye(4))
BASE = sa.BaselineConfig(epochs=1, latent_dim=2)
FISH = sa.FisherConfig(n_fisher_samples=20)
OWN = sa.FisherConfig(n_fisher_samples=20, source="model_mean")
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=2, batch_size=2, cooldown=0, tolerance=0.0)
PROBE = sa.ProbeConfig(n_restarts=2, steps=1)
GRAY = sa.make_surrogate("gray", MODEL, (1, 2))
LINEAR = nn.Linear(3, 2)


class Given(sa.Story):
    """A story whose Fishers and judges are there already, so that nothing is made or kept."""

    fishers, judges, guide = FISHERS, JUDGES, GUIDE


def story(train=DATA):
    return Given((train, train), baseline=MODEL, fisher=FISH, amnesia=QUICK)


STORY = story()
DASHBOARD = live.AmnesiaController(STORY)
WALK = live.LatentController({"before": MODEL})
PROBER = live.ProbeController(STORY, 3, {"forgotten": MODEL})


def usual(call, **arguments):
    """The call with these arguments unless others are given."""
    return lambda **changes: call(**(arguments | changes))


def squared(module, x):
    return module(x).square().sum(1)


gradients = usual(sa.squared_gradients, module=LINEAR, losses=squared, inputs=(torch.ones(4, 3),))
forget = usual(sa.forget, model=MODEL, fisher=FISHER, forget_class=3, config=QUICK)
objective = usual(
    sa.Objective, frozen=MODEL, fisher=FISHER, forget_class=(3,), config=QUICK, surrogate=GRAY
)
attack = usual(sa.guided_attack, model=MODEL, guide=GUIDE, forget_class=3, config=PROBE)
relearn = usual(
    sa.relearn,
    model=MODEL, data=DATA.only(3), forget_class=3, judges=JUDGES, steps=1,
)  # fmt: skip
audit = usual(
    study.audit,
    model=MODEL, baseline=MODEL, controls=[CONTROL, *OTHERS], forget_class=3, judges=JUDGES,
    guide=GUIDE, real=REAL,
)  # fmt: skip
excess = usual(compare, attack="guided", models=[0.5], hidden=[0.9], controls=[0.4, 0.5, 0.6])
explorer = live.LatentController
prober = usual(live.ProbeController, story=STORY)


def surrogate(what, kept=(1, 2), **more):
    return sa.make_surrogate(what, MODEL, kept, **more)


def forgotten_twice():
    again = copy.copy(DASHBOARD)
    again.chain = (((3,), again.config),)
    again.forget(threading.Event(), another=True)


def written(text):
    """A file with this text."""
    path = Path(tempfile.mkdtemp()) / "report.json"
    path.write_text(text)
    return path


ERRORS = {
    e.__name__: e
    for e in (ValueError, TypeError, FileNotFoundError, sa.CheckpointError, sa.DataError)
}


def table():
    """(call, error, words) of every line."""
    for name in ("making", "looking"):
        path = Path(__file__).with_name(f"bad_calls_{name}.txt")
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                call, said = line.split("  ->  ")
                error, words = said.split(": ", 1)
                yield call, ERRORS[error], words.split(" | ")


CASES = list(table())


def outcome(call):
    """What the call raised, and the seconds it took."""
    begin, raised = time.perf_counter(), None
    try:
        eval(call, globals())
    except Exception as error:
        raised = error
    return raised, time.perf_counter() - begin


def is_clear(raised, error, words):
    return type(raised) is error and all(word in str(raised) for word in words)


@pytest.mark.parametrize(("call", "error", "words"), CASES, ids=[c for c, _, _ in CASES])
def test_the_error_says_what_is_wrong(call, error, words):
    raised, _ = outcome(call)
    assert is_clear(raised, error, words), repr(raised)


def test_the_table_is_long_and_asks_for_name_and_remedy():
    assert len({call for call, _, _ in CASES}) == len(CASES) >= 150
    assert all(len(words) >= 2 for _, _, words in CASES)


@pytest.mark.parametrize("folder", ["with spaces", "Übung/日本 模型", "a'quote & more"])
def test_paths_may_have_any_name(folder, tmp_path, monkeypatch):
    root = tmp_path / folder
    monkeypatch.setenv("SA_CHECKPOINTS", str(root))
    recipe = files.Recipe("fisher größe", 1, (FISH,))
    fishers = files.load_or_make(recipe, lambda: FISHERS, sa.ClassFishers)
    assert torch.equal(
        fishers.by_class[9].diagonal["decoder.0.bias"], FISHER.diagonal["decoder.0.bias"]
    )
    (path,) = root.iterdir()
    state, _ = files.load(path)
    assert state.keys() == {"by_class"}
    raw = root / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (CHECKOUT / "data" / "MNIST" / "raw").glob("t10k*.gz"):
        shutil.copy(file, raw)
    assert len(sa.load_dataset(split="test", root=root / "data")) == 10_000


def test_a_fisher_from_more_images_than_there_are_takes_all():
    few = sa.diagonal_fisher(MODEL, DATA, sa.FisherConfig(n_fisher_samples=10_000))
    assert few.n == len(DATA)


if __name__ == "__main__":
    os.environ["SA_PROGRESS"] = "0"
    results = [(call, *outcome(call), error, words) for call, error, words in CASES]
    unclear = [(c, r) for c, r, _, error, words in results if not is_clear(r, error, words)]
    for call, raised in unclear:
        print(f"unclear: {call}\n    {raised!r}")
    print(f"bad calls clear / tried: {len(results) - len(unclear)} / {len(results)}; the slowest:")
    for call, _, seconds, _, _ in sorted(results, key=lambda r: -r[2])[:5]:
        print(f"{1000 * seconds:6.0f} ms  {call}")
