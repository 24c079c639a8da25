import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, replace

import pytest
import torch
from filelock import FileLock

import sahelpers as sa
from sahelpers import checkpoints
from sahelpers.checkpoints import LIMIT, CheckpointError
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


def test_a_value_that_would_be_converted_or_dropped_is_refused(folder):
    path, mark = sa.checkpoint_path("x", sa.FisherConfig()), sa.fingerprint(sa.FisherConfig())
    sa.save(path, {**Thing(torch.arange(3)).to_state(), "more": 1}, mark)
    with pytest.raises(CheckpointError, match=r"does not hold a Thing: .*do not belong"):
        sa.load_or_make("x", (sa.FisherConfig(),), lambda: None, Thing)


def test_torch_reads_the_same_file(folder):
    path = folder / "a.pt"
    sa.save(path, {"t": torch.arange(5), "words": ["ü"]}, "m")
    content = torch.load(path, weights_only=True)
    assert content["fingerprint"] == "m"
    assert content["state"]["words"] == ["ü"]
    assert torch.equal(content["state"]["t"], torch.arange(5))


def test_tensors_may_be_shared(folder):
    one = torch.randn(1000)
    sa.save(folder / "a.pt", {"a": one, "b": [one] * 50, "c": one[:500]}, "m")
    found = sa.load(folder / "a.pt")
    assert all(torch.equal(value, one) for value in (found["a"], *found["b"]))
    assert (folder / "a.pt").stat().st_size < 20_000


def test_layout_is_kept_and_only_what_a_view_shows_is_written(folder):
    path = folder / "a.pt"
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    wide = torch.ones(1).expand(5)
    sa.save(path, {"image": image, "view": torch.zeros(1_000_000)[:3], "wide": wide}, "m")
    found = sa.load(path)
    assert torch.equal(found["wide"], torch.ones(5))
    assert found["image"].stride() == image.stride()
    assert torch.equal(found["image"], image)
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("value", [{1, 2}, 1j, torch.zeros(2, dtype=torch.complex64), {(1,): 2}])
def test_what_a_checkpoint_cannot_hold_is_refused_before_anything_is_written(folder, value):
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        sa.save(folder / "a.pt", {"x": value}, "m")
    assert list(folder.iterdir()) == []


def test_a_result_that_diverged_is_not_kept(folder):
    for number in ("nan", "inf"):
        with pytest.raises(CheckpointError, match=r"a\.pt was not written: .*NaN or infinity"):
            sa.save(folder / "a.pt", {"x": torch.tensor([0.0, float(number)])}, "m")
    sa.save(folder / "a.pt", {"curve": [float("nan")]}, "m")  # a curve may say so


def test_a_failed_write_leaves_the_old_file(folder):
    """The disk is full (a file size limit in a process of its own): old file whole, no remains."""
    path = folder / "a.pt"
    sa.save(path, {"t": torch.ones(4)}, "m")
    code = (
        "import resource, signal, sys, torch, pathlib, sahelpers as sa\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: sa.save(pathlib.Path(sys.argv[1]), {'t': torch.zeros(1_000_000)}, 'm')\n"
        "except sa.CheckpointError as error: print(error); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "a.pt could not be written" in done.stdout
    assert "SA_CHECKPOINTS" in done.stdout
    assert [p.name for p in folder.iterdir()] == ["a.pt"]
    assert torch.equal(sa.load(path)["t"], torch.ones(4))


def test_what_was_made_is_returned_when_it_cannot_be_kept(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "replace", full)
    with pytest.warns(
        UserWarning, match=r"used but not kept: .*x-?.*No space left.*SA_CHECKPOINTS"
    ):
        found = sa.load_or_make("x", (sa.FisherConfig(),), lambda: Thing(torch.ones(2)), Thing)
    assert torch.equal(found.value, torch.ones(2))
    assert list(folder.glob("*.tmp")) == []


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "file" / "deep"))
    with pytest.raises(CheckpointError, match=r"file/deep is not writable.*SA_CHECKPOINTS"):
        sa.load_or_make("x", (sa.FisherConfig(),), lambda: pytest.fail("made"), Thing)


def test_remains_of_a_killed_writer_are_removed_and_nobody_elses(folder):
    for name in ("x.pt.1-2.tmp", "x.pt.lock", "x.part.pt", "x.part.pt.1-2.tmp", "other.pt.tmp"):
        (folder / name).write_bytes(b"half")
    sa.load_or_make("x", (sa.FisherConfig(),), lambda: Thing(torch.ones(1)), Thing)
    assert sorted(p.name for p in folder.iterdir()) == ["other.pt.tmp", "x.pt"]


def test_the_second_waits_and_takes_what_the_first_made(folder):
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def make():
        calls.append(1)
        begun.set()
        assert go_on.wait(20)
        return Thing(torch.rand(3))

    found = []

    def want():
        found.append(sa.load_or_make("x", (sa.FisherConfig(),), make, Thing).value)

    threads = [threading.Thread(target=want) for _ in range(3)]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(calls) == 1
    assert all(torch.equal(value, found[0]) for value in found)
    assert len(found) == 3
    assert [p.name for p in folder.iterdir()] == ["x.pt"]


def test_an_interrupted_making_lets_the_next_one_in(folder):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sa.load_or_make("x", (sa.FisherConfig(),), interrupted, Thing)
    sa.load_or_make("x", (sa.FisherConfig(),), lambda: Thing(torch.ones(1)), Thing)


def test_loading_needs_no_lock(folder):
    path = sa.checkpoint_path("x", sa.FisherConfig())
    sa.load_or_make("x", (sa.FisherConfig(),), lambda: Thing(torch.ones(1)), Thing)
    with FileLock(f"{path}.lock"):
        sa.load_or_make("x", (sa.FisherConfig(),), lambda: None, Thing)


@pytest.mark.parametrize("mark", [None, "m"])
def test_a_damaged_file_is_named_with_what_to_do(folder, mark):
    path = folder / "a.pt"
    sa.save(path, {"t": torch.zeros(4)}, "m")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read.*cut off.*Delete or move"):
        sa.load(path, mark)


def test_a_huge_file_is_refused_unread(folder):
    path = folder / "a.pt"
    with path.open("wb") as stream:
        stream.truncate(LIMIT + 1)  # a hole: it takes no space on the disk
    with pytest.raises(CheckpointError, match=rf"a\.pt is larger than {LIMIT} bytes.*Delete"):
        sa.load(path)


def test_what_is_no_file_is_refused(folder):
    (folder / "a.pt").mkdir()
    (folder / "b.pt").symlink_to("nowhere")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match=f"{name} cannot be read.*it is no file"):
            sa.load(folder / name)
    with pytest.raises(FileNotFoundError):
        sa.load(folder / "c.pt")


def test_durable_means_file_and_folder_are_on_the_disk(folder, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    before = len(os.listdir("/proc/self/fd"))
    sa.save(folder / "a.pt", {}, "m")
    assert synced == [False, True]  # the file, then the folder that names it
    sa.save(folder / "b.pt", {}, "m", durable=False)
    assert len(synced) == 2
    sa.load_or_make("c", (sa.FisherConfig(),), lambda: Thing(torch.ones(1)), Thing)
    assert synced[2:] == [False, True]
    assert len(os.listdir("/proc/self/fd")) == before  # none is left open
