"""Change one thing in a module at a time and ask its tests: do they notice?

python tests/mutants.py [--limit N] [--again] [module ...]

Tries what results/mutants.json has no answer for yet (--again: the survivors once more) and prints
the figures.  Each module's sample is drawn with a fixed seed from every change that is possible.
The work is done in a temporary copy of the repository, and each mutant is a fork of a process that
has imported torch already.  (mutmut leaves class bodies alone, which is where the knobs are, and
cosmic-ray starts Python anew each time.)
"""

import argparse
import ast
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "mutants.json"
MODULES = ("fisher", "penalties", "amnesia", "config", "story", "store/files")
SAMPLE = 50  # mutants of each module
PATIENCE = 300  # seconds; a mutant that hangs has been noticed
SHARED = "torchvision skimage.restoration matplotlib.pyplot hypothesis pytest"
SLOW = "forgotten_twice or turns_into or narrow_the_spread or random_networks or failed_write"
OPTIONS = ("-x", "-q", "-pno:cacheprovider", "-k", f"not ({SLOW})")
OPTIONS += ("-Wignore::pytest.PytestAssertRewriteWarning",)
SWAPS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, Add Sub, Mult Div, And Or, Pow Mult"
OTHER = {}
for pair in SWAPS.split(", "):
    a, b = (getattr(ast, name) for name in pair.split())
    OTHER |= {a: b, b: OTHER.get(b, a)}


def changes(node):
    """What can be changed at this node: (words, object, attribute or place in it, new value)."""
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(node.op) in OTHER:
            new = OTHER[type(node.op)]
            yield f"{type(node.op).__name__} -> {new.__name__}", node, "op", new()
        case ast.Compare():
            for k, op in enumerate(node.ops):
                new = OTHER[type(op)]
                yield f"{type(op).__name__} -> {new.__name__}", node.ops, k, new()
        case ast.If() | ast.IfExp() | ast.While():
            yield "condition negated", node, "test", ast.UnaryOp(ast.Not(), node.test)
        case ast.Constant(bool() as value):
            yield f"{value} -> {not value}", node, "value", not value
        case ast.Constant(int() | float() as value):
            new = value + 1 if isinstance(value, int) else 2 * value or 1.0
            yield f"{value} -> {new}", node, "value", new
        case ast.Constant(str() as word) if re.fullmatch(r"\w+", word):  # a name, no sentence
            yield f"{word!r} -> 'x'", node, "value", "x"
        case ast.Return() if node.value is not None:
            yield "returns None", node, "value", ast.Constant(None)
        case ast.Call():
            for k, word in enumerate(node.keywords):
                if word.arg not in (None, "help"):
                    others = node.keywords[:k] + node.keywords[k + 1 :]
                    yield f"without {word.arg}=", node, "keywords", others
    for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
        for k, line in enumerate(block if isinstance(block, list) else []):
            call = isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)
            if call or isinstance(line, (ast.Raise, ast.AugAssign, ast.Break, ast.Continue)):
                yield f"without `{ast.unparse(line)[:60]}`", block, k, ast.Pass()


def sites(node):
    """(line, change) for every change below a node, annotations and docstrings left alone."""
    for change in changes(node):
        place = change[1][change[2]] if isinstance(change[1], list) else node
        yield getattr(place, "lineno", getattr(node, "lineno", 0)), change
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not text and field not in ("annotation", "returns"):
                yield from sites(child)


def mutant(source, number):
    """The source with one of the changes made."""
    tree = ast.parse(source)
    _, (_, owner, place, new) = list(sites(tree))[number]
    owner.__setitem__(place, new) if isinstance(owner, list) else setattr(owner, place, new)
    return ast.unparse(ast.fix_missing_locations(tree))


def verdict(module):
    """Run the module's tests in a fork of this process: killed, survived or timeout."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open("run.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
            os.dup2(1, 2)
            signal.alarm(PATIENCE)
            tests = f"tests/test_{module.split('/')[0]}.py"  # a shelf has one file
            os._exit(int(sys.modules["pytest"].main([*OPTIONS, tests])))
        finally:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return "timeout" if late else "killed" if status else "survived"


def known():
    """Module -> what is known about it; read anew each time, other modules may be tried beside."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def attempt(module, again, limit):
    """Try at most `limit` mutants of a module; returns how many were tried."""
    path = Path("sahelpers") / f"{module}.py"
    source = path.read_text()
    found = [f"line {line}: {change[0]}" for line, change in sites(ast.parse(source))]
    drawn = sorted(random.Random(0).sample(range(len(found)), min(SAMPLE, len(found))))
    digest = hashlib.sha256(source.encode()).hexdigest()
    record = known().get(module, {})
    if record.get("source") != digest:
        record = {"source": digest, "possible": len(found), "mutants": {}}
    done = record["mutants"]
    left = [k for k in map(str, drawn) if k not in done or (again and done[k][1] == "survived")]
    if left[:limit] and verdict(module) != "survived":
        sys.exit(f"{module} fails its tests as it is:\n{Path('run.log').read_text()[-2000:]}")
    for k in left[:limit]:
        path.write_text(mutant(source, int(k)))
        done[k] = [found[int(k)], verdict(module)]
        RESULTS.write_text(json.dumps(known() | {module: record}, indent=1) + "\n")
        print(module, *done[k], flush=True)
    path.write_text(source)
    return len(left[:limit])


def main():
    """Read the command line, copy the repository, try, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, default=10_000, help="mutants to try now, at most")
    parser.add_argument("--again", action="store_true", help="try the survivors once more")
    parser.add_argument("modules", nargs="*", default=MODULES)
    options = parser.parse_args()
    for name in SHARED.split():
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("sahelpers", "study", "tools", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part))
        for part in ("README.md", "conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / part, folder)
        # with study and pyproject.toml above, notebooks make it a checkout (config.IN_CHECKOUT)
        for part in ("data", "docs", "notebooks"):
            Path(folder, part).symlink_to(ROOT / part)
        os.environ |= {"PYTHONPATH": folder, "SA_CHECKPOINTS": folder, "SA_PROGRESS": "0"}
        os.environ["SA_SEQUENCES"] = "3"
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        os.chdir(folder)
        for module in options.modules:
            options.limit -= attempt(module, options.again, max(0, options.limit))
        os.chdir(ROOT)
    for module, record in known().items():
        source = (ROOT / "sahelpers" / f"{module}.py").read_text()
        if record["source"] != hashlib.sha256(source.encode()).hexdigest():
            print(f"{module}: not measured on today's file")
            continue
        alive = [words for words, how in record["mutants"].values() if how == "survived"]
        n = len(record["mutants"])
        print(f"{module}: {n - len(alive)} of {n} killed; alive:", *alive, sep="\n  ")


if __name__ == "__main__":
    main()
