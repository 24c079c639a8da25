"""The pages keep their word: the Python in README runs as it stands there, figures are those of the
tables, commands and links lead somewhere."""

import json
import re
from functools import partial
from statistics import fmean

import pytest
import torch

import sahelpers as sa
import study
from sahelpers.attacks import verdicts
from sahelpers.attacks.ladder import FITTED, HEALED_FITTED, HEALED_OTHER, RUNGS
from sahelpers.attacks.verdicts import ERASED, INCONCLUSIVE, REMAINS, UNDECIDED
from sahelpers.config import CHECKOUT
from study import journal, results_page, scores, tables
from study.__main__ import EXPERIMENTS
from study.claims import counted
from study.experiments import effort, published
from study.grid import RESULTS
from study.methods import KEPT_HEAVILY, KEPT_IMAGES, KEPT_SLOWLY, OURS, PAPER, VERSION3

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
HEALED = HEALED_OTHER, HEALED_FITTED
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = sorted({*CHECKOUT.glob("*.md"), *CHECKOUT.glob("[a-z]*/*.md")})
each = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT)))


@pytest.fixture
def quick(monkeypatch, tmp_path, model, mnist):
    """The package with a small baseline ready, and without what the blocks leave in it."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    few = sa.FisherConfig(n_fisher_samples=100)
    story = partial(sa.Story, (mnist, mnist), baseline=model, fisher=few)
    monkeypatch.setattr(sa, "Story", story)
    monkeypatch.setattr(study, "METHODS", study.METHODS.copy())


def test_forgetting_another_digit(quick, model):
    found = {}
    exec(BLOCKS[0], found)
    assert found["result"].forget_class == (7,)
    assert found["images"].shape == (10, 1, 28, 28)
    seven = torch.full((50,), 7)
    before, after = (
        m.sample(seven, generator=sa.seeded(0)) for m in (model, found["result"].model)
    )
    assert (after - 0.5).abs().mean() < 0.1 < 0.3 < (before - 0.5).abs().mean()


def test_adding_a_method(quick, model):
    found = {}
    exec(BLOCKS[1], found)
    new = found["shrink_label"](sa.Story(), (3,)).model
    before, after = (m.get_parameter("decoder.0.weight") for m in (model, new))
    assert torch.equal(after[:, 3 + 3], before[:, 3 + 3] / 2)
    assert int((before != after).any(0).sum()) == 1
    assert not new.prior_mean[3].any()
    assert len(BLOCKS) == 2


def test_the_module_of_methods_takes_the_new_one_where_readme_puts_it():
    module = CHECKOUT / "study" / "methods.py"
    begin = "METHODS: dict[str, Function] = {\n"
    assert "above `METHODS`" in README
    entry = re.search(r'`("shrink label": shrink_label,)` in `METHODS`', README)[1]
    code = module.read_text(encoding="utf-8")
    assert code.count(begin) == 1
    code = code.replace(begin, f"{BLOCKS[1]}\n\n{begin}    {entry}\n")
    found = {"__name__": "study.methods", "__package__": "study", "__file__": str(module)}
    exec(compile(code, str(module), "exec"), found)
    assert found["METHODS"]["shrink label"] is found["shrink_label"]


def test_the_citation_names_this_version():
    cited = (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {sa.__version__}\n" in cited


def test_the_figures_are_what_the_journal_says():
    """`make tables` writes them, between two marks."""
    assert results_page.with_figures(README, journal.read(RESULTS / "journal.jsonl")) == README


def test_version_3_fails_on_the_third_rung_alone():
    """What README says of it in words."""
    records = journal.read(RESULTS / "journal.jsonl")
    found = tables.audit(records)[("mnist", "mlp"), VERSION3]
    assert counted(found) == (0, 2, 3, 4, 5, 6, 7, 8)
    as_it_is = [f for of in found.values() for f in of.values() if f.control != "masked"]
    assert REMAINS not in {f.verdict for f in as_it_is}
    assert sum(f.verdict == UNDECIDED for f in as_it_is) == 2
    assert "(two verdicts are *undecided*, and training all weights finds some memory" in README
    further = [sum(of[rung].verdict == REMAINS for of in found.values()) for rung in HEALED]
    assert further == [7, 8]
    assert "memory remains on seven of them under other labels and on all eight under" in README


def test_the_first_paragraph_counts_as_the_tables_do():
    records = journal.read(RESULTS / "journal.jsonl")
    passed, remains, fewer = [], [], []
    for method in (OURS, KEPT_IMAGES):
        ladder = tables.audit(records)[results_page.USUAL, method]
        of_counted = {digit: ladder[digit] for digit in counted(ladder)}
        later = results_page.longer(records, method)
        passed.append((len(results_page.passing(of_counted)), len(of_counted)))
        remains.append((len(results_page.remaining(later)), len(later)))
        assert not results_page.remaining(of_counted)
        without_a_seed = results_page.leave_seed(records, method).values()
        fewer.append(sorted(len(passing) for passing, _ in without_a_seed))
    assert passed == [(7, 8), (8, 8)]
    assert "seven of the eight pass every attack, and the eighth is open." in README
    assert remains == [(2, 3), (0, 3)]
    assert "memory is back in two of the three digits that were tried" in README
    assert "Then all eight pass after 1,600 steps, and all three after 6,400." in README
    assert [(few[0], few[-1]) for few in fewer] == [(2, 4), (3, 7)]
    assert "only 2 to 4 of the eight digits still pass (with kept images 3 to 7)" in README
    clothes = [tables.audit(records)[results_page.FASHION, m] for m in (OURS, KEPT_IMAGES)]
    assert [len(results_page.remaining(found)) for found in clothes] == [6, 1]
    assert [results_page.passing(found) for found in clothes] == [[], [3, 8, 9]]
    assert "six of the ten classes without real images and in one with them" in README
    assert "three classes pass, all with real images." in README
    assert "no class passes with drawn images" in README
    notebook = (CHECKOUT / "notebooks" / "04_probing.py").read_text(encoding="utf-8")
    lesson = (CHECKOUT / "docs" / "lesson.md").read_text(encoding="utf-8")
    ours = tables.audit(records)[results_page.USUAL, OURS]
    assert results_page.remaining(results_page.longer(records)) == [2, 3]
    assert results_page.passing({d: ours[d] for d in counted(ours)}) == [0, 2, 3, 4, 6, 7, 8]
    assert "tried, the 2 and the 3, is back after so many steps" in notebook
    assert "seven of them pass, and the 5 is open." in notebook
    assert "With kept images all eight pass, and all three after 6,400 steps." in notebook
    assert "after 6,400 steps memory of both is back" in lesson
    for method in (OURS, KEPT_IMAGES):
        of_seven = tables.audit(records)[results_page.USUAL, method][7]
        assert all(finding.high < 0 for finding in of_seven.values())
    assert "to the right of the retrained ones in all five panels, and so do those" in notebook
    examined = [results_page.sealed_words(method) for method in (OURS, KEPT_IMAGES)]
    assert all("the examination is *open*" in words for words in examined)
    assert "They leave the question open for both ways of forgetting." in README


def test_what_notebooks_say_of_the_default_and_of_its_parts():
    found = tables.audit(journal.read(RESULTS / "journal.jsonl"))
    texts = {
        name: (CHECKOUT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("03_amnesia", "A2_terms", "A5_scoreboard")
    }
    without_shadow = found[results_page.USUAL, "ours (without the healing)"]
    assert results_page.remaining(without_shadow) == [3, 7]
    assert "memory remains of the 3 and of the 7 where the shadow" in texts["03_amnesia"]
    of_two = found[results_page.USUAL, "ours (without EWC)"]
    means = [
        [fmean(getattr(of_two[digit][rung], kind) for digit in (3, 7)) for rung in RUNGS]
        for kind in ("model", "retrained")
    ]
    assert all(ours > theirs for ours, theirs in zip(*means, strict=True))
    assert "costs more than in the retrained models in every column" in texts["A2_terms"]
    assert results_page.remaining(found[results_page.USUAL, OURS]) == []
    assert "memory remains on no digit, though not every digit passes" in texts["A5_scoreboard"]


def test_what_the_caveats_say_of_the_convolutional_network():
    found = tables.audit(journal.read(RESULTS / "journal.jsonl"))
    assert (("mnist", "conv"), OURS) not in found  # by `AmnesiaConfig.conv()`
    (of_three,) = found[("mnist", "conv"), KEPT_HEAVILY].values()
    verdicts_of = {rung: finding.verdict for rung, finding in of_three.items()}
    assert verdicts_of.pop(FITTED) == ERASED
    assert set(verdicts_of.values()) == {INCONCLUSIVE}
    assert "the fitted label is the only attack of the five that can tell there" in README


def test_what_the_caveats_say_of_the_published_baseline():
    page = (RESULTS / "published.md").read_text(encoding="utf-8")
    lines = page.splitlines()
    told = [line for line in lines if line.startswith("* ours")]
    assert [line.count("of 3.") for line in told] == [len(RUNGS)] * 3
    assert not any(REMAINS in line for line in told)
    done = published.read()
    for method in (OURS, KEPT_IMAGES, KEPT_SLOWLY):
        found = verdicts.compare_all(published.gathered(done, method))
        findings = {digit: report.by_rung for digit, report in found.items()}
        assert len(findings) == 3
        assert results_page.passing(findings) == []
    assert sorted(published.gathered(done, PAPER)) == [0, 3]
    (paper,) = (line for line in lines if line.startswith(f"* {PAPER}"))
    assert REMAINS in paper
    paid = [line.split("|")[3:] for line in lines if line.startswith("| ours")]
    allowed = {name: limit for name, (*_, limit) in scores.BARS.items()}
    ours, kept, slowly = (
        {name: float(cell.strip(" *")) for name, cell in zip(allowed, row, strict=False)}
        for row in paid
    )
    frechet = "kept Frechet, % worse"
    assert [name for name in allowed if ours[name] > allowed[name]] == [frechet]
    assert kept[frechet] > 2 * ours[frechet]
    assert [name for name in allowed if slowly[name] > allowed[name]] == []


def test_what_training_further_brings_back_is_what_the_curves_say():
    """`python -m study effort` writes both."""
    curves = json.loads(effort.FILE.read_text(encoding="utf-8"))["curves"]
    assert effort.with_table(README, curves) == README


@each
def test_links_lead_to_files_and_headings(page):
    text, missing = page.read_text(encoding="utf-8"), []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        if link.startswith("https://"):
            continue
        if not target.exists():
            missing.append(link)
        elif heading:
            lines = target.read_text(encoding="utf-8").splitlines()
            titles = (line.lstrip("# ").lower() for line in lines if line[:1] == "#")
            heads = [re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles]
            assert heading in heads, link
    assert not missing


@each
def test_commands_are_there(page):
    """Targets of make, commands of the study, and scripts."""
    text, makefile = page.read_text(encoding="utf-8"), (CHECKOUT / "Makefile").read_text()
    asked = set(re.findall(r"(?:`|^)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE))
    missing = {
        t for words in asked for t in words.split() if not re.search(rf"^{t}:", makefile, re.M)
    }
    assert "python -m sahelpers" not in text or page.name == "CHANGELOG.md"
    told = (CHECKOUT / "study" / "__main__.py").read_text(encoding="utf-8")
    for command in re.findall(r"python -m study ([a-z_]+)", text):
        missing |= set() if f'"{command}"' in told else {command}
    for script in re.findall(r"python ((?:benchmarks|tools|tests)/[\w/.]+\.py)", text):
        missing |= set() if (CHECKOUT / script).is_file() else {script}
    assert not missing


def test_every_experiment_of_the_study_is_among_the_commands():
    text = (CHECKOUT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        assert f"`python -m study {name}`" in text


def test_the_lesson_names_sections_that_are_there():
    text = (CHECKOUT / "docs" / "lesson.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\d+\. \*\*", text, re.MULTILINE)) == 10
    told = re.findall(r"\(\[\d\d\]\(\.\./(notebooks/\w+)\.ipynb\), \*(.+?)\*\)", text)
    rows = re.findall(r"\| \[\d\d\]\(\.\./(notebooks/\w+)\.ipynb\) (.+)", text)
    told += [(twin, name) for twin, row in rows for name in re.findall(r"\*(.+?)\*", row)]
    assert len(told) == 10 + 10
    for twin, name in told:
        lines = (CHECKOUT / f"{twin}.py").read_text(encoding="utf-8").splitlines()
        assert f"# ## {name}" in lines, (twin, name)


def test_the_lesson_fits_its_clock():
    """Each row begins where the one before ends, and the last seven minutes are for questions."""
    text = (CHECKOUT / "docs" / "lesson.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)\u2013(\d+) \| (.+?) \|", text, re.MULTILINE)
    ends = [0, *(int(end) for _, end, _ in rows)]
    assert [int(begin) for begin, _, _ in rows] == ends[:-1]
    assert ends == sorted(set(ends))
    assert ends[-1] == 90
    assert rows[-1] == ("83", "90", "questions")


def test_what_the_lesson_asks_about_stands_in_a_section_that_it_shows():
    text = (CHECKOUT / "docs" / "lesson.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| \d+\u2013\d+ \| \[(\d\d)\]\(.+?\) \| \*(.+?)\* \|", text, re.MULTILINE)
    asked = re.findall(r"^   +\(\[(\d\d)\]\(.+?\), \*(.+?)\*\)$", text, re.MULTILINE)
    assert len(asked) == 10
    assert set(asked) <= set(shown)


def test_what_happened_once_has_a_test_that_is_there():
    """Each row of the table of tests/README names one, or refers to the row above it."""
    tests = CHECKOUT / "tests"
    text = (tests / "README.md").read_text(encoding="utf-8")
    _, section = text.split("## Nothing wrong under a right name\n")
    table = section.split("\n## ")[0].split("|---|---|\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert rows
    file, code, named = "", "", 0
    for happened, held in rows:
        assert "::test_" in held or held.startswith("the same test"), happened
        for other, test in re.findall(r"`(test_\w+\.py)?::(test_\w+)", held):
            file, named = other or file, named + 1
            code = (tests / file).read_text(encoding="utf-8")
            assert f"\ndef {test}(" in code, f"{file}::{test}"
        for case in re.findall(r"\[(\w+)\]", held):
            assert f'"{case}"' in code, f"{file}: {case}"
    assert named >= len(rows)
    for path in set(re.findall(r"`(?:tests/)?([\w/]+\.py)[`:]", text)):
        assert (tests / path).is_file(), path
