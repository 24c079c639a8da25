"""Notebook 01 from end to end, misused: `make misuse`."""

import random
import signal
import threading

import pytest
from misuse.driver import Checkout, Refused, powerless, same, undisturbed
from nbclient.exceptions import DeadKernelError

BARS = ("train mlp VAE", "train judge 'open_set'", "train judge 'closed_set'")
STRIKES = [(bar, round(random.Random(k).uniform(0, 0.3), 2)) for k in range(3) for bar in BARS]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """What an undisturbed run prints, and the model it keeps."""
    checkout = Checkout(tmp_path_factory.mktemp("clean"))
    with checkout.kernel() as kernel:
        printed = kernel.run(*checkout.cells())
    assert same(checkout.model(), undisturbed())
    return printed, checkout.model(), sorted(p.name for p in checkout.checkpoints.glob("*.pt"))


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def ends_well(checkout, clean, printed):
    """The run printed what a clean one prints, and left the same files."""
    assert printed == clean[0]
    assert same(checkout.model(), clean[1])
    assert sorted(p.name for p in checkout.checkpoints.iterdir()) == clean[2]


@pytest.mark.parametrize(("bar", "delay"), STRIKES)
def test_interrupted_then_run_again(checkout, clean, bar, delay):
    with checkout.kernel() as kernel:
        kernel.strike = (bar, delay, signal.SIGINT)
        with pytest.raises(Refused, match="KeyboardInterrupt"):
            kernel.run(*checkout.cells())
        ends_well(checkout, clean, kernel.run(*checkout.cells()))


@pytest.mark.parametrize(("bar", "delay"), STRIKES)
def test_killed_then_run_again(checkout, clean, bar, delay):
    with checkout.kernel() as kernel:
        kernel.strike = (bar, delay, signal.SIGKILL)
        with pytest.raises(DeadKernelError):
            kernel.run(*checkout.cells())
    with checkout.kernel() as kernel:
        ends_well(checkout, clean, kernel.run(*checkout.cells()))


def test_every_cell_twice_then_backwards(checkout, clean):
    cells = checkout.cells()
    with checkout.kernel() as kernel:
        kernel.run(*[cell for cell in cells for _ in range(2)])
        kernel.run(*reversed(cells))
        ends_well(checkout, clean, kernel.run(*cells))


@pytest.mark.parametrize("first", range(3, 16, 4))
def test_from_the_middle_of_a_fresh_kernel(checkout, clean, first):
    """A name that an earlier cell makes is missing, and the error names it."""
    cells = checkout.cells()
    with checkout.kernel() as kernel:
        with pytest.raises(Refused, match=r"NameError: name '(\w+)' is not defined") as caught:
            kernel.run(*cells[first:])
        missing = str(caught.value).split("'")[1]
        assert any(missing in cell for cell in cells[:first])
        ends_well(checkout, clean, kernel.run(*cells))


def test_no_permission_to_write(checkout, clean, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    checkout.checkpoints.chmod(0o555)
    with checkout.kernel(powerless(tmp_path)) as kernel:
        with pytest.raises(Refused, match=r"checkpoints.*SA_CHECKPOINTS"):
            kernel.run(*checkout.cells())
        assert list(checkout.checkpoints.iterdir()) == []
        elsewhere = tmp_path / "elsewhere"
        kernel.run(f"import os; os.environ['SA_CHECKPOINTS'] = {str(elsewhere)!r}")
        printed = kernel.run(*checkout.cells())  # what the error advised
    checkout.checkpoints.rmdir()
    elsewhere.rename(checkout.checkpoints)
    ends_well(checkout, clean, printed)


def test_three_at_once_in_another_folder(checkout, clean):
    printed = []

    def reader():
        with checkout.kernel(cwd=checkout.elsewhere) as kernel:
            printed.append(kernel.run(*checkout.cells()))

    readers = [threading.Thread(target=reader) for _ in range(3)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    assert len(printed) == 3
    for text in printed:
        ends_well(checkout, clean, text)
