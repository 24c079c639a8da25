import hashlib
import os
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.store import CheckpointError, Recipe, files, load, load_or_make, save
from sahelpers.store.archive import FORMAT, LIMIT

DATA = {"train": "0123"}


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


def recipe(*configs, stem="x", version=1, parents=(), data=DATA, usual=True):
    return Recipe(stem, version, configs or (sa.FisherConfig(),), data, dict(parents), usual)


def test_names_follow_configuration_and_data(folder):
    base, fish = sa.BaselineConfig(), sa.FisherConfig()
    assert recipe(base, fish, stem="vae").path == folder / "vae.pt"
    other = recipe(replace(base, epochs=7), fish, stem="vae").path
    assert other.name.startswith("vae-")
    names = {
        other.name,
        recipe(base, stem="vae").path.name,
        recipe(base, stem="vae", usual=False).path.name,
        recipe(base, stem="vae", usual=False, data={"train": "4567"}).path.name,
        recipe(replace(base, epochs=8), fish, stem="vae").path.name,
    }
    assert len(names) == 5
    made_of = {"version": 2, "parents": {"model": "89"}}  # these make a file anew, under its name
    assert recipe(base, fish, stem="vae", **made_of).path == folder / "vae.pt"


@dataclass(frozen=True)
class Knobs:
    speed: int = 1
    colour: str = "red"


def test_a_name_and_a_mark_are_the_same_in_every_release(folder):
    """Else every file that is kept would be made anew, and nobody told why."""
    text = '{"configs": [["Knobs", {"colour": "red", "speed": 2}]], "data": {"train": "0123"}, '
    text += '"stem": "x"}'
    found = recipe(Knobs(speed=2))
    assert found.path.name == f"x-{hashlib.sha256(text.encode()).hexdigest()[:8]}.pt"
    assert set(found.mark) == {"stem", "configs", "data", "version", "parents", "torch"}


def test_without_a_setting_they_lie_in_the_checkout(monkeypatch):
    monkeypatch.delenv("SA_CHECKPOINTS", raising=False)
    assert recipe().path == CHECKOUT / "checkpoints" / "x.pt"


def test_made_once_and_loaded_afterwards(folder):
    calls = []

    def make():
        calls.append(1)
        return Thing(torch.arange(3))

    first, again = (load_or_make(recipe(), make, Thing) for _ in range(2))
    assert torch.equal(first.value, again.value)
    assert len(calls) == 1
    load_or_make(recipe(sa.FisherConfig(draws=2)), make, Thing)
    assert len(calls) == 2
    assert len(list(folder.glob("*"))) == 2  # and no temporary file


def test_an_older_version_is_named_and_made_again(folder):
    load_or_make(recipe(version=1), lambda: Thing(torch.zeros(1)), Thing)
    with pytest.warns(UserWarning, match=r"^x\.pt is made anew: .* version 1 .* which is 2 now\.$"):
        found = load_or_make(recipe(version=2), lambda: Thing(torch.ones(1)), Thing)
    assert found.value == 1
    assert load_or_make(recipe(version=2), lambda: pytest.fail("made"), Thing).value == 1


def test_a_file_of_earlier_defaults_is_named_and_made_again(folder):
    """A plain name stands for the default knobs, and these may change with the recipe."""
    before, now = recipe(version=1), recipe(version=2)
    save(now.path, Thing(torch.zeros(1)).to_state(), {**before.mark, "configs": [["Config", {}]]})
    with pytest.warns(UserWarning, match=r"^x\.pt is made anew: .* version 1 .* which is 2 now\.$"):
        found = load_or_make(now, lambda: Thing(torch.ones(1)), Thing)
    assert found.value == 1
    for version, name in ((2, "configs"), (1, "data")):
        save(now.path, Thing(torch.zeros(1)).to_state(), {**now.mark, "version": version, name: {}})
        with pytest.raises(CheckpointError, match="another configuration or other data"):
            load_or_make(now, lambda: pytest.fail("made"), Thing)


