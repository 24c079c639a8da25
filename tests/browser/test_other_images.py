"""The dashboards on 26 classes and on pictures in colour, in JupyterLab and a real browser."""

import lab
import nbformat
import pytest
from test_dashboards import fits, press, rests, run_shortly, says, to

from sahelpers.config import CHECKOUT

CELL = """import sys

sys.path.append({checkout!r})

import sahelpers as sa
from sahelpers import live
from study.experiments import your_data

data = your_data.{images}.split()
few = sa.BaselineConfig(epochs=30, batch_size=50), sa.JudgeConfig(epochs=4, batch_size=50)
shortly = sa.AmnesiaConfig(epochs_unl=1, replay_samples=2560)
story = sa.Story(data, baseline=few[0], judge=few[1], amnesia=shortly)
models = dict(baseline=story.baseline.model, hidden=story.hidden({gone}))
live.Tabs(dict(
    Explore=lambda: live.LatentExplorer(models, 1, 2),
    Forget=lambda: live.AmnesiaDashboard(story, {gone}),
    Attack=lambda: live.ProbeDashboard(story, {gone}),
))
"""
SETS = {"letters": ("letters(your_data.ALPHABET, (28, 28), 20)", 6), "colours": ("shapes(60)", 2)}


@pytest.mark.parametrize("name", SETS)
def test_everything_fits_and_answers(name, browser, tmp_path, monkeypatch, shot):
    images, gone = SETS[name]
    code = CELL.format(checkout=str(CHECKOUT), images=images, gone=gone)
    (tmp_path / "lab").mkdir()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code)], metadata={"kernelspec": kernel}
    )
    nbformat.write(notebook, tmp_path / "lab" / "other.ipynb")
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    with lab.server(tmp_path / "lab", tmp_path / "settings") as address:
        page = lab.new_page(browser)
        lab.open_notebook(page, address, "other.ipynb")
        lab.run_all(page, 1)
        walk = lab.open_tab(page, "Explore")
        press(walk, "Draw z")
        fits(page, walk, shot, f"{name}-explore")
        board = lab.open_tab(page, "Forget")
        run_shortly(board)
        says(board, "is in the table")
        rests(board)
        fits(page, board, shot, f"{name}-forget")
        attack = lab.open_tab(page, "Attack")
        to(attack, "STEPS", "Home", "10")
        press(attack, "Attack")
        says(attack, "Done.")
        fits(page, attack, shot, f"{name}-attack")
        assert page.problems == []
        page.close()
