"""The committed notebooks: one clean run each, in step with their twins, fit to be read."""

import json
import re

import jupytext
import nbformat
import pytest
from jupytext.config import load_jupytext_config

from sahelpers.data import CHECKOUT

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [c for c in read(path).cells if c.cell_type == "code"]


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
    assert len({code_cells(path)[0].source for path in NOTEBOOKS}) == 1


@each
def test_its_badge_opens_itself(path):
    assert f"/blob/main/notebooks/{path.name}" in read(path).cells[0].source