def test_a_file_of_an_earlier_release_is_named_and_made_again(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(files.pack.__globals__, "FORMAT", FORMAT - 1)
        save(recipe().path, {"of": "earlier"}, {"fingerprint": "0"})
    with pytest.raises(CheckpointError, match=rf"format {FORMAT - 1}, this package reads {FORMAT}"):
        load(recipe().path)
    with pytest.warns(UserWarning, match=rf"^x\.pt is made anew: it has format {FORMAT - 1}, "):
        found = load_or_make(recipe(), lambda: Thing(torch.ones(1)), Thing)
    assert found.value == 1
    assert load_or_make(recipe(), lambda: pytest.fail("made"), Thing).value == 1


def test_a_file_of_a_later_release_is_refused_and_kept(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(files.pack.__globals__, "FORMAT", FORMAT + 1)
        save(recipe().path, Thing(torch.zeros(1)).to_state(), recipe().mark)
    content = recipe().path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"format {FORMAT + 1}, this package reads"):
        load_or_make(recipe(), lambda: pytest.fail("made"), Thing)
    assert recipe().path.read_bytes() == content


def test_a_child_whose_parent_was_replaced_is_made_anew(folder):
    old, new = ({"baseline": name, "Fisher": "f"} for name in ("a", "b"))
    load_or_make(recipe(parents=old), lambda: Thing(torch.zeros(1)), Thing)
    with pytest.warns(UserWarning, match=r"^x\.pt is made anew: .* from another baseline\.$"):
        found = load_or_make(recipe(parents=new), lambda: Thing(torch.ones(1)), Thing)
    assert found.value == 1
    assert load_or_make(recipe(parents=new), lambda: pytest.fail("made"), Thing).value == 1


def test_the_old_file_is_there_until_the_new_one_is_made(folder):
    load_or_make(recipe(version=1), lambda: Thing(torch.zeros(1)), Thing)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="made anew"), pytest.raises(KeyboardInterrupt):
        load_or_make(recipe(version=2), interrupted, Thing)
    assert load_or_make(recipe(version=1), lambda: pytest.fail("made"), Thing).value == 0


def test_another_release_of_torch_is_told_and_the_file_is_used(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files.torch, "__version__", "1.0")
        load_or_make(recipe(), lambda: Thing(torch.zeros(1)), Thing)
    with pytest.warns(UserWarning, match=r"x\.pt was made with torch 1\.0, this is "):
        load_or_make(recipe(), lambda: pytest.fail("made"), Thing)


def test_a_file_under_another_name_is_refused_and_kept(folder):
    """Copied or renamed by hand: whole, valid and wrong."""
    other = recipe(sa.FisherConfig(draws=2))
    load_or_make(other, lambda: Thing(torch.zeros(1)), Thing)
    content = other.path.rename(recipe().path).read_bytes()
    with pytest.raises(
        CheckpointError, match=r"x\.pt was made with another configuration or other"
    ):
        load_or_make(recipe(), lambda: pytest.fail("made"), Thing)
    assert recipe().path.read_bytes() == content


def test_a_file_that_does_not_say_what_it_was_made_from_is_refused(folder):
    for mark in ({}, {"torch": 3}, recipe().ingredients):
        save(recipe().path, Thing(torch.zeros(1)).to_state(), mark)
        with pytest.raises(CheckpointError, match="does not say what it was made from"):
            load_or_make(recipe(), lambda: pytest.fail("made"), Thing)


def test_a_digest_tells_types_shapes_and_order():
    one = {"a": torch.zeros(4), "b": [1, "x"]}
    others = [
        {"a": torch.zeros(2, 2), "b": [1, "x"]},
        {"a": torch.zeros(4, dtype=torch.float64), "b": [1, "x"]},
        {"a": torch.ones(4), "b": [1, "x"]},
        {"a": torch.zeros(4), "b": ["x", 1]},
        {"a": torch.zeros(4), "b": ["1", "x"]},
        {"a": torch.zeros(4), "c": [1, "x"]},
    ]
    assert len({files.digest(value) for value in (one, *others)}) == 7
    assert files.digest(dict(reversed(one.items()))) == files.digest(one)


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
    save(path, state, {"made": "so"})
    found, mark = load(path)
    assert mark == {"made": "so"}
    assert torch.equal(found["t"], state["t"])
    assert torch.equal(found["e"], state["e"])
    assert {k: v for k, v in found.items() if k not in "te"} == {
        k: v for k, v in state.items() if k not in "te"
    }


def test_another_kind_of_content_is_refused(folder):
    save(recipe().path, {"something": 1}, recipe().mark)
    with pytest.raises(CheckpointError, match="does not hold a Thing"):
        load_or_make(recipe(), lambda: None, Thing)


def test_a_value_that_would_be_converted_or_dropped_is_refused(folder):
    save(recipe().path, {**Thing(torch.arange(3)).to_state(), "more": 1}, recipe().mark)
    with pytest.raises(CheckpointError, match=r"does not hold a Thing: .*do not belong"):
        load_or_make(recipe(), lambda: None, Thing)


