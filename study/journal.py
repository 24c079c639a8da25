"""The one journal of the study, results/journal.jsonl: a line for every run that has ended.

A line holds the run's key, what was measured or the error that ended it, and what a reader needs
to judge its time: seconds, version and machine (a line with an error lacks them, and so do older
ones of the experiments `sealed`, `frontier` and `published`).  Only the process that a person
started writes, one line when a run is complete, so stopping it at any moment loses the runs in
flight and nothing else.

The key says what a number belongs to: part, method, class, seed, data set and network by name, and
three digests.  `shared` is of what all models of a baseline have in common: the fields of its
configuration, of the judges' and of what is measured, and the version of the training recipe.
`own` is of the fields that the method reads and of the versions of the recipes that it uses.
`code` is of the method's function and of what it calls in its own module; code elsewhere in the
package counts by the versions of the recipes.  So a number that was computed by other settings or
by another method is never taken for today's.
"""

import ast
import hashlib
import inspect
import json
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

from filelock import FileLock

KEY = ("part", "method", "class", "seed", "dataset", "arch", "shared", "own", "code")

Record = dict[str, Any]  # a line of the journal


def digest(values: Any) -> str:
    """Eight hexadecimal digits of values that JSON can hold; equal values, equal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


@cache
def code_of(function: Callable[..., Any]) -> str:
    """Eight hexadecimal digits of a function's code, its docstring left out.

    The syntax tree counts, and so do the constants that JSON can hold and the functions of the same
    module that it names, and theirs; of a function that has no source (typed at a prompt) its
    bytecode.  Of a `partial` its options count, too.
    """
    parts: dict[str, Any] = {}
    visited = set[Any]()

    def visit(function: Any, name: str) -> None:
        visited.add(function)
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, SyntaxError):
            parts[name] = _bytecode(function.__code__)
            return
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                node.body = node.body[1:]
        parts[name] = _shape(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Name) or node.id in parts:
                continue
            named = function.__globals__.get(node.id)
            if isinstance(named, (int, float)):
                parts[node.id] = named
            elif isinstance(named, (str, tuple, list, dict)) and _is_json(named):
                parts[node.id] = repr(named)
            elif not inspect.isfunction(named) or named in visited:
                continue
            elif named.__module__ == function.__module__:
                visit(named, node.id if named.__name__ == "<lambda>" else named.__qualname__)

    options: list[str] = []
    while isinstance(function, partial):
        options.append(repr((function.args, sorted(function.keywords.items()))))
        function = function.func
    visit(function, function.__qualname__)
    return digest([parts, options])


def _is_json(value: Any) -> bool:
    """Whether JSON can hold it: what holds functions, say, is printed otherwise in each process."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _shape(node: Any) -> Any:
    """A syntax tree as lists and texts.

    What is empty is left out, so that every release of Python gives the same: later ones have
    fields that earlier ones lack.
    """
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
        return [type(node).__name__, {name: _shape(value) for name, value in fields.items()}]
    if isinstance(node, list):
        return [_shape(entry) for entry in node]
    return repr(node)


def _bytecode(code: CodeType) -> Any:
    """Instructions, names and constants."""
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


def key_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What identifies a line."""
    return tuple(record[name] for name in KEY)


def lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the content of every line, without those that a stopped command left torn.

    A last line that is whole counts though its end, which `append` adds, is missing.
    """
    raw = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(raw, 1):
        try:
            yield number, json.loads(line)
        except ValueError:  # torn: the next command began a new line after it; or empty
            continue


def torn(path: Path, whole: int) -> int:
    """How many lines are no JSON, so that `lines` passes over them; whole: how many it found."""
    raw = path.read_bytes().split(b"\n") if path.is_file() else []
    return sum(map(bool, raw)) - whole


def read(path: Path) -> list[Record]:
    """The newest line of every run: its key, `values` or an `error`, and what the machine did.

    A line that a stopped command left torn does not count (`torn` counts them), and a failure hides
    no success; without a file there is no line.

    Raises:
        ValueError: For a line of JSON that is no run, naming file and line.
    """
    found: dict[tuple[Any, ...], Record] = {}
    for number, record in lines(path):
        try:
            key = key_of(record)
            succeeded = bool(record.get("values", {}).keys())
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number}: {str(record)[:40]} is no run ({error!r}); take the file "
                "from the repository again, or remove the line to have that run done once more"
            ) from error
        if succeeded or not found.get(key, {}).get("values"):
            found[key] = record
    return list(found.values())


def of_models(path: Path, models: Iterable[Any]) -> dict[Any, Record]:
    """The lines of those models, each with a `key`, that were measured by today's settings."""
    known = {key_of(record): record for record in read(path) if "values" in record}
    keys = {model: key_of(model.key) for model in models}
    return {model: known[key] for model, key in keys.items() if key in known}


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line and have it on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        with path.open("a", encoding="utf-8", newline="") as stream:
            stream.write("\n" * torn + as_line(record))
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """A context in which no other process writes the journal; who comes second waits."""
    with FileLock(f"{path}.lock") as lock:
        try:
            yield
        finally:
            with suppress(OSError):  # some systems cannot remove an open file
                os.unlink(lock.lock_file)


def as_line(record: Mapping[str, Any]) -> str:
    """A record as a line of the journal."""
    return json.dumps(record, separators=(",", ":")) + "\n"


def as_text(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as the text of a journal."""
    return "".join(map(as_line, records))
