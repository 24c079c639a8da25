import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

import sahelpers as sa
from sahelpers.checkpoints import FORMAT, CheckpointError
from sahelpers.data import CHECKOUT


@dataclass
class Thing:
    value: torch.Tensor

    def to_state(self):
        return {"value": self.value, "words": ["a", {"b": 1.5}], "none": None}

    @classmethod
    def from_state(cls, state):
        return cls(state["value"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    return tmp_path


def test_names_follow_the_configuration(folder):
    base, fish = sa.BaselineConfig(), sa.FisherConfig()
    assert sa.checkpoint_path("vae", base, fish) == folder / "vae.pt"
    other = sa.checkpoint_path("vae", replace(base, epochs=7), fish)
    assert other.name == f"vae-{sa.fingerprint(replace(base, epochs=7), fish)}.pt"
    assert sa.checkpoint_path("vae", base, root="/elsewhere").parent.as_posix() == "/elsewhere"


def test_without_a_setting_they_lie_in_the_checkout(monkeypatch):
    monkeypatch.delenv("SA_CHECKPOINTS", raising=False)
    assert sa.checkpoint_path("x") == CHECKOUT / "checkpoints" / "x.pt"


def test_made_once_and_loaded_afterwards(folder):
    calls = []

    def make():
        calls.append(1)
        return Thing(torch.arange(3))

    configs = (sa.FisherConfig(),)
    first = sa.load_or_make("thing", configs, make, Thing)
    again = sa.load_or_make("thing", configs, make, Thing)
    assert torch.equal(first.value, again.value)
    assert len(calls) == 1
    other = (sa.FisherConfig(draws=2),)
    sa.load_or_make("thing", other, make, Thing)
    assert len(calls) == 2
    assert len(list(folder.glob("*"))) == 2  # and no temporary file


def test_what_is_saved_is_what_is_loaded(folder):
    state = {
        "t": torch.randn(3, 2),
        "n": 3,
        "x": 0.1,
        "s": "ü",
        "l": [1, [2.0]],
        "e": torch.zeros(0),
    }
    path = folder / "deep" / "a.pt"
    sa.save(path, state, "mark")
    found = sa.load(path, "mark")
    assert torch.equal(found["t"], state["t"])
    assert torch.equal(found["e"], state["e"])
    assert {k: v for k, v in found.items() if k not in "te"} == {
        k: v for k, v in state.items() if k not in "te"
    }


def test_another_fingerprint_is_refused(folder):
    path = folder / "a.pt"
    sa.save(path, {}, "one")
    with pytest.raises(
        CheckpointError, match=r"a\.pt .*fingerprint one, wanted two.*Delete or move"
    ):
        sa.load(path, "two")


def test_another_kind_of_content_is_refused(folder):
    path = sa.checkpoint_path("x", sa.FisherConfig())
    sa.save(path, {"something": 1}, sa.fingerprint(sa.FisherConfig()))
    with pytest.raises(CheckpointError, match="does not hold a Thing"):
        sa.load_or_make("x", (sa.FisherConfig(),), lambda: None, Thing)


def test_newer_format_is_named(folder):
    path = folder / "a.pt"
    content = {"format": FORMAT + 1, "fingerprint": "m", "checksum": "", "state": {}}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}, this package reads {FORMAT}"):
        sa.load(path)


def test_changed_content_is_noticed(folder):
    path = folder / "a.pt"
    sa.save(path, {"t": torch.zeros(4)}, "m")
    content = torch.load(path, weights_only=True)
    content["state"]["t"][2] = 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="checksum does not match"):
        sa.load(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_a_clear_error(folder, share):
    path = folder / "a.pt"
    sa.save(path, {"t": torch.randn(1000)}, "m")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read"):
        sa.load(path)


def test_every_flipped_byte_in_a_tensor_is_noticed(folder):
    path = folder / "a.pt"
    sa.save(path, {"t": torch.full((64,), 7.25)}, "m")
    content = path.read_bytes()
    start = content.index(torch.tensor(7.25).numpy().tobytes() * 8)
    for offset in range(start, start + 256, 37):
        broken = bytearray(content)
        broken[offset] ^= 0x40
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            sa.load(path)


def test_a_pickle_that_calls_something_is_not_run(folder):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {folder}/ran",)

    path = folder / "a.pt"
    torch.save({"format": FORMAT, "fingerprint": "m", "checksum": "", "state": Hostile()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        sa.load(path)
    assert not (folder / "ran").exists()


def test_what_a_checkpoint_cannot_hold_is_refused_before_anything_is_written(folder):
    with pytest.raises(TypeError, match="cannot hold set"):
        sa.save(folder / "a.pt", {"x": {1, 2}}, "m")
    assert list(folder.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(folder):
    """The disk is full (a file size limit in a process of its own): old file whole, no remains."""
    path = folder / "a.pt"
    sa.save(path, {"t": torch.ones(4)}, "m")
    code = (
        "import resource, signal, sys, torch, pathlib, sahelpers as sa\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: sa.save(pathlib.Path(sys.argv[1]), {'t': torch.zeros(1_000_000)}, 'm')\n"
        "except Exception as error: print(type(error).__name__); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert [p.name for p in folder.iterdir()] == ["a.pt"]
    assert torch.equal(sa.load(path)["t"], torch.ones(4))