def test_torch_reads_the_same_file(folder):
    path = folder / "a.pt"
    save(path, {"t": torch.arange(5), "words": ["ü"]}, {"m": 1})
    content = torch.load(path, weights_only=True)
    assert content["mark"] == {"m": 1}
    assert content["state"]["words"] == ["ü"]
    assert torch.equal(content["state"]["t"], torch.arange(5))


def test_tensors_may_be_shared(folder):
    one = torch.randn(1000)
    save(folder / "a.pt", {"a": one, "b": [one] * 50, "c": one[:500]}, {"m": 1})
    found, _ = load(folder / "a.pt")
    assert all(torch.equal(value, one) for value in (found["a"], *found["b"]))
    assert (folder / "a.pt").stat().st_size < 20_000


def test_layout_is_kept_and_only_what_a_view_shows_is_written(folder):
    path = folder / "a.pt"
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    wide = torch.ones(1).expand(5)
    save(path, {"image": image, "view": torch.zeros(1_000_000)[:3], "wide": wide}, {"m": 1})
    found, _ = load(path)
    assert torch.equal(found["wide"], torch.ones(5))
    assert found["image"].stride() == image.stride()
    assert torch.equal(found["image"], image)
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("value", [{1, 2}, 1j, torch.zeros(2, dtype=torch.complex64), {(1,): 2}])
def test_what_a_checkpoint_cannot_hold_is_refused_before_anything_is_written(folder, value):
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        save(folder / "a.pt", {"x": value}, {"m": 1})
    assert list(folder.iterdir()) == []


def test_a_result_that_diverged_is_not_kept(folder):
    for number in ("nan", "inf"):
        with pytest.raises(CheckpointError, match=r"a\.pt was not written: .*NaN or infinity"):
            save(folder / "a.pt", {"x": torch.tensor([0.0, float(number)])}, {"m": 1})
    save(folder / "a.pt", {"curve": [float("nan")]}, {"m": 1})  # a curve may say so


def test_a_failed_write_leaves_the_old_file(folder):
    """The disk is full (a file size limit in a process of its own): old file whole, no remains."""
    path = folder / "a.pt"
    save(path, {"t": torch.ones(4)}, {"m": 1})
    code = (
        "import resource, signal, sys, torch, pathlib\nfrom sahelpers.store import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: files.save(pathlib.Path(sys.argv[1]), {'t': torch.zeros(1_000_000)}, {})\n"
        "except files.CheckpointError as error: print(error); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "a.pt could not be written" in done.stdout
    assert "SA_CHECKPOINTS" in done.stdout
    assert [p.name for p in folder.iterdir()] == ["a.pt"]
    assert torch.equal(load(path)[0]["t"], torch.ones(4))


def test_what_was_made_is_returned_when_it_cannot_be_kept(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.warns(
        UserWarning, match=r"used but not kept: .*x-?.*No space left.*SA_CHECKPOINTS"
    ):
        found = load_or_make(recipe(), lambda: Thing(torch.ones(2)), Thing)
    assert torch.equal(found.value, torch.ones(2))
    assert list(folder.glob("*.tmp")) == []


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "file" / "deep"))
    with pytest.raises(CheckpointError, match=r"file/deep is not writable.*SA_CHECKPOINTS"):
        load_or_make(recipe(), lambda: pytest.fail("made"), Thing)


def test_remains_of_a_killed_writer_are_removed_and_nobody_elses(folder):
    for name in ("x.pt.1-2.tmp", "x.pt.lock", "x.part.pt", "x.part.pt.1-2.tmp", "other.pt.tmp"):
        (folder / name).write_bytes(b"half")
    load_or_make(recipe(), lambda: Thing(torch.ones(1)), Thing)
    assert sorted(p.name for p in folder.iterdir()) == ["other.pt.tmp", "x.pt"]


def test_remains_of_one_killed_after_writing_are_removed_when_the_file_is_read(folder):
    load_or_make(recipe(), lambda: Thing(torch.ones(1)), Thing)
    for name in ("x.pt.lock", "x.part.pt", "x.part.pt.lock", "y.pt.lock"):
        (folder / name).touch()
    load_or_make(recipe(), lambda: pytest.fail("made"), Thing)
    assert sorted(p.name for p in folder.iterdir()) == ["x.pt", "y.pt.lock"]


def test_the_second_waits_and_takes_what_the_first_made(folder):
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def make():
        calls.append(1)
        begun.set()
        assert go_on.wait(20)
        return Thing(torch.rand(3))

    found = []

    def want():
        found.append(load_or_make(recipe(), make, Thing).value)

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
        load_or_make(recipe(), interrupted, Thing)
    load_or_make(recipe(), lambda: Thing(torch.ones(1)), Thing)


