"""Faults, the short version: a few kills, one of each other kind.  `make stress` runs many."""

import pytest
from stress import scenarios as s

SIZE = s.Size(images=600, epochs=3, fisher=50)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder, digest and seconds of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    expected, seconds = s.undisturbed(folder, SIZE)
    return folder / "again" / "checkpoints", expected, seconds


def attempt(folder, trial, seconds):
    """A trial whose kill comes too late is repeated, with half the seconds each time."""
    for k in range(5):
        if trial(folder / str(k), seconds / 2**k):
            return
    raise AssertionError("the child had ended before each kill")


@pytest.mark.parametrize("share", [0.2, pytest.param(0.5, marks=pytest.mark.full)])
def test_killed_in_training(tmp_path, whole, share):
    _made, expected, seconds = whole
    attempt(tmp_path, lambda x, t: s.killed_training(x, SIZE, expected, t), share * seconds)


@pytest.mark.full
def test_killed_in_the_fisher(tmp_path, whole):
    made, expected, seconds = whole
    attempt(tmp_path, lambda x, t: s.killed_fisher(x, SIZE, expected, t, made), 0.1 * seconds)


@pytest.mark.parametrize(
    "seconds",
    [0.05, pytest.param(0.11, marks=pytest.mark.full), pytest.param(0.23, marks=pytest.mark.full)],
)
def test_killed_while_saving(tmp_path, seconds):
    attempt(tmp_path, lambda x, t: s.killed_saving(x, SIZE, t), seconds)


def test_killed_in_a_journal(tmp_path):
    attempt(tmp_path, lambda x, t: s.killed_journal(x, SIZE, t), 0.2)


def test_full_disk(tmp_path, whole):
    _made, expected, _ = whole
    s.full_disk(tmp_path / "x", SIZE, expected, 50_000)


@pytest.mark.full
def test_read_only_folder(whole):
    made, expected, _ = whole
    s.read_only_folder(SIZE, expected, made)


@pytest.mark.full
@pytest.mark.parametrize("which", ["baseline", "fisher", "judge"])
def test_flipped_bit(tmp_path, whole, which):
    made, expected, _ = whole
    s.flipped_bit(tmp_path / "x", SIZE, expected, made, which, 0.4)


def test_flipped_bit_in_the_data(tmp_path):
    s.flipped_data(tmp_path, 0.5, wrapping=False)


@pytest.mark.full
def test_two_at_once(tmp_path, whole):
    _made, expected, _ = whole
    s.two_at_once(tmp_path / "x", SIZE, expected)


@pytest.mark.full
def test_clock_set_back(tmp_path, whole):
    _made, expected, seconds = whole
    attempt(tmp_path, lambda x, t: s.clock_set_back(x, SIZE, expected, t, 0), 0.3 * seconds)


@pytest.mark.full
@pytest.mark.parametrize("more", [2**16, 2**24])
def test_out_of_memory(tmp_path, whole, more):
    made, expected, _ = whole
    s.out_of_memory(tmp_path / "x", SIZE, expected, made, more)
