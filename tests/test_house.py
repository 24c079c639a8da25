"""The house stays in order: who imports whom, one address, nothing that does not belong."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from sahelpers.config import CHECKOUT

PACKAGE = CHECKOUT / "sahelpers"
FILES = sorted(PACKAGE.rglob("*.py"))
SHELVES = {"store", "study", "live"}
MAY = {"core": {"core", "store"}, "store": {"store"}, "study": {"study", "core", "store"},
       "live": {"live", "core", "store"}}  # fmt: skip
GROUND = {"checks", "config", "progress"}  # of the core, for everybody


def place(path):
    """The shelf of a file or module path within the package; `core` without one."""
    return path[0] if path and path[0] in SHELVES else "core"


def imported(path):
    """Paths of the package's modules that a file imports."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*here[: len(here) + 1 - node.level], *(node.module or "").split("."))
            yield from [tuple(filter(None, (*base, a.name))) for a in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_shelves_stand_on_the_core_and_beside_each_other(path):
    if path.name == "__main__.py":
        return  # the command line may call everything
    shelf = place(path.relative_to(PACKAGE).parts)
    for target in imported(path):
        assert place(target) in MAY[shelf] or target[0] in GROUND, f"{path.name} <- {target}"


def test_only_the_dashboards_know_widgets_and_only_they_load_them():
    for path in FILES:
        if "live" not in path.parts:
            assert "ipywidgets" not in path.read_text(encoding="utf-8"), path
    code = "import sys, sahelpers as sa; print(*(n for n in sys.modules if 'sahelpers.' in n))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sahelpers.story" in done.stdout.split()
    assert not re.search(r"sahelpers\.(study|live)", done.stdout)


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
    import sahelpers as sa

    assert sorted(sa.__all__) == sorted(set(sa.__all__))
    assert all(hasattr(sa, name) for name in (*sa.__all__, "study", "live"))