def test_loading_needs_no_lock(folder):
    path = recipe().path
    load_or_make(recipe(), lambda: Thing(torch.ones(1)), Thing)
    with FileLock(f"{path}.lock"):
        load_or_make(recipe(), lambda: None, Thing)


def test_a_damaged_file_is_named_with_what_to_do(folder):
    path = folder / "a.pt"
    save(path, {"t": torch.zeros(4)}, {"m": 1})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read.*cut off.*Delete or move"):
        load(path)


def test_a_huge_file_is_refused_unread(folder):
    path = folder / "a.pt"
    with path.open("wb") as stream:
        stream.truncate(LIMIT + 1)  # a hole: it takes no space on the disk
    with pytest.raises(CheckpointError, match=rf"a\.pt is larger than {LIMIT} bytes.*Delete"):
        load(path)


def test_what_is_no_file_is_refused(folder):
    (folder / "a.pt").mkdir()
    (folder / "b.pt").symlink_to("nowhere")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match=f"{name} cannot be read.*it is no file"):
            load(folder / name)
    with pytest.raises(FileNotFoundError):
        load(folder / "c.pt")


def test_durable_means_file_and_folder_are_on_the_disk(folder, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    before = len(os.listdir("/proc/self/fd"))
    save(folder / "a.pt", {}, {"m": 1})
    assert synced == [False, True]  # the file, then the folder that names it
    save(folder / "b.pt", {}, {"m": 1}, durable=False)
    assert len(synced) == 2
    load_or_make(recipe(stem="c"), lambda: Thing(torch.ones(1)), Thing)
    assert synced[2:] == [False, True]
    assert len(os.listdir("/proc/self/fd")) == before  # none is left open


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_text_that_cannot_be_written_leaves_the_old_one_alone(tmp_path, monkeypatch, step):
    def full(*given):
        raise OSError(28, "No space left on device")

    page = tmp_path / "page.md"
    files.replace_text(page, "first\n")
    if step == "replace":
        monkeypatch.setattr(os, "replace", full)
    else:
        disk = SimpleNamespace(write=full)
        monkeypatch.setattr(files.Path, "open", lambda *given: nullcontext(disk))
    with pytest.raises(OSError, match="No space"):
        files.replace_text(page, "second\n")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]
    assert page.read_text() == "first\n"


def test_a_path_may_be_text(tmp_path):
    path = f"{tmp_path}/x.pt"
    files.save(path, {"value": 1}, {"made": "by hand"})
    assert files.load(path) == ({"value": 1}, {"made": "by hand"})


def test_a_judge_of_the_release_before_is_read_under_its_former_name(tmp_path, monkeypatch):
    """`judge_open.pt`, whose role was called "open", in a folder that a user kept."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "none")
    images = torch.rand((40, 1, 28, 28), generator=sa.seeded(0))
    data = sa.LabelledImages(images, torch.arange(40) % 10)
    story = sa.Story((data, data), judge=sa.JudgeConfig(epochs=1, batch_size=20))
    made = story.judge("open_set")
    (path,) = tmp_path.glob("judge_open_set-*.pt")
    state, mark = files.load(path)
    former = files.Recipe(
        "judge_open", mark["version"], (story.config.judge,), {"train": data.digest}
    )
    files.save(former.path, {**state, "role": "open"}, {**mark, "stem": "judge_open"})
    path.unlink()
    monkeypatch.setattr("sahelpers.story.train_judge", None)  # nothing is trained
    found = sa.Story((data, data), judge=story.config.judge).judge("open_set")
    assert found.role == "open_set"
    assert torch.equal(found.head.weight, made.head.weight)


def test_a_file_that_would_be_made_anew_is_nowhere(folder, monkeypatch):
    shipped = folder / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(files, "SHIPPED", shipped)
    today = recipe(parents={"baseline": "a", "Fisher": "f"})
    assert files.whence(today) == ""
    there = shipped / today.path.name
    save(there, Thing(torch.ones(1)).to_state(), {**today.mark, "parents": {"baseline": "a"}})
    assert files.whence(today) == "shipped"  # whichever Fisher it was made with
    assert files.whence(recipe(parents={"baseline": "b"})) == ""
    there.write_bytes(b"damaged")
    assert files.whence(today) == ""
    there.unlink()
    load_or_make(today, lambda: Thing(torch.ones(1)), Thing)
    assert files.whence(today) == "kept"
    assert files.whence(recipe(version=2, parents=today.parents)) == ""
    today.path.write_bytes(b"damaged")
    assert files.whence(today) == "kept"  # whoever loads it is told so
