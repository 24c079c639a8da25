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
from sahelpers import backends, scoreboard, table

BASE = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
JUDGE = sa.JudgeConfig(epochs=1)
SEEDS = (1, 2)
MEASURED_ANEW = ("seconds", "cell_seconds", "peak_mb")  # differ from run to run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mnist):
    """A shared checkpoint folder: untrained judges, baselines that have seen 600 images."""
    root = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SA_CHECKPOINTS", str(root))
        patch.setenv("SA_PROGRESS", "0")
        data = mnist.take(600)
        torch.manual_seed(0)
        for role in ("open", "plain"):
            path = sa.checkpoint_path(f"judge_{role}", JUDGE)
            sa.save(path, sa.Judge(role).to_state(), sa.fingerprint(JUDGE))
        for seed in SEEDS:
            base = replace(BASE, seed=seed)
            model = sa.get_baseline(base, data).model
            fishers = sa.class_fishers(model, data, sa.FisherConfig(n_fisher_samples=100))
            path = sa.checkpoint_path("fisher", base, sa.FisherConfig())
            sa.save(path, fishers.to_state(), sa.fingerprint(base, sa.FisherConfig()))
        yield root


@pytest.fixture
def grid(folder, tmp_path):
    return sa.Scoreboard(
        methods=("label column", "selective amnesia"),
        classes=(3,),
        seeds=SEEDS,
        base=BASE,
        judge=JUDGE,
        amnesia=sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32),
        effort=sa.Effort(samples=20, frechet_samples=20),
        dear=(),
        table=tmp_path / "table.csv",
    )


def contents(path):
    """The table without times, in the order of the cells."""
    rows = [
        {k: v for k, v in r.items() if k not in MEASURED_ANEW} for r in table.read_scoreboard(path)
    ]
    return sorted(rows, key=table.key_of)


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """The table of one process, filled by the first test that asks for it."""
    return tmp_path_factory.mktemp("expected") / "table.csv"


def check(grid, expected):
    if not expected.exists():
        replace(grid, table=expected).run("sequential")
    found = contents(grid.table)
    assert len(found) == 4
    assert not any(row["error"] for row in found)
    assert found == contents(expected)


def kill_after_first_row(monkeypatch, kill):
    """Call kill() once, when the first row is written: the other cells are waiting or in flight."""
    append, left = table.append, [kill]

    def then_kill(path, row):
        append(path, row)
        if left:
            left.pop()()

    monkeypatch.setattr(scoreboard, "append", then_kill)
    return left


def test_processes_of_which_one_is_killed(grid, expected, monkeypatch):
    def kill():
        children = psutil.Process().children(recursive=True)
        next(p for p in children if "LokyProcess" in " ".join(p.cmdline())).kill()

    left = kill_after_first_row(monkeypatch, kill)
    grid.run("loky", jobs=2)
    assert not left
    check(grid, expected)


POWERS = [partial(pow, 2, 2), partial(pow, 3, 2)]  # once pickled, they equal nothing but themselves
RAISED = dict(zip(POWERS, (4, 9), strict=True))


def test_processes_give_the_item_itself_with_its_result():
    assert dict(backends.each(operator.call, POWERS, "loky", jobs=2)) == RAISED


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


def test_a_cluster_of_which_one_worker_is_killed(grid, expected, cluster, monkeypatch):
    from distributed import Client

    address, workers = cluster
    with Client(address) as client:
        client.wait_for_workers(2, timeout=300)
    assert dict(backends.each(operator.call, POWERS, "dask", scheduler=address)) == RAISED
    left = kill_after_first_row(monkeypatch, workers[0].kill)
    grid.run("dask", scheduler=address)
    assert not left
    assert [w.poll() is None for w in workers] == [False, True]
    check(grid, expected)


def exit_at_two(item):
    """Kills its process at one item."""
    if item == 2:
        os._exit(1)
    return 10 * item, torch.get_num_threads()


def test_an_item_that_kills_its_process_twice_is_given_up_and_the_others_are_done(monkeypatch):
    found = dict(backends.each(exit_at_two, [1, 2, 3, 4], "loky", jobs=2))
    broken = found.pop(2)
    assert "terminated" in str(broken)
    assert all(found.get(k, broken) in ((10 * k, 1), broken) for k in (1, 3, 4))
    assert found[4] == (40, 1)  # not in flight beside it


@pytest.mark.parametrize("where", [{}, {"backend": "loky", "jobs": 2}])
def test_what_work_raises_stands_in_its_place_and_the_others_are_done(where):
    found = dict(backends.each(partial(operator.truediv, 6.0), [1, 0, 3], **where))
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
        list(backends.each(exit_at_two, [1], **words))


def test_one_process_gets_its_threads_back():
    torch.set_num_threads(2)
    assert list(backends.each(exit_at_two, [1, 3])) == [(1, (10, 1)), (3, (30, 1))]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
