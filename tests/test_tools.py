"""The scripts behind the Makefile, on a story of one small notebook."""

import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future

import nbformat
import pytest

import sahelpers as sa
from sahelpers.config import CHECKOUT
from tools import address, models, notebooks, run

TOML = "pyproject.toml"
TWIN = """# %% [markdown]
# # A story

# %%
x = 6
print(x * 7)
"""


@pytest.fixture
def twins(tmp_path, monkeypatch):
    """A folder of its own for notebooks, and one for the report."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(CHECKOUT / "notebooks" / "jupytext.toml", folder)
    (folder / "01_story.py").write_text(TWIN)
    for module in (notebooks, run):
        monkeypatch.setattr(module, "NOTEBOOKS", folder)
    monkeypatch.setattr(run, "CHECKOUT", tmp_path)
    monkeypatch.setattr(run, "REPORT", tmp_path / "results" / "run")
    monkeypatch.setattr(run, "STORY", ("01_story",))
    monkeypatch.setenv("SA_PROGRESS", "0")  # the commands set it, too
    return folder


def call(monkeypatch, script, *words):
    """What `python tools/script.py words` does."""
    monkeypatch.setattr(sys, "argv", [f"tools/{script.__name__}.py", *words])
    script.main()


def test_notebooks_are_executed_and_written(twins, monkeypatch, capsys):
    (twins / "02_other.py").write_text("# %%\nraise SystemError('not asked for')\n")
    call(monkeypatch, notebooks, "01_story")
    written = nbformat.read(twins / "01_story.ipynb", as_version=4)
    assert written.cells[1].outputs[0].text == "42\n"
    assert [c.id for c in written.cells] == ["cell-00", "cell-01"]
    assert capsys.readouterr().out.startswith("01_story.ipynb: executed")
    assert not (twins / "02_other.ipynb").exists()


def test_an_unknown_notebook_is_named_before_any_is_executed(twins, monkeypatch):
    with pytest.raises(SystemExit, match="no notebook is called '01'; there are 01_story"):
        call(monkeypatch, notebooks, "01_story", "01")
    assert not (twins / "01_story.ipynb").exists()


def test_a_failing_notebook_keeps_the_old_page(twins, monkeypatch):
    (twins / "01_story.ipynb").write_text("old")
    (twins / "01_story.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        call(monkeypatch, notebooks)
    assert (twins / "01_story.ipynb").read_text() == "old"


DRAWING = """# %%
import matplotlib.pyplot as plt

# %%
plt.plot([1, 2])
plt.show()
"""


def test_a_notebook_draws_into_its_page_whatever_the_shell_asks_for(twins, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    (twins / "01_story.py").write_text(DRAWING)
    call(monkeypatch, notebooks)
    written = nbformat.read(twins / "01_story.ipynb", as_version=4)
    assert "image/png" in written.cells[1].outputs[-1].data


def test_a_notebook_that_draws_without_a_picture_is_an_error(twins, monkeypatch):
    (twins / "01_story.py").write_text(
        DRAWING.replace("import m", 'import matplotlib\nmatplotlib.use("agg")\nimport m', 1)
    )
    with pytest.raises(RuntimeError, match=r"01_story\.py draws, but no picture came out of it"):
        call(monkeypatch, notebooks)
    assert not (twins / "01_story.ipynb").exists()


def test_ctrl_c_ends_an_execution_plainly(twins, monkeypatch):
    started = twins / "started"
    (twins / "01_story.py").write_text(
        "# %%\nimport pathlib, time\npathlib.Path('started').touch()\ntime.sleep(300)\n"
    )

    def press():
        for _ in range(1200):
            if started.exists():
                return os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.1)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call(monkeypatch, notebooks)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gc.collect()  # while asyncio is silent
        logging.getLogger("asyncio").disabled = False
    assert not (twins / "01_story.ipynb").exists()


@pytest.fixture
def small(tmp_path, monkeypatch, mnist):
    """Defaults that take seconds."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    few = mnist.take(300)
    story = sa.Story(
        (few, few),
        baseline=sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3),
        fisher=sa.FisherConfig(n_fisher_samples=50),
        amnesia=sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2),
        judge=sa.JudgeConfig(epochs=1, batch_size=100),
    )
    monkeypatch.setattr(sa, "Story", lambda: story)
    shares = {"baseline": {"blind": 0.75}, "forgotten": {"blind": 0.0}}
    monkeypatch.setattr(run, "probe", lambda *a: shares)
    measure = run.measure
    monkeypatch.setattr(run, "measure", lambda c, folder: measure(c, folder, n=10))


