"""The committed notebooks: one clean run each, in step with their twins, fit to be read."""

import json
import re
import sys
from functools import reduce
from types import ModuleType

import jupytext
import nbformat
import pytest
from jupytext.config import load_jupytext_config

import sahelpers as sa
from sahelpers.config import CHECKOUT

ADDRESS = "https://github.com/OWNER/selective-amnesia-mnist"
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [c for c in read(path).cells if c.cell_type == "code"]


def twin_cells(path):
    """The sources of the twin's code cells."""
    cells = jupytext.read(path.with_suffix(".py")).cells
    return [c.source for c in cells if c.cell_type == "code"]


def test_the_story_is_complete():
    names = [p.stem for p in NOTEBOOKS]
    assert names[:4] == ["01_baseline", "02_fisher", "03_amnesia", "04_probing"]
    assert [p.stem for p in sorted((CHECKOUT / "notebooks").glob("*.py"))] == names


@each
def test_one_clean_run(path):
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [o for c in cells for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]


@each
def test_in_step_with_its_twin(path):
    twin = path.with_suffix(".py")
    config = load_jupytext_config(str(twin))
    assert jupytext.writes(read(path), "py:percent", config=config) == twin.read_text()


@each
def test_only_known_tags(path):
    for cell in read(path).cells:
        assert set(cell.metadata.get("tags", [])) <= TAGS


@each
def test_fit_to_be_read(path):
    notebook, cells = read(path), code_cells(path)
    assert path.stat().st_size < 1_000_000
    assert 15 <= len(cells) <= 36
    assert max(len(c.source.splitlines()) for c in cells) <= 30
    assert sum(len(c.source.splitlines()) for c in cells) <= 420
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    assert 700 <= words <= 2400
    assert any("image/png" in o.get("data", {}) for c in cells for o in c.outputs)
    assert notebook.cells[-1].cell_type == "markdown"
    assert "<details>" in notebook.cells[-1].source


@each
def test_nothing_of_one_machine(path):
    text = json.dumps([[c.source, c.get("outputs", [])] for c in read(path).cells])
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert not re.search(r"\b(!pip|%pip|%matplotlib|import \*)", text)
    assert "widgets" not in read(path).metadata


def test_the_same_setup_cell_in_all():
    assert len({twin_cells(path)[0] for path in NOTEBOOKS}) == 1


def test_a_clone_that_fails_says_from_where_and_what_to_do(tmp_path, monkeypatch):
    """Git finds nothing at the address."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{(tmp_path / 'nothing').as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", ADDRESS)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    setup = twin_cells(NOTEBOOKS[0])[0]
    with pytest.raises(RuntimeError, match=rf"{ADDRESS} .*set address.*run this cell again"):
        exec(setup, {})
    assert sys.path == before


@each
def test_only_public_names_and_what_a_module_holds(path):
    code = "\n".join(twin_cells(path))
    for name in set(re.findall(r"\bsa\.([\w.]+)", code)):
        first, *rest = name.split(".")
        value = getattr(sa, first)
        assert first in sa.__all__ or isinstance(value, ModuleType), name
        if isinstance(value, ModuleType):  # and what it names exists there
            reduce(getattr, rest, value)


@each
def test_each_knob_is_written_once(path):
    """A capital of the story's call is no other name of the notebook."""
    code = "\n".join(twin_cells(path))
    knobs = re.findall(r"^    ([A-Z_]+)=", code, re.MULTILINE)
    assert len(knobs) == len(set(knobs))
    typed = re.findall(r"^([A-Z_]+) =", code, re.MULTILINE)
    assert set(typed) & set(knobs) <= {"SEED"}


@each
def test_its_badge_opens_itself(path):
    assert f"/blob/main/notebooks/{path.name}" in read(path).cells[0].source
