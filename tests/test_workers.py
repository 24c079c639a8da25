"""The same lines from one process, from joblib's processes and from a Dask cluster on loopback."""

import importlib
import json
import math
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

import sahelpers as sa
from sahelpers.config import CHECKOUT
from study import grid, journal, workers
from study.grid import Grid
from study.methods import HIDDEN, OURS

BASE = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
LITTLE = sa.LadderConfig(
    images=4, z_steps=2, sets=1, set_size=3, fit_steps=2, heal_steps=2, relearn_steps=25
)


@pytest.fixture(autouse=True)
def patience():
    """A pool that waits for ever ends the process instead."""
    signal.alarm(600)
    yield
    signal.alarm(0)


@pytest.fixture
def small_digits(monkeypatch):
    """A grid may run on these, which every process reads in a moment."""
    monkeypatch.setattr(grid, "DATASETS", ("digits8",))
    monkeypatch.setattr(grid, "class_names", lambda name: "0123456789")


def climbs(folder, classes=(3, 5, 7)):
    """A grid of small runs on small digits, two for each class."""
    return Grid(
        "ladder",
        methods=(HIDDEN, OURS),
        forget_classes=classes,
        seeds=(grid.ZERO_SEED,),
        dataset="digits8",
        baseline=BASE,
        amnesia=sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32),
        ladder=LITTLE,
        folder=folder,
    )


def contents(made):
    """The journal without times, in the order of the runs."""
    lines = journal.read(made.journal)
    for line in lines:
        del line["cell_seconds"]
    return sorted(lines, key=lambda line: (line["method"], line["class"]))


def kill_after_first_line(monkeypatch, kill):
    """Call kill() once, when the first line is written: the other runs are waiting or in flight."""
    append, left = journal.append, [kill]

    def then_kill(path, record):
        append(path, record)
        if left:
            left.pop()()

    monkeypatch.setattr(journal, "append", then_kill)
    return left


# what is asked of each backend: once pickled, these equal nothing but themselves
WORK = {
    partial(pow, 2, 2): 4,
    partial(pow, 3, 2): 9,
    partial(torch.linalg.matrix_norm, torch.ones(600, 600)): 600,
    partial(operator.truediv, 6.0, 0): ZeroDivisionError,
    partial(operator.truediv, 6.0, 2): 3,
    partial(math.sqrt, -1): ValueError,
    torch.get_num_threads: 1,
}


def check_work(**where):
    """Every item itself with its result, or with what it raised."""
    found = dict(workers.do_all(operator.call, list(WORK), **where))
    assert list(map(id, WORK)) == sorted(map(id, found), key=list(map(id, WORK)).index)
    for item, expected in WORK.items():
        if isinstance(expected, type):
            assert type(found[item]) is expected, item
        else:
            assert found[item] == pytest.approx(expected), item


def test_one_process_gives_each_item_with_its_result_and_gets_its_threads_back():
    torch.set_num_threads(2)
    try:
        check_work()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


QUICK = """
import time


def prepare(run):
    pass


def compute(run):
    seconds = run.forget_class / 8  # so that two that begin together do not end together
    time.sleep(seconds)
    return {"values": dict.fromkeys(run.asked, [seconds]), "cell_seconds": seconds}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a module of quick work, which can be imported."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "quick.py").write_text(QUICK)
    monkeypatch.syspath_prepend(folder)
    return folder


def quickly(monkeypatch):
    """Let a grid's runs be done by that module, here and in processes that can import it."""
    module = importlib.import_module("quick")
    for name in ("prepare", "compute"):
        monkeypatch.setattr(grid, name, getattr(module, name))


