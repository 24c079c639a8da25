"""The committed notebooks: one clean run each, in step with their twins, fit to be read."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from jupytext.config import load_jupytext_config

import sahelpers as sa
from sahelpers import live
from sahelpers.attacks.verdicts import VERDICTS
from sahelpers.config import CHECKOUT
from tools import diagrams
from tools.address import with_badges

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
CORE = ("01_baseline", "02_fisher", "03_amnesia", "04_probing")
CHAIN = (*CORE, "05_live", "06_your_images", "A1_fisher_in_depth", "A2_terms", "A3_probes",
         "A4_denoising", "A5_scoreboard")  # fmt: skip
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
    assert names[:4] == list(CORE)
    assert set(names) <= set(CHAIN)
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
    assert any("image/png" in o.get("data", {}) for c in cells for o in c.outputs)
    if path.stem == "05_live":
        return
    assert notebook.cells[-1].cell_type == "markdown"
    if path.stem not in CORE:
        return
    opening = notebook.cells[:6]  # title, set-up, parameters, and the result as a picture
    assert any("image/png" in o.get("data", {}) for c in opening for o in c.get("outputs", []))
    assert any("minutes" in c.source for c in opening if c.cell_type == "markdown")
    following = CHAIN[CHAIN.index(path.stem) + 1]
    assert f"({following}.ipynb)" in notebook.cells[-1].source


def test_the_chain_names_every_notebook():
    assert {p.stem for p in NOTEBOOKS} == set(CHAIN)


@each
def test_links_lead_to_files_that_are_there(path):
    prose = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", prose):
        if target.endswith(".ipynb") and "/" not in target:
            assert target.removesuffix(".ipynb") in CHAIN
        elif not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def test_every_diagram_is_drawn_by_the_script_and_those_shown_are_there():
    docs = CHECKOUT / "docs"
    script = (CHECKOUT / "tools" / "diagrams.py").read_text()
    drawn = set(re.findall(r'save\(ax, "(\w+)"', script))
    assert {p.stem.removeprefix("diagram_") for p in docs.glob("diagram_*.png")} == drawn
    code = "\n".join(source for path in NOTEBOOKS for source in twin_cells(path))
    assert set(re.findall(r"diagram_(\w+)\.png", code)) <= drawn


SOLUTION = "<details><summary>Solution</summary>"


def exercises_with_a_run(path):
    """The question, what is run after it, and the solution of every exercise."""
    question, between = None, []
    for cell in read(path).cells:
        is_prose = cell.cell_type == "markdown"
        if question is not None:
            if is_prose and SOLUTION in cell.source:
                yield question, between, cell.source.partition(SOLUTION)[2]
                question = None
            else:
                between.append(cell)
        if is_prose and "**Exercise " in cell.source:
            question, between = cell.source.rpartition("**Exercise ")[2], []


@pytest.mark.parametrize("name", CORE)
def test_exercises_are_predicted_and_then_run(name):
    """What the run says is folded under the question, and the solution says the same."""
    found = list(exercises_with_a_run(CHECKOUT / "notebooks" / f"{name}.ipynb"))
    assert len(found) == (4 if name == "04_probing" else 3)
    assert sum("Try to beat" in question for question, _, _ in found) == 1
    for question, between, solution in found:
        code = [cell for cell in between if cell.cell_type == "code"]
        assert "Predict first; then run the" in question
        assert any(cell.outputs for cell in code), question
        for cell in code:
            assert not cell.outputs or cell.metadata["jupyter"]["outputs_hidden"], cell.source
        said = "".join(o.text for c in code for o in c.outputs if o.output_type == "stream")
        assert not re.search("answer = None|not (answered|tried) yet", str(code))
        assert len(solution.split()) > 10
        if "Try to beat" not in question:
            (answer,) = re.findall("this run says: (.+)", said)
            if re.fullmatch(r"\(\w\)", answer):
                assert f"<br>{answer} " in question
                assert solution.strip().startswith(f"{answer}. ")


def test_the_key_of_the_quiz_is_not_shown_before_the_answer():
    """The letters are shuffled, so that neither code nor text says which model is which."""
    cells = read(CHECKOUT / "notebooks" / "04_probing.ipynb").cells
    (k,) = [k for k, cell in enumerate(cells) if "**Exercise 1.**" in cell.source]
    before = "".join(cell.source for cell in cells[: k + 1])
    assert "torch.randperm(len(models)" in before
    assert not re.search(r'"?\b[ABCD]\b"?(:| is | draws )', before)


def test_a_mark_means_the_same_in_legend_diagram_and_figure():
    """A verdict's mark is that of `excess_intervals`, and erased alone is an open one."""
    cell = cell_with("04_probing", "LOOKS =")
    parts = re.findall(r"^LOOKS \|?= (\{.+\})$", cell, re.MULTILINE)
    looks = {word: mark for part in parts for word, mark in ast.literal_eval(part).items()}
    drawn = {text.partition(":")[0]: marker for _, _, text, marker in diagrams.CASES}
    assert drawn == {word: looks[word] for word in VERDICTS if word != "inconclusive"}
    rows = json.loads((CHECKOUT / "results" / "audit.json").read_text())["findings"]
    known = {name: rows[0][name] for name in sa.Finding.__dataclass_fields__}
    for verdict in VERDICTS:
        ax = sa.excess_intervals({"row": sa.Finding(**known | {"verdict": verdict})})
        _, mark, gap, _ = ax.get_lines()
        assert mark.get_marker() == looks.pop(verdict)
        assert (mark.get_markerfacecolor() == "white") == (verdict == "erased")
        plt.close("all")
    assert looks == {"the gap": gap.get_marker()}


