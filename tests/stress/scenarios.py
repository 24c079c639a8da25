"""What can happen to files and processes, and what must hold afterwards.

Each scenario works in a folder of its own, does its harm in a child process, and raises
AssertionError unless earlier files are whole and the next run ends in the same bits as one that
nothing happened to.  `test_faults.py` runs a few of them, `tests/stress/run.py` all.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.store.files import Recipe, digest, load, part_path, save
from study import journal

CONTEXT = multiprocessing.get_context("forkserver")  # torch is imported once, for all children
CONTEXT.set_forkserver_preload(["study.grid"])
NOBODY = 65534


@dataclass(frozen=True)
class Size:
    """How much work there is to be disturbed."""

    images: int = 1500
    epochs: int = 4
    fisher: int = 500

    def story(self) -> sa.Story:
        """Few images of MNIST's test split, and little work with them."""
        train = sa.load_dataset(split="test").take(self.images)
        return sa.Story(
            (train, train.take(100)),
            baseline=sa.BaselineConfig(epochs=self.epochs, batch_size=50, latent_dim=3),
            fisher=sa.FisherConfig(n_fisher_samples=self.fisher),
            judge=sa.JudgeConfig(epochs=1, batch_size=50),
        )

    def paths(self, folder: Path) -> dict[str, Path]:
        """Where the files of `chain` lie; the version that makes them is not in their names."""
        story = self.story()
        made = story.config
        data = {"train": story.train.digest, "test": story.test.digest}
        recipes = {
            "baseline": Recipe("vae_baseline", 0, (made.baseline,), data),
            "fisher": Recipe("fisher", 0, (made.baseline, made.fisher), data),
            "judge": Recipe("judge_tuning", 0, (made.judge,), {"train": story.train.digest}),
        }
        paths = {what: folder / recipe.path.name for what, recipe in recipes.items()}
        return paths | {"part": part_path(paths["baseline"])}


# ---- what the children do


def chain(folder: Path, size: Size) -> str:
    """Baseline, Fisher and a judge; returns a digest of all their bits."""
    story = size.story()
    made = (story.baseline, story.fishers, story.judge("tuning"))
    return digest([link.to_state() for link in made])


def save_for_ever(folder: Path, size: Size) -> None:
    """Replace one file by another of 20 megabytes until somebody ends it."""
    k = 0
    while True:
        save(folder / "x.pt", {"t": torch.full((5_000_000,), float(k))}, {})
        k += 1


def fill_journal(folder: Path, size: Size) -> None:
    """Lines 0 to 199 of a journal, those that are not there yet."""
    path = folder / "journal.jsonl"
    key = dict.fromkeys(journal.KEY, "x")
    there = {line["class"] for line in journal.read(path)}
    for k in range(200):
        if k not in there:
            time.sleep(0.002)
            journal.append(path, key | {"class": k, "values": {"seconds": k / 7}})


def small_files(limit: int) -> None:
    """No file may grow beyond the limit: to a program, a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def little_memory(more: int) -> None:
    """So many bytes of address space more than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def drop_root(_: int) -> None:
    """root may write everywhere: without this, a read-only folder tests nothing."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def wrong_clock(seconds: int) -> None:
    """The clock shows another time."""
    time.time = lambda: float(seconds)


def child(
    work: Callable[[Path, Size], Any],
    folder: Path,
    size: Size,
    out: Path,
    log: Path,
    hindrance: Callable[[int], None] | None,
    amount: int,
) -> None:
    os.environ |= {"SA_CHECKPOINTS": str(folder), "SA_PROGRESS": "0"}
    torch.set_num_threads(1)
    train = sa.story.train_baseline

    def counted(*args: Any, **options: Any) -> Any:
        with log.open("a") as stream:
            stream.write("trained\n")
        return train(*args, **options)

    sa.story.train_baseline = counted
    sa.load_dataset(split="test")  # whatever is imported late
    answer: dict[str, Any] = {}
    with out.open("w") as stream, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if hindrance is not None:
            hindrance(amount)
        try:
            answer["result"] = work(folder, size)
        except BaseException as error:
            answer |= {"error": type(error).__name__, "message": str(error)}
        answer["warnings"] = [str(w.message) for w in caught]
        json.dump(answer, stream)


# ---- what the parent does


class Case:
    """One folder, the children that work in it and what they answered."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.root, self.folder, self.size = folder, folder / "checkpoints", size
        self.folder.mkdir(parents=True)
        self.log = folder / "log"
        self.log.touch()
        self.children = 0
        save(self.folder / "earlier.pt", {"t": torch.arange(1000)}, {})
        self.earlier = (self.folder / "earlier.pt").read_bytes()

    def start(
        self,
        work: Callable[[Path, Size], Any] = chain,
        hindrance: Callable[[int], None] | None = None,
        amount: int = 0,
    ) -> tuple[BaseProcess, Path]:
        self.children += 1
        out = self.root / f"answer-{self.children}"
        self.log.chmod(0o666)
        arguments = (work, self.folder, self.size, out, self.log, hindrance, amount)
        process = CONTEXT.Process(target=child, args=arguments)
        process.start()
        return process, out

    def run(self, *args: Any, **options: Any) -> dict[str, Any]:
        process, out = self.start(*args, **options)
        return answer_of(process, out)

    def kill(self, work: Callable[[Path, Size], Any], seconds: float) -> bool:
        """Kill a child so many seconds after it began; False if it had finished by then."""
        process, out = self.start(work)
        wait_for(process, out)
        time.sleep(seconds)
        process.kill()
        process.join()
        self.check_whole()
        return process.exitcode == -signal.SIGKILL

    def check_whole(self) -> None:
        """Earlier files are as they were, and every other one can be read."""
        assert (self.folder / "earlier.pt").read_bytes() == self.earlier
        for path in self.folder.glob("*.pt"):
            load(path)

    def check_end(self, expected: str) -> None:
        """The next run ends in these bits and leaves nothing lying about."""
        self.check_whole()
        answer = self.run()
        assert answer.get("result") == expected, answer
        left = [p.name for p in self.folder.iterdir() if p.suffix != ".pt" or ".part" in p.name]
        assert not left, left