def test_run_leaves_a_report_and_does_nothing_twice(twins, small, monkeypatch, capsys):
    run.run()
    first, folder = capsys.readouterr().out, twins.parent / "results" / "run"
    assert "01_story.html written" in first
    assert sorted(p.name for p in folder.iterdir()) == [
        "01_story.html",
        "before_after.png",
        "summary.json",
    ]
    assert "42" in (folder / "01_story.html").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["forget_class"], summary["n"]) == (3, 10)
    open_judge = summary["judges"]["open_set"]
    assert len(open_judge["p_before"]) == len(open_judge["p_after"]) == 10
    row = next(line for line in first.splitlines() if line.strip().startswith("3*"))
    assert f"{open_judge['p_before'][3]:.3f}" in row
    assert f"{open_judge['p_after'][3]:.3f}" in row

    def fail(*arguments):
        raise AssertionError("measured again")

    measure = run.measure
    monkeypatch.setattr(run, "measure", fail)
    run.run()
    assert capsys.readouterr().out.startswith(first.partition("01_story.html")[0])
    run.run()
    assert "01_story.html is up to date" in capsys.readouterr().out
    for harmed in ("summary.json", "before_after.png"):
        (folder / harmed).unlink()
        with pytest.raises(AssertionError, match="measured again"):
            run.run()
    monkeypatch.setattr(run, "measure", measure)
    (twins / "01_story.py").write_text(TWIN.replace("6", "5"))
    run.run()
    assert "01_story.html written" in capsys.readouterr().out
    assert "35" in (folder / "01_story.html").read_text()


class Here:
    """A pool whose work is done at once, in this process."""

    def __init__(self, jobs, context, initializer, initargs):
        assert 1 <= jobs <= len(models.NEEDS_NONE)
        assert context.get_start_method() == "spawn"
        assert initargs == (1,)  # thread

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except OSError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def nothing_shipped(small, tmp_path, monkeypatch):
    """No models in the box, and trainings in this process."""
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(models.files, "SHIPPED", shipped)
    monkeypatch.setenv("SA_SHIPPED", str(shipped))
    monkeypatch.setattr(models, "ProcessPoolExecutor", Here)
    return shipped


def test_the_models_that_ship_are_made_from_nothing(nothing_shipped, monkeypatch, capsys):
    nothing_shipped.mkdir()
    (nothing_shipped / "vae_masked_3-0fearlier.pt").touch()  # of another recipe
    models.write_models()
    assert not (nothing_shipped / "vae_masked_3-0fearlier.pt").exists()
    found = sorted(path.name.partition("-")[0] for path in nothing_shipped.iterdir())
    judges = [f"judge_{role}" for role in ("closed_set", "guide", "open_set")]
    made = ["vae_baseline", "vae_forget_3", "vae_masked_3", "vae_without_3"]
    assert found == [*judges, *made]
    told = re.findall(r"(?m)^(\w+): \d+ s$", capsys.readouterr().out)
    assert sorted(told) == sorted(models.NEEDS_NONE)


@pytest.mark.full
def test_a_run_without_models_in_the_box_trains_them_first(
    twins, nothing_shipped, monkeypatch, capsys
):
    run.run()
    _, *lines = capsys.readouterr().out.splitlines()
    first = [line.partition(":")[0] for line in lines[: len(models.NEEDS_NONE)]]
    assert sorted(first) == sorted(models.NEEDS_NONE)
    assert not nothing_shipped.exists()


def test_a_training_that_fails_ends_the_command(nothing_shipped, monkeypatch):
    def fail(name):
        raise OSError(f"no space left for {name}")

    monkeypatch.setattr(models, "train", fail)
    with pytest.raises(OSError, match="no space left"):
        models.write_models()
    assert not list(nothing_shipped.iterdir())


@pytest.mark.parametrize("name", ["OWNER/forget", "alice/forget"])
def test_a_page_needs_no_network(name):
    notebook = nbformat.v4.new_notebook()
    badge = address.with_badges(
        "[Colab](../README.md#set-your-address)", name, CHECKOUT / "nb" / "01.py"
    )
    text = f"{badge}\n\nThe loss $a_i * b_i * c_i$ costs `$5`.\n\n$$\\sum_i F_i\\theta_i^2$$\n"
    notebook.cells = [nbformat.v4.new_markdown_cell(text)]
    page = run.page(notebook)
    assert page.count("<math") == 2
    assert page.count('display="block"') == 1
    assert "<em>" not in page
    assert "<code>$5</code>" in page
    assert "Colab" not in page  # and no badge, which would lead nowhere from there
    assert not re.search(r'(src|href)="https?:', page)


