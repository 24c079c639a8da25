"""Notebook 01 up to its training, as a hurried reader runs it; all of it: `make misuse`."""

import signal
import threading

import pytest
from misuse.driver import Checkout, Refused, powerless, same, undisturbed
from nbclient.exceptions import DeadKernelError

TRAINING = "train mlp VAE"  # what the progress bar says


@pytest.fixture(scope="module")
def truth():
    return undisturbed()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def cells(checkout):
    return checkout.cells(until="trained.history")


def leftovers(checkout):
    """Files in checkpoints/ that a reader would wonder about."""
    names = [p.name for p in checkout.checkpoints.iterdir()]
    return [n for n in names if n != checkout.path.name and not n.endswith(".lock")]


@pytest.mark.full
def test_out_of_order_then_interrupted_then_twice(checkout, cells, truth):
    parameters, training = (
        next(k for k, cell in enumerate(cells) if words in cell)
        for words in ("sa.Story.from_knobs", "story.baseline")
    )
    with checkout.kernel() as kernel:
        with pytest.raises(Refused, match="NameError: name 'story' is not defined"):
            kernel.run(cells[training])
        kernel.run(*cells[:parameters])
        assert not list(checkout.checkpoints.iterdir())
        kernel.run(*cells[parameters:training])
        kernel.strike = (TRAINING, 0.3, signal.SIGINT)
        with pytest.raises(Refused, match="KeyboardInterrupt"):
            kernel.run(cells[training])
        assert not checkout.path.exists()
        kernel.run(*cells[training:])
        assert same(checkout.model(), truth)
        written = checkout.path.stat().st_mtime_ns
        kernel.run(*[cell for cell in cells for _ in range(2)])
    assert checkout.path.stat().st_mtime_ns == written
    assert leftovers(checkout) == []


@pytest.mark.full
def test_killed_while_training_then_on_from_the_middle(checkout, cells, truth):
    with checkout.kernel() as kernel:
        kernel.strike = (TRAINING, 0.3, signal.SIGKILL)
        with pytest.raises(DeadKernelError):
            kernel.run(*cells)
    assert not checkout.path.exists()
    with checkout.kernel(cwd=checkout.elsewhere) as kernel:  # another working folder, too
        with pytest.raises(Refused, match="NameError: name 'trained' is not defined"):
            kernel.run(cells[-1])
        kernel.run(*cells)
    assert same(checkout.model(), truth)
    assert leftovers(checkout) == []
    assert list(checkout.elsewhere.iterdir()) == []


@pytest.mark.full
def test_no_permission_to_write(checkout, cells, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    checkout.checkpoints.chmod(0o555)
    with (
        checkout.kernel(powerless(tmp_path)) as kernel,
        pytest.raises(Refused, match=r"checkpoints.*SA_CHECKPOINTS"),
    ):
        kernel.run(*cells)
    checkout.checkpoints.chmod(0o755)
    assert leftovers(checkout) == []


@pytest.mark.full
def test_two_at_once(checkout, cells, truth):
    failed = []

    def reader():
        try:
            with checkout.kernel() as kernel:
                kernel.run(*cells)
        except Exception as error:
            failed.append(error)

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    assert failed == []
    assert same(checkout.model(), truth)
    assert leftovers(checkout) == []