@pytest.mark.parametrize("name", CHAIN[len(CORE) :])
def test_the_other_notebooks_try_something_and_say_what_comes_out(name):
    """After the question a cell runs with a value that is there, and the reason is folded."""
    cells = read(CHECKOUT / "notebooks" / f"{name}.ipynb").cells
    asked = [
        k for k, c in enumerate(cells) if re.search(r"\*\*(Exercise|Try to beat it)", c.source)
    ]
    assert asked
    for k in asked:
        after = cells[k + 1 :]
        folded = [SOLUTION in c.source for c in after].index(True)
        run = [c for c in after[:folded] if c.cell_type == "code"]
        assert any(c.outputs for c in run)
        assert "not tried yet" not in json.dumps([c.outputs for c in run])


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


def syntax(path):
    """Every node of the syntax trees of a notebook's code cells."""
    for source in twin_cells(path):
        yield from ast.walk(ast.parse(source))


def imports(path):
    """What a notebook imports, as dotted names."""
    for node in syntax(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@each
def test_of_ours_a_notebook_imports_the_package_alone(path):
    """The scoreboard's notebook, which recomputes what the study writes, may import that, too."""
    ours = [name for name in imports(path) if name.split(".")[0] in ("sahelpers", "study", "tools")]
    allowed = {"sahelpers", "sahelpers.live"}
    if path.stem == "A5_scoreboard":
        assert all(name in allowed or name.startswith("study.") for name in ours)
    else:
        assert set(ours) <= allowed
    assert "sahelpers" in ours


def of_name(path, name):
    """The attributes that a notebook takes from this name, two deep: (first, second or None)."""
    nodes = [node for node in syntax(path) if isinstance(node, ast.Attribute)]
    for node in nodes:
        if isinstance(node.value, ast.Name) and node.value.id == name:
            deeper = [outer.attr for outer in nodes if outer.value is node]
            yield node.attr, deeper[0] if deeper else None


@each
def test_public_names_alone_and_what_they_hold(path):
    """Of the package's modules only plots may be named, and only what is there."""
    for first, second in of_name(path, "sa"):
        assert first in sa.__all__, f"sa.{first}"
        value = getattr(sa, first)
        assert first == "plots" or not isinstance(value, ModuleType), f"sa.{first}"
        if isinstance(value, (ModuleType, type)) and second is not None:
            assert not second.startswith("_"), f"sa.{first}.{second}"
            assert hasattr(value, second), f"sa.{first}.{second}"
    for first, _ in of_name(path, "live"):
        assert not isinstance(getattr(live, first), ModuleType), f"live.{first}"


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
    """Or it says what to do first, while the project has no address."""
    name = ADDRESS.removeprefix("https://github.com/")
    first = read(path).cells[0].source
    assert with_badges(first, name, path) == first
    if name.startswith("OWNER/"):
        assert "[Colab](../README.md#set-your-address)" in first
    else:
        assert f"/{name}/blob/main/notebooks/{path.name})" in first


def cell_with(stem, words):
    """The one code cell of a notebook that holds these words."""
    (found,) = [c for c in twin_cells(CHECKOUT / "notebooks" / f"{stem}.ipynb") if words in c]
    return found


def test_the_figure_on_one_digit_shows_our_network_alone(monkeypatch):
    """A table may hold models of other networks and data as well."""
    monkeypatch.chdir(CHECKOUT / "notebooks")
    monkeypatch.setattr(plt, "show", lambda: None)
    given = {"sa": sa, "json": json, "Path": Path, "plt": plt, "STYLES": {}}
    exec(cell_with("04_probing", "def of_our_network"), given)
    rows, shown = given["audit"]["models"], given["SHOWN"]
    rows += [row | {"arch": "conv"} for row in rows] + [row | {"dataset": "kmnist"} for row in rows]
    exec(cell_with("04_probing", "marks[kind] = "), given)
    counts = [
        sum((row["method"], row["class"], row["dataset"], row["arch"])
            == (method, shown, "mnist", "mlp") for row in rows)
        for method in given["KINDS"].values()
    ]  # fmt: skip
    expected = [count for count in counts if count]  # a kind that was not measured has no line
    assert list(given["marks"]) == [k for k, n in zip(given["KINDS"], counts, strict=True) if n]
    assert {"hidden", "masked", "retrained"} < set(given["marks"])
    panels = plt.gcf().axes
    assert [[len(x.get_xdata()) for x in ax.get_lines()] for ax in panels] == [expected] * 5
    plt.close("all")


def test_the_verdicts_are_those_of_the_table(monkeypatch):
    """Digit by digit and rung by rung."""
    monkeypatch.chdir(CHECKOUT / "notebooks")
    given = {"sa": sa, "json": json, "Path": Path}
    exec(cell_with("04_probing", "def of_our_network"), given)
    verdicts = 0
    for kind, found in given["findings"].items():
        wanted = {
            (row["digit"], row["rung"]): row["verdict"]
            for row in json.loads((CHECKOUT / "results" / "audit.json").read_text())["findings"]
            if row["method"] == given["KINDS"][kind]
            if (row["dataset"], row["arch"]) == ("mnist", "mlp")
        }
        assert {(d, r): f.verdict for d, of in found.items() for r, f in of.items()} == wanted
        assert len(wanted) == 5 * len(found)
        verdicts += len(wanted)
    assert verdicts > 0


def test_a_default_that_is_not_measured_is_said_to_be_so(capsys):
    """The table may hold no row of it yet."""
    given = {"sa": sa, "findings": {"version 3": {}, "forgotten": {}}, "rungs": ["trained on, z"]}
    exec(cell_with("04_probing", 'sa.in_words(findings["version 3"])'), given)
    exec(cell_with("04_probing", "remains = ["), given)
    said = capsys.readouterr().out
    assert said.count("not measured yet") == 4
    assert "memory remains" not in said


def test_a_weak_class_is_not_cut_off(monkeypatch):
    """One that is recognised at 5 %: its mark is in the picture."""
    shares = torch.linspace(0.05, 1, 10)
    seen = SimpleNamespace(correct=lambda: shares)
    monkeypatch.setattr(sa, "judge_samples", lambda *given: seen)
    given = {"sa": sa, "PER_CLASS": 1, "model": None, "names": [str(c) for c in range(10)]}
    given |= {"judges": {"open_set": None}, "latents": {"N(0, I)": None, "class Gaussian": None}}
    exec(cell_with("01_baseline", 'recognised, percent", ylim'), given)
    low, high = given["ax"].get_ylim()
    for line in given["ax"].get_lines():
        assert line.get_ydata() == pytest.approx((100 * shares).tolist())
        assert low < min(line.get_ydata())
        assert max(line.get_ydata()) < high
    assert len(given["ax"].get_lines()) == 2
    plt.close("all")


def test_a_class_of_few_images_is_enough_for_the_fishers_batches(tiny, tiny_fishers, mnist):
    """Nine digits forgotten: the one that stays has fewer than 6,000 images."""
    given = {"sa": sa, "torch": torch, "SEED": 42, "device": "cpu", "model": tiny, "train": mnist}
    given |= {"forgotten": tuple(range(9)), "fisher": tiny_fishers.without(range(9))}
    exec(cell_with("02_fisher", "def squared_batch_means"), given)
    assert len(given["data"]) == int((mnist.labels == 9).sum()) < 6000
    assert given["wrong_sum"] > 0
    given |= {"kept_images": mnist.only(9), "weights": ["decoder.0.weight"]}
    exec(cell_with("A1_fisher_in_depth", "pieces = []"), given)
    assert given["pieces"].shape == (8, 1)  # 800 of 1,009 images, in hundreds
    assert (given["pieces"] > 0).all()


@pytest.mark.parametrize("gone", [(2,), (2, 5)])
def test_two_classes_do_not_refute_a_claim_about_one(gone, capsys):
    probing, denoising = (
        twin_cells(CHECKOUT / "notebooks" / f"{name}.ipynb")
        for name in ("04_probing", "A4_denoising")
    )
    (line,) = [x for cell in probing for x in cell.splitlines() if x.startswith("fails = ")]
    (costs,) = [cell for cell in probing if "pays = {" in cell]
    (ghosts,) = [cell for cell in denoising if "by_closed = {" in cell]
    nats = dict.fromkeys(("hidden", "forgotten", "retrained"), torch.zeros(3))
    exec(f"{line}\n{costs}", {"forgotten": gone, "above": nats | {"forgotten": -torch.ones(3)}})
    seen = {what: {"closed_set": 0.4} for what in ("as drawn", "with a ghost, stretched")}
    negative = {"target": 2, "likeness": [0.1, 0.2, -0.6]}
    exec(ghosts, {"result": SimpleNamespace(forget_class=gone), "share": seen, **negative})
    words = "does not hold" if len(gone) == 1 else "not claimed of several classes"
    said = capsys.readouterr().out.splitlines()
    assert [x.rpartition(": ")[2] for x in said] == [words] * 5
