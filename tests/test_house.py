"""The house stays in order: who imports whom, one address, nothing that does not belong."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

import sahelpers as sa
from sahelpers.config import CHECKOUT

PACKAGE = CHECKOUT / "sahelpers"


def imported(path):
    """Full names of all that a file imports, at its top or in a function."""
    package = path.relative_to(CHECKOUT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join(filter(None, (*base, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_shelves_stand_on_the_core_and_beside_each_other():
    for path in PACKAGE.rglob("*.py"):
        shelf = path.relative_to(PACKAGE).parts[0]  # of the core the file itself
        closed = ["study", "tools", "benchmarks", "importlib"]
        if shelf != "live":
            closed += ["sahelpers.live", "ipywidgets"]
        if shelf not in ("live", "attacks", "__init__.py"):
            closed += ["sahelpers.attacks"]
        names = set(imported(path))
        assert not [n for n in names for c in closed if f"{n}.".startswith(f"{c}.")], path
        if shelf == "store":
            ground = r"sahelpers\.(store|checks|config|progress)\b"
            assert not [n for n in names if "sahelpers" in n and not re.match(ground, n)], path
        assert not re.search(r"sys\.path|__import__|modules\[", path.read_text(encoding="utf-8")), (
            path
        )


def test_the_package_loads_no_widgets_and_nothing_that_is_not_its_own():
    code = "import sys, sahelpers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"sahelpers.story", "sahelpers.attacks.audit"} <= loaded
    assert not loaded & {"ipywidgets", "sahelpers.live", "study", "tools", "joblib"}


def tracked():
    """Text files under version control."""
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("needs git and a clone: this is a downloaded archive")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    paths = [CHECKOUT / line for line in listed.stdout.splitlines()]
    kinds = {".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".cff"}
    return [p for p in paths if p.suffix in kinds and p.exists()]


def test_one_address_everywhere():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    name = address.removeprefix("https://github.com/")
    pattern = r"github(?:\.com|/colab)?[/\w.]*?/([\w.-]+/selective-amnesia-mnist)"
    for path in tracked():
        text = path.read_text(encoding="utf-8")
        for found in re.findall(pattern, text):
            assert found == name, path
        if path.parent.name == "notebooks" or path.name == "README.md":
            for found in re.findall(r"google\.com/github/([^/]+/[^/]+)/blob", text):
                assert found == name, path


def test_requirements_have_lower_bounds_and_a_reason():
    for line in (CHECKOUT / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[\w-]+>=[\d.]+ +# .+", line), line


def test_every_public_name_is_there():
    assert sorted(sa.__all__) == sorted(set(sa.__all__))
    assert all(hasattr(sa, name) for name in sa.__all__)
    assert not hasattr(sa, "study")


def test_the_merged_benchmarks_are_those_of_the_scripts():
    """`python benchmarks --gather` makes them so."""
    results = CHECKOUT / "results"
    merged = json.loads((results / "benchmarks.json").read_text(encoding="utf-8"))
    parts = (results / "benchmarks").glob("*.json")
    assert merged == {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in parts}
