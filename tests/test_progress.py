"""Whoever watches the long loops of a thread is told how far they are, and can end them."""

import threading

import pytest
from filelock import FileLock

import sahelpers as sa
from sahelpers import progress as module
from sahelpers.progress import progress, report, watched
from sahelpers.store.files import save


class Enough(Exception):
    """What a watcher raises."""


def test_a_watched_loop_tells_its_shares_and_shows_no_bar(monkeypatch):
    monkeypatch.delenv("SA_PROGRESS", raising=False)
    monkeypatch.setattr(module, "tqdm", None)  # which nobody can call
    told = []
    with watched(lambda *given: told.append(given)):
        assert list(progress(range(4), "count")) == [0, 1, 2, 3]
    assert told == [("count", 0.0), ("count", 0.25), ("count", 0.5), ("count", 0.75)]
    report("count", 1.0)  # to nobody
    assert len(told) == 4


def test_a_silent_loop_is_told_by_somebody_else(monkeypatch):
    told = []
    with watched(lambda *given: told.append(given)):
        assert list(progress(range(3), "count", silent=True)) == [0, 1, 2]
    assert told == []


def test_each_thread_has_its_own_watcher():
    told = []
    with watched(lambda *given: told.append(given)):
        thread = threading.Thread(target=lambda: list(progress(range(3), "elsewhere")))
        thread.start()
        thread.join()
    assert told == []


def test_a_training_tells_every_step_and_is_ended_within_a_pass(mnist, tmp_path):
    data, part = mnist.take(100), tmp_path / "x.part.pt"
    config = sa.BaselineConfig(epochs=4, batch_size=20, latent_dim=3)
    told = []
    with watched(lambda _, share: told.append(share)):
        whole = sa.train_baseline(data, data, config)
    assert sorted(set(told)) == pytest.approx([k / 20 for k in range(20)])

    def look(_, share):
        if share > 0.6:
            raise Enough

    with watched(look), pytest.raises(Enough):
        sa.train_baseline(data, data, config, resume=part)
    assert part.exists()
    told.clear()
    with watched(lambda _, share: told.append(share)):
        resumed = sa.train_baseline(data, data, config, resume=part)
    assert len(set(told)) == 10  # two passes of five steps were left
    assert resumed.history == whole.history


def test_waiting_for_another_process_can_be_ended(tmp_path):
    path = tmp_path / "x.pt"

    def look(what, _):
        assert "wait for another process" in what
        raise Enough

    with FileLock(f"{path}.lock"):
        done = []

        def write():
            with watched(look), pytest.raises(Enough):
                save(path, {}, {})
            done.append(True)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(60)
    assert done == [True]
    assert not path.exists()
