"""The journal: its lines survive whatever stops a command, and a digest of code changes with it."""

import importlib
import threading
from functools import partial

import pytest

from study import journal
from study.grid import Grid
from study.methods import PAPER


def key_of(label, method=PAPER, seed=42, part="scoreboard"):
    return Grid(part, (method,), (label,), (seed,)).runs()[0].key


# ---- lines


def test_a_run_has_every_entry_of_the_key():
    assert tuple(key_of(3)) == journal.KEY
    assert journal.key_of(key_of(3) | {"values": {}}) == tuple(key_of(3).values())


def test_lines_survive_a_file(tmp_path):
    path, records = tmp_path / "results" / "journal.jsonl", []
    assert journal.read(path) == []
    for label in (3, 5):
        for part in ("scoreboard", "ladder"):
            records.append(key_of(label, part=part) | {"values": {"p": 0.123456789}})
            journal.append(path, records[-1])
    assert journal.read(path) == records
    newer = records[0] | {"values": {"p": 1.0}}
    journal.append(path, newer)
    assert journal.read(path) == [newer, *records[1:]]
    assert path.read_text() == journal.as_text([*records, newer])


def test_a_run_that_fails_later_keeps_what_it_had(tmp_path):
    path = tmp_path / "journal.jsonl"
    had = key_of(3) | {"values": {"p_open_set_class": 0.5}}
    for record in (key_of(3) | {"error": "first"}, had, key_of(3) | {"error": "no"}):
        journal.append(path, record)
    assert journal.read(path) == [had]


@pytest.mark.parametrize("line", ["5", "[1, 2]", '"paper"', "{}", "null"])
def test_a_line_that_is_no_run_is_refused(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    journal.append(path, key_of(3))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(
        ValueError, match=r"journal\.jsonl, line 2: .* is no run .* remove the line"
    ):
        journal.read(path)


@pytest.mark.parametrize("cut", [40, -2])
def test_a_torn_line_does_not_count_and_the_next_one_does(tmp_path, cut):
    """Cut in the middle, or so late that only the last bracket is missing."""
    path, torn = tmp_path / "journal.jsonl", journal.as_line(key_of(5))
    journal.append(path, key_of(3))
    path.write_text(path.read_text() + torn[:cut])
    assert [r["class"] for r in journal.read(path)] == [3]
    journal.append(path, key_of(7))
    assert [r["class"] for r in journal.read(path) if r["class"] != 5] == [3, 7]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(journal.as_text([key_of(3), key_of(5)]).rstrip())
    assert [r["class"] for r in journal.read(path)] == [3, 5]
    journal.append(path, key_of(7))
    assert [r["class"] for r in journal.read(path)] == [3, 5, 7]


def test_who_writes_waits_for_another_process(tmp_path):
    path = tmp_path / "journal.jsonl"
    with journal.alone(path):
        writer = threading.Thread(target=journal.append, args=(path, key_of(3)))
        writer.start()
        writer.join(0.3)
        assert not path.exists()
    writer.join(60)
    assert [r["class"] for r in journal.read(path)] == [3]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no lock is left


def test_an_empty_journal_is_none(tmp_path):
    (tmp_path / "journal.jsonl").touch()  # a run killed between making the file and writing to it
    journal.append(tmp_path / "journal.jsonl", key_of(3))
    assert [r["class"] for r in journal.read(tmp_path / "journal.jsonl")] == [3]


# ---- digests


def test_equal_values_have_one_digest():
    assert journal.digest({"a": 1, "b": [2.5, None]}) == journal.digest({"b": [2.5, None], "a": 1})
    assert journal.digest({"a": 1}) != journal.digest({"a": 2})
    assert len(journal.digest([])) == 8


SOURCE = '''
STEPS = 3
NAMES = {"weight": 2}
MAKERS = {"list": list, "helper": lambda: NAMES}
half = lambda x: x / 2


def helper(x):
    """What it adds."""
    return half(x + 1)


def method(story, gone):
    """Forgets."""
    return [helper(gone) for _ in range(STEPS)], NAMES["weight"], MAKERS


def other(story):
    return story
'''


@pytest.fixture
def code_of(tmp_path, monkeypatch):
    """The digest of `method` in a module of this text."""
    monkeypatch.syspath_prepend(tmp_path)
    made = iter(range(100))

    def code_of(source):
        name = f"written_{tmp_path.name}_{next(made)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        return journal.code_of(importlib.import_module(name).method)

    return code_of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[helper(gone) for", "[helper(story) for"),
        ("x + 1", "x + 2"),  # of what it calls
        ("STEPS = 3", "STEPS = 4"),
        ("STEPS = 3", "STEPS = 3.0"),
        ('{"weight": 2}', '{"weight": 3}'),
        ("x / 2", "x / 3"),
        ("def method(story, gone)", "def method(gone, story)"),
    ],
)
def test_the_digest_changes_with_the_code(code_of, old, new):
    assert SOURCE.count(old) == 1
    assert code_of(SOURCE.replace(old, new)) != code_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Forgets."""', '"""Another sentence."""'),
        ('    """Forgets."""\n', ""),
        ('"""What it adds."""', '"""Plus one."""'),
        ("[helper(gone) for _ in range(STEPS)]", "[  # it forgets\n        helper((gone))\n"
         "        for _ in range(STEPS,)\n    ]"),
        ("return story\n", "return None\n"),  # of what it does not call
        ("STEPS = 3\n", "STEPS = 3  # passes\nWORD = 4\n"),
    ],
)  # fmt: skip
def test_the_digest_does_not_change_with_words_or_layout(code_of, old, new):
    assert SOURCE.count(old) == 1
    assert code_of(SOURCE.replace(old, new)) == code_of(SOURCE)


def test_the_digest_is_the_same_under_every_python(code_of):
    """Syntax trees of 3.11, 3.12 and 3.13 are printed in three ways; lines of one machine are read
    on others."""
    assert code_of(SOURCE) == "838f2978"


def fits(story, gone, passes=1, rate=0.1):
    return passes * rate


def test_options_of_a_partial_count():
    digests = [
        journal.code_of(function)
        for function in (
            fits,
            partial(fits, passes=1),
            partial(fits, passes=2),
            partial(fits, rate=1),
            partial(fits, "story"),
        )
    ]
    assert len(set(digests)) == 5
    one = partial(fits, passes=1, rate=2)
    assert journal.code_of(one) == journal.code_of(partial(partial(fits, rate=2), passes=1))


def typed(text):
    """A function without a file."""
    found = {}
    exec(text, found)
    return found["method"]


def test_of_a_function_typed_at_a_prompt_instructions_names_and_constants_count():
    text = "def method(story):\n    return len([n + 1 for n in story])"
    assert journal.code_of(typed(text)) == journal.code_of(typed(text))
    for old, new in (("+", "-"), ("len", "sum"), ("1", "2")):
        assert journal.code_of(typed(text)) != journal.code_of(typed(text.replace(old, new)))