def test_probes_score_every_model_with_every_judge(tiny, scoring, monkeypatch):
    quick = sa.ProbeConfig(n_restarts=4, steps=2)
    kind = type("Quick", (), {"__new__": lambda *a, **k: quick, "prototype": lambda **k: quick})
    monkeypatch.setattr(sa, "ProbeConfig", kind)
    found = run.probe({"baseline": tiny, "forgotten": tiny}, scoring, 3)
    assert found["baseline"] == found["forgotten"]
    assert set(found["baseline"]) == {"prototype", "blind"}
    assert all(0 <= share <= 1 for share in found["baseline"].values())


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The pages that hold the address, in a folder of their own."""
    shutil.copytree(CHECKOUT / "notebooks", tmp_path / "notebooks")
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    monkeypatch.setattr(address, "CHECKOUT", tmp_path)
    monkeypatch.setattr(address, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


def pages(folder):
    return {p: p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.*")) if p.is_file()}


OPEN = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
FIRST = "[Colab]"


def test_one_command_sets_the_address_everywhere(copied, monkeypatch):
    (old,) = re.findall(r'hub.com/(.+)"', pages(copied)[copied / TOML])
    call(monkeypatch, address, "alice/forget.it")
    after = pages(copied)
    colab = "(https://colab.research.google.com/github/alice/forget.it/blob/main/notebooks/"
    for path, text in after.items():
        assert old not in text
        assert FIRST not in text
        if path.suffix in (".ipynb", ".toml", ".cff") and path.name != "jupytext.toml":
            assert "github.com/alice/forget.it" in text
        if path.suffix in (".ipynb", ".py"):
            assert text.count("[![") == text.count(f"{OPEN}{colab}{path.stem}.ipynb)") == 1
    rows = [row for row in after[copied / "README.md"].splitlines() if OPEN in row]
    assert len(rows) == len(list(copied.glob("notebooks/*.ipynb")))
    for row in rows:
        (name,) = re.findall(r"^\| \[(\w+)\]", row)
        assert row.endswith(f"| {OPEN}{colab}{name}.ipynb) |")
    call(monkeypatch, address, "alice/forget.it-2")  # begins with the one before
    for path, text in pages(copied).items():
        assert text == after[path].replace("/alice/forget.it", "/alice/forget.it-2")
    call(monkeypatch, address, "alice/forget.it")
    assert pages(copied) == after


def test_what_else_lies_beside_the_notebooks_is_left_alone(copied, monkeypatch):
    (address.NOTEBOOKS / ".ipynb_checkpoints").mkdir()  # as JupyterLab leaves it
    picture = address.NOTEBOOKS / "forgotten_3.png"
    picture.write_bytes(b"\x89PNG")
    call(monkeypatch, address, "alice/forget.it")
    assert "github.com/alice/forget.it" in (copied / TOML).read_text(encoding="utf-8")
    assert picture.read_bytes() == b"\x89PNG"


def test_without_an_address_badges_lead_to_the_words_that_say_how_to_set_it(copied, monkeypatch):
    before, (old,) = pages(copied), re.findall(r'hub.com/(.+)"', pages(copied)[copied / TOML])
    call(monkeypatch, address, "OWNER/selective-amnesia-mnist")
    unset = pages(copied)
    readme = unset[copied / "README.md"]
    _, _, section = readme.partition("\n## Set your address\n")
    assert "`python tools/address.py NAME/REPOSITORY`" in section.partition("\n## ")[0]
    for path, text in unset.items():
        assert "colab.research" not in text
        if path.suffix in (".ipynb", ".py"):
            assert text.count(f"{FIRST}(../README.md#set-your-address)") == 1
    assert readme.count(f"{FIRST}(#set-your-address)") == len(list(copied.glob("notebooks/*.py")))
    call(monkeypatch, address, old)
    assert pages(copied) == before


@pytest.mark.parametrize(
    "name",
    ["alice", "alice/", "a/b/c", "a b/c", "a-/b", "a/..", "a/b.git", "https://github.com/a/b"],
)
def test_a_malformed_address_is_refused_and_nothing_is_written(copied, monkeypatch, name):
    before = pages(copied)
    with pytest.raises(SystemExit, match="is no address: give NAME/REPOSITORY"):
        call(monkeypatch, address, f"{name}")
    assert pages(copied) == before


def test_a_script_starts_from_any_folder(tmp_path):
    """Only its own folder is on the path then; the rest is found as it is installed."""
    command = [sys.executable, CHECKOUT / "tools" / "address.py", "alice"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("'alice' is no address: give NAME/REPOSITORY")
