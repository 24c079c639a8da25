"""Carry the journal's lines over to today's keys: `python -m study convert`.

Two things are carried over.  Lines of the format before 0.3, whose key was one fingerprint of names
and all fields: those that belong to the defaults of that release are given today's key, methods and
judges get today's names, and lines of earlier defaults or of attacks that are not run any more are
left out; they stand in the repository's history.  And lines whose method was only renamed or moved
since, so that the digest of its code changed: `--code METHOD` gives its lines today's digest.
Whoever does that has compared the bits of a model before and after.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sahelpers.attacks.audit import AuditConfig
from sahelpers.attacks.verdicts import CLAIM_ATTACKS, WITHOUT_VERDICT
from sahelpers.config import JudgeConfig
from sahelpers.store.files import replace_text

from . import journal, measures
from .experiments import published
from .grid import CONFIGS, shared_digest
from .journal import KEY, Record
from .measures import MeasureConfig
from .methods import ALONE, HIDDEN, METHODS, OURS, PAPER, REFERENCE, RETRAINED, as_method

METHOD_NAMES = {
    "selective amnesia": OURS,
    "without attacker": ALONE,
    "without EWC": "ours (without EWC)",
    "without replay": "ours (without replay)",
    "paper": PAPER,
    "paper, 1,000 steps": f"{PAPER}, 1,000 steps",
    "reference": REFERENCE,
    "reference, 3 passes": f"{REFERENCE}, 3 passes",
    "label column": HIDDEN,
    "retraining": RETRAINED,
}
# Of the release before: what its fingerprints stood for.  First what all models of a baseline
# shared, (part, network), then the configuration of forgetting.
SHARED = {
    "68c0b6e6": ("scoreboard", "mlp"),
    "ab3b9fff": ("claim", "mlp"),
    "1077658e": ("scoreboard", "conv"),
    "39f40eb9": ("claim", "conv"),
}
DEFAULT, CONV = "1459a67c", "5b9e63f8"  # AmnesiaConfig() and AmnesiaConfig.conv()


def converted(record: Record) -> Record | None:
    """A line of the old format under today's key; None for one that is not carried over."""
    shared, _, own = record["fingerprint"].partition("-")
    part, arch = SHARED.get(shared, ("", ""))
    method = METHOD_NAMES.get(record["method"], record["method"])
    if record["part"] != part or record["arch"] != arch or method not in METHODS:
        return None
    ours = method in (OURS, ALONE, "ours (without EWC)", "ours (without replay)")
    if own and own != (CONV if arch == "conv" and ours else DEFAULT):
        return None
    values = with_new_names(record.get("values", {}))
    baseline, amnesia = CONFIGS[arch]
    measured = AuditConfig() if part == "claim" else MeasureConfig()
    key: Record = {
        "part": part,
        "method": method,
        **{name: record[name] for name in ("class", "seed", "dataset", "arch")},
        "shared": shared_digest(baseline, JudgeConfig(), measured),
        **as_method(METHODS[method]).digests(amnesia),
    }
    names = ("cell_seconds", "version", "machine", "error")
    about: Record = {name: record[name] for name in names if name in record}
    if values:
        about = {"values": values, **about}
    return {**key, **about}


def with_new_names(values: Mapping[str, Any], more: Iterable[str] = ()) -> dict[str, Any]:
    """Those of the values that are still measured, and more of these names, as they are called."""
    known = {
        *CLAIM_ATTACKS,
        *WITHOUT_VERDICT,
        *measures.JUDGED,
        *measures.REAL,
        *measures.BOUNDS,
        *measures.COST,
    }
    judges = {"_open_": "_open_set_", "_plain_": "_closed_set_"}
    found = {}
    for name, value in values.items():
        for old, new in judges.items():
            name = name.replace(old, new)
        if name in known.union(more):
            found[name] = value
    return found


def with_todays_code(records: Iterable[Record], methods: Sequence[str]) -> list[Record]:
    """The lines, those of the methods with the digest of today's code."""
    found = []
    for record in records:
        method = RETRAINED if record["method"] == published.OFFICIAL else record["method"]
        if method in methods:
            code = as_method(METHODS[method]).digests(CONFIGS[record["arch"]][1])["code"]
            record = {**record, "code": code}
        found.append(record)
    return found


def converted_published(record: Record) -> Record:
    """A line of the release before's own journal of the published recipe's baseline."""
    names = {**METHOD_NAMES, "retraining by the official recipe": published.OFFICIAL}
    model = published.Model(record["digit"], names[record["method"]], record["seed"])
    found = with_new_names(record, ("held_out", "p", "entropy"))
    return {**model.key, "values": record["values"], "measures": found}


def convert(path: Path, methods: Sequence[str] = ()) -> str:
    """Carry a journal over, in one step; returns in words what was done."""
    apart = path.with_name("published.jsonl")
    before = [record for file in (path, apart) for _, record in journal.lines(file)]
    after = list[Record]()
    for record in before:
        if "fingerprint" in record:
            record = converted(record) or {}
        elif "digit" in record:
            record = converted_published(record)
        if record:
            after.append(record)
    after = with_todays_code(after, methods)
    assert all(name in record for record in after for name in KEY)
    replace_text(path, journal.as_text(after))
    apart.unlink(missing_ok=True)
    return f"{len(after)} of {len(before)} lines are kept in {path.name}"
