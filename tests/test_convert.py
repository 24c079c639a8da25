"""Lines of the journal's earlier format, carried over to today's keys."""

import json
import shutil

import pytest

from sahelpers.attacks.verdicts import CLAIM_ATTACKS, WITHOUT_VERDICT
from study import grid, journal, tables
from study.convert import METHOD_NAMES, convert
from study.experiments import published
from study.grid import RESULTS
from study.methods import ALONE, HIDDEN, METHODS, OURS, PAPER, REFERENCE, RETRAINED, as_method

ATTACKS = {name: [0.5, 0.25] for name in (*CLAIM_ATTACKS, *WITHOUT_VERDICT)}


def old(part, method, fingerprint, values, arch="mlp", **changes):
    """A line as the release before wrote it."""
    about = {"cell_seconds": 20.5, "peak_mb": 1303.45, "version": "0.1.0", "machine": "M, 2 cores"}
    key = {"part": part, "method": method, "class": 3, "seed": 42, "dataset": "mnist", "arch": arch}
    return {**key, "fingerprint": fingerprint, "values": values, **about, **changes}


SCOREBOARD = {  # what was measured, some of it under another name, some not any more
    "p_open_class": 0.1,
    "argmax_plain_standard": 0.2,
    "argmax_stretched_open_class": 0.3,
    "worst_drop_open_class": 0.4,
    "frechet_after": 17.5,
    "iwae_kept_change": 0.5,
    "attack": 0.9,
    "relearn": 0.8,
    "seconds": 0.01,
}
TODAY = {
    "p_open_set_class": 0.1,
    "argmax_closed_set_standard": 0.2,
    "worst_drop_open_set_class": 0.4,
    "frechet_after": 17.5,
    "iwae_kept_change": 0.5,
    "seconds": 0.01,
}
ALIKE = [  # (old line, the method's name today)
    (old("scoreboard", "selective amnesia", "68c0b6e6-1459a67c", SCOREBOARD), OURS),
    (old("scoreboard", "label column", "68c0b6e6-1459a67c", SCOREBOARD), HIDDEN),
    (old("scoreboard", "gradient ascent", "68c0b6e6-1459a67c", SCOREBOARD), "gradient ascent"),
    (old("scoreboard", "retraining", "68c0b6e6", SCOREBOARD), RETRAINED),
    (old("scoreboard", "selective amnesia", "1077658e-5b9e63f8", SCOREBOARD, "conv"), OURS),
    (old("claim", "without attacker", "ab3b9fff-1459a67c", ATTACKS), ALONE),
    (old("claim", "paper", "ab3b9fff-1459a67c", ATTACKS), PAPER),
    (old("claim", "reference, 3 passes", "39f40eb9-1459a67c", ATTACKS, "conv"),
     f"{REFERENCE}, 3 passes"),
    (old("claim", "retraining", "39f40eb9", ATTACKS, "conv"), RETRAINED),
    (old("claim", "label column", "ab3b9fff-1459a67c", ATTACKS, dataset="fashion_mnist"), HIDDEN),
]  # fmt: skip
GONE = [
    old("audit", "selective amnesia", "68c0b6e6-1459a67c", {"guided both": [1, 0]}),
    old("audit", "baseline", "68c0b6e6", {"guided both": [1, 0]}),
    old("claim", "selective amnesia", "ab3b9fff-f2f26ba7", ATTACKS),  # an earlier default
    old("scoreboard", "without EWC", "68c0b6e6-b246a58b", SCOREBOARD),
    old("claim", "selective amnesia", "39f40eb9-1459a67c", ATTACKS, "conv"),  # not its preset
    old("claim", "selective amnesia", "39f40eb9-9c96bb3d", ATTACKS, "conv"),
    old("claim", "retraining", "68c0b6e6", ATTACKS),  # of another part
    old("scoreboard", "retraining", "0ld", SCOREBOARD),
    old("scoreboard", "magic", "68c0b6e6-1459a67c", SCOREBOARD),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def write(path, records):
    path.write_text(journal.as_text(records))


@pytest.mark.parametrize(("line", "method"), ALIKE, ids=[line["method"] for line, _ in ALIKE])
def test_a_line_of_todays_defaults_is_carried_over_under_todays_key(path, line, method):
    write(path, [line])
    assert convert(path) == "1 of 1 lines are kept in journal.jsonl"
    (found,) = journal.read(path)
    assert found["method"] == method
    assert found["values"] == (ATTACKS if line["part"] == "claim" else TODAY)
    for name in ("part", "class", "seed", "dataset", "arch", "cell_seconds", "version", "machine"):
        assert found[name] == line[name]
    assert set(found) == {*journal.KEY, "values", "cell_seconds", "version", "machine"}
    assert grid.current(found)
    assert tables.newest([found], found["part"]) == [found]
    baseline, amnesia = grid.CONFIGS[line["arch"]]
    (run,) = grid.Grid(
        line["part"], (method,), (3,), (42,), line["dataset"], baseline, amnesia
    ).runs()
    assert journal.key_of(found) == journal.key_of(run.key)


@pytest.mark.parametrize("line", GONE, ids=range(len(GONE)))
def test_lines_of_earlier_defaults_and_of_gone_attacks_are_left_out(path, line):
    write(path, [line, ALIKE[0][0]])
    assert convert(path) == "1 of 2 lines are kept in journal.jsonl"
    assert [r["method"] for r in journal.read(path)] == [OURS]


def test_a_failure_is_carried_over_as_one(path):
    line = {k: v for k, v in ALIKE[0][0].items() if k != "values"} | {"error": "no disk"}
    write(path, [line])
    convert(path)
    (found,) = journal.read(path)
    assert found["error"] == "no disk"
    assert "values" not in found


def test_every_earlier_name_is_a_method_of_today():
    assert set(METHOD_NAMES.values()) <= set(METHODS)


def test_the_published_recipes_own_journal_becomes_a_part_of_the_one(path):
    measured = {"p_open_class": 0.1, "attack": 0.3, "held_out": 95.0, "p": 0.2, "entropy": 2.1}
    apart = [
        {"digit": 3, "method": "paper", "seed": 42, "values": ATTACKS, "seconds": 9.0, **measured},
        {"digit": 3, "method": "retraining by the official recipe", "seed": 42, "values": ATTACKS},
        {"digit": 0, "method": "retraining", "seed": 48, "values": ATTACKS},
    ]
    write(path.with_name("published.jsonl"), apart)
    write(path, [ALIKE[0][0]])
    assert convert(path) == "4 of 4 lines are kept in journal.jsonl"
    assert not path.with_name("published.jsonl").exists()
    _, first, *others = journal.read(path)
    assert journal.key_of(first) == journal.key_of(published.Model(3, PAPER, 42).key)
    assert first["measures"] == {
        "p_open_set_class": 0.1, "held_out": 95.0, "p": 0.2, "entropy": 2.1, "seconds": 9.0,
    }  # fmt: skip
    assert first["values"] == ATTACKS
    assert [line["method"] for line in others] == [published.OFFICIAL, RETRAINED]
    assert convert(path) == "4 of 4 lines are kept in journal.jsonl"


def test_lines_of_methods_that_were_only_moved_get_todays_digest_of_their_code(path):
    moved = [
        published.Model(3, published.OFFICIAL, 42).key | {"values": ATTACKS, "code": "earlier0"},
        *(run.key | {"values": ATTACKS, "code": "earlier0"} for run in grid.Grid(
            "claim", (HIDDEN, OURS, RETRAINED), (3,), (42,)).runs()),
    ]  # fmt: skip
    write(path, moved)
    convert(path)
    assert [line["code"] for line in journal.read(path)] == ["earlier0"] * 4
    convert(path, [HIDDEN, RETRAINED])
    code = {m: as_method(METHODS[m]).digests(grid.CONFIGS["mlp"][1])["code"] for m in METHODS}
    assert {line["method"]: line["code"] for line in journal.read(path)} == {
        published.OFFICIAL: code[RETRAINED],  # which trains as retraining does
        HIDDEN: code[HIDDEN],
        OURS: "earlier0",
        RETRAINED: code[RETRAINED],
    }


def test_a_torn_line_stops_nothing(path):
    path.write_text('{"part":"scoreb\n' + journal.as_line(ALIKE[0][0]) + '{"part":')
    assert convert(path) == "1 of 1 lines are kept in journal.jsonl"
    assert json.loads(path.read_text())["method"] == OURS


def test_the_committed_journal_stays_as_it_is(path):
    shutil.copy(RESULTS / "journal.jsonl", path)
    before = path.read_bytes()
    convert(path)
    assert path.read_bytes() == before
