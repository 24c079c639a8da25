"""The same table from one process, from joblib's processes and from a Dask cluster on loopback."""

import json
import operator
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest
import torch

import sahelpers as sa
from sahelpers.study import Effort, Grid, grid, read_scoreboard, report, workers

BASE = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
JUDGE = sa.JudgeConfig(epochs=1)
SEEDS = (1, 2)
MEASURED_ANEW = ("seconds", "cell_seconds")  # differ from run to run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mnist):
    """A shared checkpoint folder: untrained judges, baselines that have seen 600 images."""
    root = tmp_path_factory.mktemp("shared")
    few = mnist.take(600)

    def train_baseline(train, test, config, *, resume):
        return sa.train_baseline(few, few, config)

    def train_judge(train, role, config, *, resume):
        return sa.Judge(role)

    def class_fishers(model, data, config):
        return sa.class_fishers(model, few, sa.FisherConfig(n_fisher_samples=100))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SA_CHECKPOINTS", str(root))
        patch.setenv("SA_PROGRESS", "0")
        for quick in (train_baseline, train_judge, class_fishers):
            patch.setattr(f"sahelpers.story.{quick.__name__}", quick)
        torch.manual_seed(0)
        data = sa.load_dataset(), mnist
        for seed in SEEDS:
            story = sa.Story(data, baseline=replace(BASE, seed=seed), judge=JUDGE)
            assert set(story.judges) == {"open", "plain"}
            assert story.fishers
        yield root


@pytest.fixture
def made(folder, tmp_path):
    return Grid(
        "scoreboard",
        methods=("label column", "selective amnesia"),
        forget_classes=(3,),
        seeds=SEEDS,
        baseline=BASE,
        judge=JUDGE,
        amnesia=sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32),
        effort=Effort(samples=20, frechet_samples=20),
        expensive=(),
        folder=tmp_path,
    )


def contents(folder):
    """The table without times, in the order of the runs."""
    rows = [{k: v for k, v in r.items() if k not in MEASURED_ANEW} for r in read_scoreboard(folder)]
    return sorted(rows, key=lambda row: [row[name] for name in report.KEY])


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """The folder of one process, filled by the first test that asks for it."""
    return tmp_path_factory.mktemp("expected")


def check(made, expected):
    if not any(expected.iterdir()):
        replace(made, folder=expected).run("sequential")
    found = contents(made.folder)
    assert len(found) == 4
    assert not any(row["error"] for row in found)
    assert found == contents(expected)


def kill_after_first_line(monkeypatch, kill):
    """Call kill() once, when the first line is written: the other runs are waiting or in flight."""
    append, left = grid.append, [kill]

    def then_kill(path, record):
        append(path, record)
        if left:
            left.pop()()

    monkeypatch.setattr(grid, "append", then_kill)
    return left


def test_processes_of_which_one_is_killed(made, expected, monkeypatch):
    def kill():
        children = psutil.Process().children(recursive=True)
        next(p for p in children if "LokyProcess" in " ".join(p.cmdline())).kill()

    left = kill_after_first_line(monkeypatch, kill)
    made.run("loky", jobs=2)
    assert not left
    check(made, expected)


POWERS = [partial(pow, 2, 2), partial(pow, 3, 2)]  # once pickled, they equal nothing but themselves
RAISED = dict(zip(POWERS, (4, 9), strict=True))


def test_processes_give_the_item_itself_with_its_result():
    assert dict(workers.each(operator.call, POWERS, "loky", jobs=2)) == RAISED


def test_processes_end_after_torch_used_two_threads_here():
    """A forked pool waits for threads that it does not have; these processes are spawned."""
    code = """if True:
        import torch
        from sahelpers.study import workers
        torch.set_num_threads(2)
        large = torch.ones(600, 600)
        assert float((large @ large).sum()) == 600**3
        found = dict(workers.each(torch.linalg.matrix_norm, [large, 2 * large], "loky", jobs=2))
        print(sorted(float(norm) for norm in found.values()), torch.get_num_threads())"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "[600.0, 1200.0] 2\n", done.stderr


@pytest.fixture
def cluster(folder, tmp_path):
    """A scheduler and two workers, as README starts them; (address, worker processes)."""
    started, where = [], tmp_path / "scheduler.json"

    def start(*words):
        command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
        with (tmp_path / f"log{len(started)}").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))

    start("scheduler", "--port", "0", "--scheduler-file", str(where))
    until = time.monotonic() + 300
    while not where.exists():
        assert started[0].poll() is None, (tmp_path / "log0").read_text()[-2000:]
        assert time.monotonic() < until
        time.sleep(0.2)
    address = json.loads(where.read_text())["address"]
    for _ in range(2):
        start("worker", address, "--nthreads", "1", "--no-nanny")
    yield address, started[1:]
    for process in reversed(started):
        process.kill()
        process.wait()


def test_a_cluster_of_which_one_worker_is_killed(made, expected, cluster, monkeypatch):
    from distributed import Client

    address, processes = cluster
    with Client(address) as client:
        client.wait_for_workers(2, timeout=300)
    assert dict(workers.each(operator.call, POWERS, "dask", scheduler=address)) == RAISED
    left = kill_after_first_line(monkeypatch, processes[0].kill)
    made.run("dask", scheduler=address)
    assert not left
    assert [p.poll() is None for p in processes] == [False, True]
    check(made, expected)


def exit_at_two(item):
    """Kills its process at one item."""
    if item == 2:
        os._exit(1)
    return 10 * item, torch.get_num_threads()


def test_an_item_that_kills_its_process_twice_is_given_up_and_the_others_are_done(monkeypatch):
    found = dict(workers.each(exit_at_two, [1, 2, 3, 4], "loky", jobs=2))
    broken = found.pop(2)
    assert "terminated" in str(broken)
    assert all(found.get(k, broken) in ((10 * k, 1), broken) for k in (1, 3, 4))
    assert found[4] == (40, 1)  # not in flight beside it


@pytest.mark.parametrize("where", [{}, {"backend": "loky", "jobs": 2}])
def test_what_work_raises_stands_in_its_place_and_the_others_are_done(where):
    found = dict(workers.each(partial(operator.truediv, 6.0), [1, 0, 3], **where))
    assert isinstance(found.pop(0), ZeroDivisionError)
    assert found == {1: 6.0, 3: 2.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"backend": "magic"}, "backend='magic' is not one of sequential, loky, dask"),
        ({"backend": "loky", "jobs": 0}, "jobs=0 processes: give 1 or more"),
        ({"backend": "dask"}, "needs the address of a scheduler"),
        ({"backend": "loky", "scheduler": "tcp://10.0.0.1:8786"}, "only 'dask', needs"),
    ],
)
def test_a_wrong_choice_is_explained(words, said):
    with pytest.raises(ValueError, match=said):
        list(workers.each(exit_at_two, [1], **words))


def test_one_process_gets_its_threads_back():
    torch.set_num_threads(2)
    assert list(workers.each(exit_at_two, [1, 3])) == [(1, (10, 1)), (3, (30, 1))]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
