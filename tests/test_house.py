"""The house stays in order: who imports whom, one address, nothing that does not belong."""

import ast
import re
import subprocess
import tomllib

import pytest

from sahelpers.data import CHECKOUT

PACKAGE = CHECKOUT / "sahelpers"
# From the bottom up: a module may import only modules of earlier lines.
LAYERS = [
    ["checks"],
    ["config", "progress", "excess", "backends"],
    ["models", "penalties", "gradients"],
    ["judges", "data", "elbo", "surrogates", "archive"],
    ["checkpoints"],
    ["resume"],
    ["training", "fisher", "evaluation", "denoising"],
    ["objective", "probing"],
    ["amnesia", "recovery"],
    ["competitors", "traces"],
    ["story", "plots", "audit"],
    ["plots_probing", "results", "measures"],
    ["cells"],
    ["table", "audit_grid"],
    ["scoreboard"],
    ["controllers"],
    ["widgets", "__main__"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules():
    """Module name -> file, a sub-package under its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            found[path] = parts[0]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    name = modules()[path]
    assert name in RANK, f"{name} has no place in LAYERS"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            target = (node.module or "").split(".")[0]
            targets = [target] if target else [alias.name for alias in node.names]
            for other in targets:
                if other in RANK and other != name:
                    assert RANK[other] < RANK[name] or name == "__main__", f"{name} <- {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_readable_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 330


def test_only_widgets_know_widgets():
    for path, name in modules().items():
        if name != "widgets":
            assert "ipywidgets" not in path.read_text(), path


def tracked():
    """Text files under version control."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    paths = [CHECKOUT / line for line in listed.stdout.splitlines()]
    return [
        p for p in paths if p.suffix in {".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".cff"}
    ]


def test_one_address_everywhere():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    name = address.removeprefix("https://github.com/")
    for path in tracked():
        for found in re.findall(
            r"github(?:\.com|/colab)?[/\w.]*?/([\w.-]+/selective-amnesia-mnist)", path.read_text()
        ):
            assert found == name, path


def test_requirements_have_lower_bounds_and_a_reason():
    for line in (CHECKOUT / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[\w-]+>=[\d.]+ +# .+", line), line


def test_every_public_name_is_there():
    import sahelpers as sa

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    assert len(names) == len(set(names))
    assert all(hasattr(sa, name) for name in names)