def wait_for(process: BaseProcess, out: Path) -> None:
    """Until the child has begun its work."""
    while not out.exists():
        assert process.is_alive(), "the child ended before it began"
        time.sleep(0.001)


def answer_of(process: BaseProcess, out: Path) -> dict[str, Any]:
    process.join(600)
    text = out.read_text() if out.exists() else ""
    return json.loads(text) if text else {"error": "died", "message": str(process.exitcode)}


def undisturbed(folder: Path, size: Size) -> tuple[str, float]:
    """The digest that every other run must end in, and the seconds it takes."""
    case = Case(folder, size)
    case.run()  # starts the server of the children
    shutil.rmtree(case.folder)
    case = Case(folder / "again", size)
    begin = time.perf_counter()
    answer = case.run()
    return answer["result"], time.perf_counter() - begin


def killed_training(folder: Path, size: Size, expected: str, seconds: float) -> bool:
    """SIGKILL at some moment of the whole chain, then again at the same moment of what is left."""
    case = Case(folder, size)
    hit = case.kill(chain, seconds)
    case.kill(chain, seconds)
    case.check_end(expected)
    return hit


def killed_fisher(folder: Path, size: Size, expected: str, seconds: float, made: Path) -> bool:
    """SIGKILL after the baseline: in the Fisher, or in what comes next."""
    case = Case(folder, size)
    name = size.paths(case.folder)["baseline"].name
    shutil.copy(made / name, case.folder)
    hit = case.kill(chain, seconds)
    case.check_end(expected)
    assert case.log.read_text() == ""  # the baseline was there and is not made again
    return hit


def killed_saving(folder: Path, size: Size, seconds: float) -> bool:
    """SIGKILL while one file is replaced by the next: it is one of them, whole."""
    case = Case(folder, size)
    hit = case.kill(save_for_ever, seconds)
    if (case.folder / "x.pt").exists():
        values = load(case.folder / "x.pt")[0]["t"].unique()
        assert len(values) == 1
    save(case.folder / "x.pt", {"t": torch.ones(1)}, {})
    assert sorted(p.name for p in case.folder.iterdir()) == ["earlier.pt", "x.pt"]
    return hit


def killed_journal(folder: Path, size: Size, seconds: float) -> bool:
    """SIGKILL while many lines are written: what was complete stays, the rest is done later."""
    case = Case(folder, size)
    hit = case.kill(fill_journal, seconds)
    path = case.folder / "journal.jsonl"
    before = journal.read(path)
    assert [line["class"] for line in before] == list(range(len(before)))
    assert "error" not in case.run(fill_journal)
    after = journal.read(path)
    assert after[: len(before)] == before
    assert [line["class"] for line in after] == list(range(200))
    return hit


def full_disk(folder: Path, size: Size, expected: str, limit: int) -> None:
    """No file may exceed the limit: the results come all the same, with a sentence, and nothing
    that is kept is damaged."""
    case = Case(folder, size)
    answer = case.run(hindrance=small_files, amount=limit)
    assert answer.get("result") == expected, answer
    assert any("used but not kept" in w and "SA_CHECKPOINTS" in w for w in answer["warnings"])
    case.check_end(expected)


def full_tmpfs(folder: Path, size: Size, expected: str) -> bool:
    """A real full disk, a tmpfs of a few pages; False where mounting is not allowed."""
    case = Case(folder, size)
    target = str(case.folder)
    options = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", target]
    if os.getuid() or subprocess.run(options, capture_output=True).returncode:
        return False
    try:
        (case.folder / "earlier.pt").write_bytes(case.earlier)
        answer = case.run()
        assert answer.get("result") == expected, answer
        assert any("No space left" in w for w in answer["warnings"]), answer
        case.check_whole()
    finally:
        subprocess.run(["umount", target], check=True)
    return True