@pytest.mark.full
def test_processes(small_digits, mine, tmp_path, monkeypatch):
    """One test, for processes take seconds to start."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("SA_PROGRESS", "0")
    # lines of a grid are those of one process
    made, alone = climbs(tmp_path / "made", (3,)), climbs(tmp_path / "alone", (3,))
    made.run("loky", jobs=2)
    alone.run("sequential")
    assert len(contents(alone)) == 2
    assert contents(made) == contents(alone)

    # each item with its result, after torch used two threads here: a forked pool would wait for
    # threads that it does not have
    torch.set_num_threads(2)
    try:
        large = torch.ones(600, 600)
        assert float((large @ large).sum()) == 600**3
        check_work(backend="loky", jobs=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)

    # a process whose code is not that of the command's keys ends the command
    with monkeypatch.context() as patch:
        patch.setattr(workers, "code_digest", lambda: "0ldc0de")
        with pytest.raises(RuntimeError, match="began with other code than the command"):
            list(workers.do_all(operator.call, list(WORK), "loky", jobs=2))

    # a process that is killed ends the command; what was done stands in the journal, and the same
    # command goes on from there
    def kill():
        children = psutil.Process().children(recursive=True)
        next(p for p in children if "LokyProcess" in " ".join(p.cmdline())).kill()

    quickly(monkeypatch)
    made, left = climbs(tmp_path), kill_after_first_line(monkeypatch, kill)
    with pytest.raises(TerminatedWorkerError):
        made.run("loky", jobs=2)
    assert not left
    done = len(journal.read(made.journal))
    assert 1 <= done < 6
    assert len(made.missing()) == 6 - done
    made.run("sequential")
    assert made.missing() == []
    assert made.journal.read_text().count("\n") == 6


class Cluster:
    """A scheduler and workers, started as docs/cluster.md says."""

    def __init__(self, folder, *code):
        self.folder, self.started, where = folder, [], folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--scheduler-file", str(where), code=code)
        until = time.monotonic() + 300
        while not where.exists():
            assert self.started[0].poll() is None, (folder / "log0").read_text()[-2000:]
            assert time.monotonic() < until
            time.sleep(0.2)
        self.address = json.loads(where.read_text())["address"]

    def start(self, *words, code=()):
        """A process of the cluster; code: folders of its modules."""
        command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, code))}
        with (self.folder / f"log{len(self.started)}").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment
            )
        self.started.append(process)
        return process

    def worker(self, *code):
        """One more worker."""
        return self.start("worker", self.address, "--nthreads", "1", "--no-nanny", code=code)


@pytest.fixture
def cluster(tmp_path, mine):
    made = None
    try:
        made = Cluster(tmp_path, CHECKOUT, mine)
        yield made
    finally:
        for process in reversed(made.started if made else []):
            process.kill()
            process.wait()


@pytest.mark.full
def test_a_cluster(cluster, small_digits, mine, monkeypatch, tmp_path):
    """One test, for its processes take seconds to start."""
    from distributed import Client

    other = tmp_path / "other"
    (other / "study").mkdir(parents=True)
    (other / "study" / "__init__.py").touch()
    (other / "study" / "workers.py").write_text("def code_digest():\n    return '0ther'\n")

    # a worker with other code is refused by name
    usual, odd = cluster.worker(CHECKOUT, mine), cluster.worker(other)
    with Client(cluster.address) as client:
        client.wait_for_workers(2, timeout=300)
        (name,) = (address for address, pid in client.run(os.getpid).items() if pid == odd.pid)
        with pytest.raises(RuntimeError) as refused:
            list(workers.do_all(operator.call, list(WORK), "dask", scheduler=cluster.address))
        assert str(refused.value).startswith(f"{name} of the cluster: not the code of this process")
        odd.kill()
        cluster.worker(CHECKOUT, mine)
        while name in client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.workers)):
            time.sleep(0.1)
        client.wait_for_workers(2, timeout=300)

    # the others give each item with its result
    check_work(backend="dask", scheduler=cluster.address)

    # and all lines of a grid, though one of two workers is killed
    quickly(monkeypatch)
    left = kill_after_first_line(monkeypatch, usual.kill)
    made = climbs(tmp_path)
    made.run("dask", scheduler=cluster.address)
    assert not left
    assert usual.poll() is not None
    assert made.missing() == []
    alone = climbs(tmp_path / "alone")
    alone.run("sequential")
    assert contents(made) == contents(alone)


@pytest.mark.parametrize("at_scheduler", [None, "0ldc0de", ModuleNotFoundError("study")])
def test_who_has_other_code_or_none_is_named(at_scheduler, monkeypatch):
    """The scheduler reads the tasks, too: without their code it would be waited for, for ever."""
    import distributed

    closed = []

    class Client:
        """Of a cluster with three workers."""

        def __init__(self, address):
            self.address = address

        def run(self, function, on_error):
            assert (function, on_error) == (workers.code_digest, "return")
            missing = ModuleNotFoundError("No module named 'study'")
            return {"tcp://a": workers.code_digest(), "tcp://c": missing, "tcp://b": "0ldc0de"}

        def run_on_scheduler(self, function):
            assert function is workers.code_digest
            if isinstance(at_scheduler, Exception):
                raise at_scheduler
            return at_scheduler or workers.code_digest()

        def close(self):
            closed.append(self.address)

    monkeypatch.setattr(distributed, "Client", Client)
    names = "tcp://b, tcp://c" + (", the scheduler" if at_scheduler else "")
    with pytest.raises(RuntimeError) as refused:
        list(workers.do_all(operator.call, list(WORK), "dask", scheduler="tcp://s"))
    assert str(refused.value).startswith(f"{names} of the cluster: not the code of this process;")
    assert closed == ["tcp://s"]


def test_the_digest_is_of_the_sources_of_both_packages(tmp_path, monkeypatch):
    assert len(workers.code_digest()) == 12
    seen = set()
    for package in ("sahelpers", "study"):
        shutil.copytree(CHECKOUT / package, tmp_path / package)
    monkeypatch.setattr(workers, "__file__", str(tmp_path / "study" / "workers.py"))
    monkeypatch.setattr(workers.sahelpers, "__file__", str(tmp_path / "sahelpers" / "__init__.py"))
    digest = workers.code_digest.__wrapped__
    seen.add(digest())
    assert seen == {workers.code_digest()}
    for path in ("study/experiments/power.py", "sahelpers/store/files.py"):
        (tmp_path / path).write_text((tmp_path / path).read_text() + "\n")
        seen.add(digest())
    (tmp_path / "study" / "power.py").write_text("")
    seen.add(digest())
    assert len(seen) == 4
    (tmp_path / "study" / "forms" / "results.txt").write_text("no code")
    assert digest() in seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"backend": "magic"}, "backend='magic' is not one of sequential, loky, dask"),
        ({"backend": "loky", "jobs": 0}, "jobs=0 must be a whole number from 1"),
        ({"backend": "dask"}, "needs the address of a scheduler"),
        ({"backend": "loky", "scheduler": "tcp://10.0.0.1:8786"}, "only 'dask', needs"),
    ],
)
def test_a_wrong_choice_is_explained(words, said):
    with pytest.raises(ValueError, match=said):
        list(workers.do_all(operator.call, list(WORK), **words))


@pytest.mark.parametrize(
    ("module", "where", "line"),
    [
        ("joblib", {}, r'the study needs joblib: pip install -e "\.\[study\]"$'),
        (
            "distributed",
            {"backend": "dask", "scheduler": "tcp://127.0.0.1:1"},
            r'needs the extra: pip install -e "\.\[cluster\]"$',
        ),
    ],
)
def test_who_lacks_a_library_is_told_the_line_to_type(module, where, line, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=line):
        list(workers.do_all(operator.call, list(WORK), **where))


def test_an_error_in_one_line():
    assert workers.say(OSError("no\n  disk")) == "OSError: no disk"


def test_a_machine_is_named_and_an_accelerator_in_its_place(monkeypatch):
    assert workers.about().endswith(f", {os.cpu_count()} cores")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    found = {device: workers.about(device) for device in ("cpu", "cuda", "mps")}
    assert found == {"cpu": workers.about(), "cuda": "NVIDIA H100, CUDA", "mps": "Apple GPU, MPS"}
    assert [workers.on_processor(machine) for machine in found.values()] == [True, False, False]
    assert workers.on_processor(None)  # lines without a machine are older than accelerators'


def test_a_process_that_began_with_other_code_ends_the_command(monkeypatch):
    code = workers.code_digest()
    assert workers._numbered(3, abs, -2, code) == (3, 2)
    monkeypatch.setattr(workers, "code_digest", lambda: "0ldc0de")
    with pytest.raises(RuntimeError, match=r"process \d+ of .* other code than .* start it again"):
        workers._numbered(3, abs, -2, code)
    assert list(workers.do_all(abs, [-1])) == [(-1, 1)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, [1.0, math.nan]])
def test_a_number_that_is_not_finite_is_a_failure(value):
    found = {"values": {"steps": 3, "reason": "budget", "fitted label": value}}
    with pytest.raises(ValueError, match=r"'fitted label' has -?(inf|nan), where finite"):
        workers.timed(lambda item: found, 0)


def test_nan_may_say_that_there_is_nothing_to_measure():
    found = {"values": {"p": math.nan}}
    line = workers.timed(lambda item: found, 0, or_nan=True)
    assert math.isnan(line["values"]["p"])
    assert line["version"] == f"{sa.__version__} (torch {torch.__version__})"
    assert line["machine"] == workers.about()
