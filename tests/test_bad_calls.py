"""Wrong calls of what a reader calls end at once in an error that says what was wrong.

The calls stand in `bad_calls.txt`, one a line, with the error's type and what its message must
hold.  `test_fuzz_calls.py` tries what nobody thought of.

    python tests/test_bad_calls.py

prints how many of them are clear, and the slowest.
"""

# ruff: noqa: F401  # the table uses what is imported here

import copy
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import sahelpers as sa
from sahelpers import live, plots
from sahelpers.config import CHECKOUT
from sahelpers.store import files

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
    OPEN, CLOSED, GUIDE = (sa.Judge(role).eval() for role in ("open_set", "closed_set", "guide"))
    RETRAINED, LEARNING = sa.CVAE("mlp", 2).eval(), sa.Judge("closed_set")
    FOUR = sa.Judge("closed_set", num_classes=4).eval()
    IMAGES = torch.rand(40, 1, 28, 28)
    OTHERS = [sa.CVAE("mlp", 2).eval() for _ in range(2)]  # more retrained models
TRAINED = sa.TrainedCVAE(MODEL, {})
JUDGES = {"open_set": OPEN, "closed_set": CLOSED}
LABELS, Z = torch.arange(10).repeat(4), torch.zeros(40, 2)
DATA = sa.LabelledImages(IMAGES, LABELS)
OF_FOUR = sa.LabelledImages(IMAGES[:4], LABELS[:4], tuple("abcd"))
REAL = sa.LabelledImages(IMAGES[:1].expand(32, -1, -1, -1), torch.tensor([3] * 30 + [4, 5]))
FISHER = made_up_fisher(MODEL)
FISHERS = sa.ClassFishers((FISHER,) * 10)
LATENTS = sa.fixed_latents(MODEL, 2)
VERDICT = sa.Verdict(torch.eye(10, 11), torch.eye(10, 11))
SMALL_VERDICT = sa.Verdict(torch.eye(4), torch.eye(4))
BASE = sa.BaselineConfig(epochs=1, latent_dim=2)
FISH = sa.FisherConfig(n_fisher_samples=20)
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=2, batch_size=2, cooldown=0, tolerance=0.0)
PROBE = sa.ProbeConfig(n_restarts=2, steps=1)
LINEAR = nn.Linear(3, 2)


class Given(sa.Story):
    """A story whose Fishers and judges are there already, so that nothing is made or kept."""

    fishers, judges, guide = FISHERS, JUDGES, GUIDE


STORY = Given((DATA, DATA), baseline=MODEL, fisher=FISH, amnesia=QUICK)


def usual(call, **arguments):
    """The call with these arguments unless others are given."""
    return lambda **changes: call(**(arguments | changes))


forget = usual(sa.forget, model=MODEL, fisher=FISHER, forget_class=3, config=QUICK)
attack = usual(sa.guided_attack, model=MODEL, guide=GUIDE, forget_class=3, config=PROBE)
relearn = usual(
    sa.relearn,
    model=MODEL, data=DATA.only(3), forget_class=3, judges=JUDGES, steps=1,
)  # fmt: skip
audit = usual(
    sa.audit,
    model=MODEL, baseline=MODEL, retrained=[RETRAINED, *OTHERS], forget_class=3, data=(DATA, REAL),
)  # fmt: skip


def surrogate(what, kept=(1, 2), **more):
    return sa.make_surrogate(what, MODEL, kept, **more)


def written(text):
    """A file with this text."""
    path = Path(tempfile.mkdtemp()) / "report.json"
    path.write_text(text)
    return path


ERRORS = {e.__name__: e for e in (ValueError, TypeError, sa.CheckpointError, sa.DataError)}


def table():
    """(call, error, words) of every line."""
    path = Path(__file__).with_name("bad_calls.txt")
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


def test_every_line_is_another_call_and_asks_for_name_and_remedy():
    assert len({call for call, _, _ in CASES}) == len(CASES) > 0
    assert all(len(words) >= 2 for _, _, words in CASES)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sa.fixed_latents(TRAINED, 2),
        lambda: sa.interpolate_labels(TRAINED, Z, 3, 8),
        lambda: sa.judge_samples(TRAINED, OPEN, LATENTS),
        lambda: sa.negative_elbo(TRAINED, IMAGES, LABELS),
    ],
    ids=["fixed_latents", "interpolate_labels", "judge_samples", "negative_elbo"],
)
def test_a_wrong_model_is_named_inside_on_step_too(call):
    with pytest.raises(TypeError, match=r"model is of type TrainedCVAE, not CVAE .*`\.model`"):
        forget(on_step=lambda step, model, terms: call())
    with pytest.raises(TypeError, match=r"model is of type TrainedCVAE, not CVAE .*`\.model`"):
        attack(on_step=lambda steps_done: call())


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
