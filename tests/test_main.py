"""The commands behind the Makefile, on a story of one small notebook."""

import json
import shutil
import sys

import nbformat
import pytest

import sahelpers as sa
from sahelpers import __main__ as commands
from sahelpers.data import CHECKOUT

TWIN = """# %% [markdown]
# # A story

# %%
x = 6
print(x * 7)
"""


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder of its own for notebooks, and one for the report."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(CHECKOUT / "notebooks" / "jupytext.toml", folder)
    (folder / "01_story.py").write_text(TWIN)
    monkeypatch.setattr(commands, "NOTEBOOKS", folder)
    monkeypatch.setattr(commands, "CHECKOUT", tmp_path)
    monkeypatch.setattr(commands, "REPORT", tmp_path / "results" / "run")
    monkeypatch.setattr(commands, "STORY", ("01_story",))
    return folder


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["sahelpers", *words])
    commands.main()


def test_notebooks_are_executed_and_written(notebooks, monkeypatch, capsys):
    (notebooks / "02_other.py").write_text("# %%\nraise SystemError('not asked for')\n")
    call(monkeypatch, "notebooks", "01_story")
    written = nbformat.read(notebooks / "01_story.ipynb", as_version=4)
    assert written.cells[1].outputs[0].text == "42\n"
    assert [c.id for c in written.cells] == ["cell-00", "cell-01"]
    assert capsys.readouterr().out.startswith("01_story.ipynb: executed")
    assert not (notebooks / "02_other.ipynb").exists()


def test_an_unknown_notebook_is_named_before_any_is_executed(notebooks, monkeypatch):
    with pytest.raises(ValueError, match="no notebook is called '01'; there are 01_story"):
        call(monkeypatch, "notebooks", "01_story", "01")
    assert not (notebooks / "01_story.ipynb").exists()


def test_a_failing_notebook_keeps_the_old_page(notebooks, monkeypatch):
    (notebooks / "01_story.ipynb").write_text("old")
    (notebooks / "01_story.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        call(monkeypatch, "notebooks")
    assert (notebooks / "01_story.ipynb").read_text() == "old"


@pytest.fixture
def small(tmp_path, monkeypatch, mnist):
    """Defaults that take seconds."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    changes = {
        "BaselineConfig": {"epochs": 1, "batch_size": 50, "latent_dim": 3},
        "FisherConfig": {"n_fisher_samples": 50},
        "AmnesiaConfig": {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": 2},
        "JudgeConfig": {"epochs": 1, "batch_size": 100},
    }
    for name, change in changes.items():
        config = getattr(sa, name)(**change)
        monkeypatch.setattr(sa, name, lambda config=config: config)
    shares = {"baseline": {"blind": 0.75}, "forgotten": {"blind": 0.0}}
    monkeypatch.setattr(commands, "probe", lambda *a: shares)
    monkeypatch.setattr(sa, "load_dataset", lambda **k: mnist.take(300))
    report = commands.report
    monkeypatch.setattr(commands, "report", lambda forget_class: report(forget_class, n=10))


def test_run_leaves_a_report_and_does_nothing_twice(notebooks, small, monkeypatch, capsys):
    call(monkeypatch, "run")
    first, folder = capsys.readouterr().out, notebooks.parent / "results" / "run"
    assert "01_story.html written" in first
    assert sorted(p.name for p in folder.iterdir()) == [
        "01_story.html",
        "before_after.png",
        "summary.json",
    ]
    assert "42" in (folder / "01_story.html").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["forget_class"], summary["n"]) == (3, 10)
    open_judge = summary["judges"]["open"]
    assert len(open_judge["p_before"]) == len(open_judge["p_after"]) == 10
    row = next(line for line in first.splitlines() if line.strip().startswith("3*"))
    assert f"{open_judge['p_before'][3]:.3f}" in row
    assert f"{open_judge['p_after'][3]:.3f}" in row
    assert "blind 0.75" in first
    call(monkeypatch, "run")
    assert "01_story.html is up to date" in capsys.readouterr().out
    (notebooks / "01_story.py").write_text(TWIN.replace("6", "5"))
    call(monkeypatch, "run")
    assert "01_story.html written" in capsys.readouterr().out
    assert "35" in (folder / "01_story.html").read_text()


def test_probes_score_every_model_with_every_judge(tiny, scoring, monkeypatch):
    quick = sa.ProbeConfig(n_restarts=4, steps=2)
    kind = type("Quick", (), {"__new__": lambda *a, **k: quick, "prototype": lambda **k: quick})
    monkeypatch.setattr(sa, "ProbeConfig", kind)
    found = commands.probe({"baseline": tiny, "forgotten": tiny}, tiny, scoring, 3)
    assert found["baseline"] == found["forgotten"]
    assert set(found["baseline"]) == {"prototype", "blind"}
    assert all(0 <= share <= 1 for share in found["baseline"].values())


@pytest.mark.parametrize("grid", ["audit", "scoreboard"])
def test_the_grids_get_their_options(grid, monkeypatch):
    got = []
    monkeypatch.setattr(getattr(commands, grid.replace("audit", "audit_grid")), "run",
                        lambda *a: got.append(a))  # fmt: skip
    call(monkeypatch, grid, "--digits", "3", "7", "--seeds", "5")
    assert [3, 7] in got[0]
    assert [5] in got[0]


def test_a_command_is_needed(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch)
    assert "run" in capsys.readouterr().err