def read_only_folder(size: Size, expected: str, made: Path) -> None:
    """Without permission to write: what is there is loaded, what is missing is refused at once."""
    root = Path(tempfile.mkdtemp())  # a folder that others may enter
    try:
        root.chmod(0o755)
        case = Case(root / "case", size)
        paths = size.paths(case.folder)
        shutil.copy(made / paths["baseline"].name, case.folder)
        for path in case.folder.iterdir():
            path.chmod(0o644)
        case.root.chmod(0o755)
        case.folder.chmod(0o555)
        answer = case.run(hindrance=drop_root)
        assert answer.get("error") == "CheckpointError", answer
        assert "is not writable" in answer["message"], answer
        assert "SA_CHECKPOINTS" in answer["message"], answer
        assert case.log.read_text() == ""  # it was refused before anything was trained
        case.folder.chmod(0o755)
        case.check_end(expected)
    finally:
        shutil.rmtree(root)


def flipped_bit(folder: Path, size: Size, expected: str, made: Path, which: str, at: float) -> None:
    """One bit is another in one file: an error that names it, until it is deleted."""
    case = Case(folder, size)
    paths = size.paths(case.folder)
    for name in ("baseline", "fisher", "judge"):
        shutil.copy(made / paths[name].name, case.folder)
    path, whole = paths[which], paths[which].read_bytes()
    flipped = bytearray(whole)
    bit = int(at * (8 * len(whole) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    answer = case.run()
    assert answer.get("error") == "CheckpointError", (bit, answer)
    assert path.name in answer["message"], answer
    assert "Delete or move" in answer["message"], answer
    assert path.read_bytes() == flipped  # left for the user to look at
    path.unlink()
    case.check_end(expected)


def flipped_part(folder: Path, size: Size, expected: str, seconds: float, at: float) -> bool:
    """One bit is another in the part file of a killed training: it starts afresh."""
    case = Case(folder, size)
    case.kill(chain, seconds)
    part = size.paths(case.folder)["part"]
    if not part.exists():
        return False
    flipped = bytearray(part.read_bytes())
    bit = int(at * (8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    part.write_bytes(flipped)
    answer = case.run()
    assert answer.get("result") == expected, answer
    assert any("starts afresh" in w for w in answer["warnings"]), answer
    case.check_end(expected)
    return True


def flipped_data(folder: Path, at: float, *, wrapping: bool = True) -> None:
    """One bit is another in a file of MNIST: it is refused or, where the bit may be the wrapping's,
    what the file holds is still the same."""
    for path in sorted((CHECKOUT / "data" / "MNIST" / "raw").glob("*.gz")):
        root = folder / path.stem
        shutil.copytree(path.parent, root / "MNIST" / "raw")
        flipped = bytearray(path.read_bytes())
        bit = int(at * (8 * len(flipped) - 1))
        flipped[bit // 8] ^= 1 << bit % 8
        (root / "MNIST" / "raw" / path.name).write_bytes(flipped)
        split = "train" if "train" in path.name else "test"
        try:
            said = sa.load_dataset(split=split, root=root).digest
        except sa.DataError as error:
            said = str(error)
        # some bits are the wrapping's, such as the date in its header
        genuine = wrapping and said == sa.load_dataset(split=split).digest
        assert path.name in said or genuine, (bit, said)


def two_at_once(folder: Path, size: Size, expected: str, n: int = 2) -> None:
    """Several processes make the same things: all end in the same bits, trained once."""
    case = Case(folder, size)
    answers = [answer_of(*one) for one in [case.start() for _ in range(n)]]
    assert [a.get("result") for a in answers] == [expected] * n, answers
    assert case.log.read_text() == "trained\n"
    case.check_end(expected)


def holder_killed(folder: Path, size: Size, expected: str, seconds: float) -> bool:
    """The first of two is killed: the second, who waits, goes on from its last pass."""
    case = Case(folder, size)
    first, out = case.start()
    wait_for(first, out)
    second, answer = case.start()
    time.sleep(seconds)
    first.kill()
    first.join()
    assert answer_of(second, answer).get("result") == expected
    case.check_end(expected)
    return first.exitcode == -signal.SIGKILL


def clock_set_back(folder: Path, size: Size, expected: str, seconds: float, now: int) -> bool:
    """Files come from the future or from 1970, and the clock shows something else again."""
    case = Case(folder, size)
    hit = case.kill(chain, seconds)
    for path in case.folder.iterdir():
        os.utime(path, (4e9, 4e9) if now < 1e9 else (0, 0))
    answer = case.run(hindrance=wrong_clock, amount=now)
    assert answer.get("result") == expected, answer
    case.check_end(expected)
    return hit


def out_of_memory(folder: Path, size: Size, expected: str, made: Path, more: int) -> bool:
    """So little memory: the right result or an error that says so, never a wrong file.

    Returns whether memory ran out.
    """
    case = Case(folder, size)
    shutil.copy(made / size.paths(case.folder)["fisher"].name, case.folder)
    answer = case.run(hindrance=little_memory, amount=more)
    if "result" in answer:
        assert answer["result"] == expected, answer
    else:
        said = answer["error"] in ("MemoryError", "died") or "memory" in answer["message"]
        assert said, answer
        assert "Delete" not in answer["message"], answer
    case.check_end(expected)
    return "result" not in answer
