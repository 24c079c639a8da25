"""Lines of the journal, carried over to today's digest of a method's code."""

import json
import shutil
import threading

import pytest

from study import grid, journal
from study.convert import convert
from study.experiments import published
from study.grid import RESULTS, Grid
from study.methods import HIDDEN, METHODS, OURS, RETRAINED, as_method


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def line_of(method, part="ladder", **changes):
    (run,) = Grid(part, (method,), (3,), (42,)).runs()
    return run.key | {"values": {"other labels": [1.0]}} | changes


def test_lines_of_the_named_methods_get_todays_digest_of_their_code(path):
    official = published.Model(3, published.OFFICIAL, 42).key | {"values": {"other labels": [1.0]}}
    lines = [
        official | {"code": "earlier0"},
        line_of(HIDDEN, "scoreboard", code="earlier0"),
        line_of(HIDDEN, code="earlier0", seed=43),
        line_of(OURS, code="earlier0"),
        line_of(RETRAINED, code="earlier0"),
        line_of(RETRAINED, seed=44),  # today's already
    ]
    path.write_text(journal.as_text(lines))
    said = convert(path, [HIDDEN, RETRAINED])
    assert said == (
        "4 of 6 lines of journal.jsonl have today's digest of the code now, and 0 torn lines were "
        "dropped"
    )
    code = {m: as_method(METHODS[m]).digests(grid.CONFIGS["mlp"][1])["code"] for m in METHODS}
    expected = [code[RETRAINED], *[code[HIDDEN]] * 2, "earlier0", *[code[RETRAINED]] * 2]
    found = journal.read(path)
    assert [line["code"] for line in found] == expected  # the official one trains as ours does
    assert [{**line, "code": ""} for line in found] == [{**line, "code": ""} for line in lines]
    assert [grid.current(line) for line in found] == [False, True, True, False, True, True]


def test_lines_of_several_older_codes_are_refused_and_stay(path):
    """Only one of them can have been compared with today's."""
    lines = [line_of(HIDDEN, code="earlier0"), line_of(HIDDEN, seed=43, code="earlier1")]
    path.write_text(journal.as_text(lines))
    with pytest.raises(ValueError, match=r"earlier0.*earlier1.*take the lines of the others out"):
        convert(path, [HIDDEN])
    assert path.read_text() == journal.as_text(lines)


def test_a_failure_is_carried_over_as_one(path):
    failed = {**line_of(HIDDEN, code="earlier0"), "error": "no disk"}
    del failed["values"]
    path.write_text(journal.as_text([failed]))
    convert(path, [HIDDEN])
    (found,) = journal.read(path)
    assert found == failed | {"code": found["code"]}
    assert grid.current(found)


def test_a_torn_line_stops_nothing(path):
    whole = journal.as_line(line_of(HIDDEN, code="earlier0"))
    path.write_text('{"part":"scoreb\n' + whole + '{"part":')
    said = convert(path, [HIDDEN])
    assert said.startswith("1 of 1 lines")
    assert said.endswith(", and 2 torn lines were dropped")
    assert json.loads(path.read_text())["method"] == HIDDEN


def test_without_a_journal_nothing_is_carried_over(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no journal to carry over"):
        convert(tmp_path / "none.jsonl", [HIDDEN])


def test_a_whole_last_line_without_its_end_is_kept(path):
    path.write_text(journal.as_text([line_of(HIDDEN), line_of(HIDDEN, seed=43)]).rstrip())
    assert convert(path, []).endswith(" and 0 torn lines were dropped")
    assert [line["seed"] for line in journal.read(path)] == [42, 43]


def test_a_line_that_is_written_meanwhile_is_not_lost(path, monkeypatch):
    """A run that ends while the lines are carried over waits for it."""
    path.write_text(journal.as_text([line_of(HIDDEN)]))
    lines, writers = journal.lines, []

    def slowly(path):
        found = list(lines(path))
        writers.append(threading.Thread(target=journal.append, args=(path, line_of(OURS))))
        writers[-1].start()
        writers[-1].join(0.3)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(journal, "lines", slowly)
        convert(path, [])
    writers[0].join(60)
    assert [line["method"] for line in journal.read(path)] == [HIDDEN, OURS]


def test_the_committed_journal_stays_as_it_is(path):
    shutil.copy(RESULTS / "journal.jsonl", path)
    before = path.read_bytes()
    assert convert(path, []).startswith("0 of ")
    assert path.read_bytes() == before
