"""`python -m study`: what each command asks for, and what it refuses."""

import json
import sys
from itertools import product

import pytest
import torch

import sahelpers as sa
from sahelpers.attacks.ladder import FITTED, KEPT, OTHER, RUNGS, UNFINISHED
from sahelpers.attacks.verdicts import ALIKE
from study import __main__ as commands
from study import grid, journal
from study.experiments import power
from study.grid import Grid
from study.methods import (
    HIDDEN,
    KEPT_IMAGES,
    MASKED,
    METHODS,
    OURS,
    PAPER,
    RETRAINED,
    UNDO,
    VERSION3,
)

PARTS = ("scoreboard", "ladder")


def call(*words):
    commands.main(list(words))


@pytest.fixture
def written(monkeypatch):
    """How often the tables were written, which is not done."""
    times = []
    monkeypatch.setattr(commands.results_page, "write", lambda: times.append("now"))
    return times


@pytest.mark.parametrize("part", PARTS)
def test_the_grids_get_their_options(part, monkeypatch, written):
    got = []
    monkeypatch.setattr(Grid, "run", lambda *a: got.append(a))
    digits = "--digits", "3", "7", "3"  # a run asked for twice is made once
    call(
        part,
        "--methods",
        "all",
        *digits,
        "--seeds",
        "5",
        "--jobs",
        "3",
        "--arch",
        "conv",
        "--device",
        "cpu",
    )
    made, *where = got[0]
    assert (made.part, made.forget_classes, made.seeds) == (part, (3, 7), (5,))
    assert (made.baseline.arch, made.baseline.epochs) == ("conv", 10)
    assert made.amnesia == sa.AmnesiaConfig.conv()
    assert (made.dataset, made.device) == ("mnist", "cpu")
    assert where == ["loky", 3, None, False]
    compared = tuple(method for method in METHODS if method != MASKED)
    assert made.methods == (compared if part == "scoreboard" else tuple(METHODS))
    assert made.only[PAPER] == ((0, 3, 5), (42,))
    assert made.only[UNDO] == ((0, 3, 7), (42,))
    assert made.ladder == sa.LadderConfig()
    assert made.own_seeds == {}  # seeds were given
    assert made.further_seeds == ()
    call(part, "--methods", PAPER, HIDDEN, "--backend", "sequential", "--again")
    made, *where = got[1]
    assert (made.methods, made.only) == ((PAPER, HIDDEN), grid.ONLY)
    assert made.own_seeds == (grid.LADDER_SEEDS if part == "ladder" else grid.OWN_SEEDS)
    assert made.further_seeds == ((42, 43, 44, 48) if part == "ladder" else ())
    assert (made.forget_classes, made.seeds) == (tuple(range(10)), (42, 43, 44))
    assert (where[0], where[2:]) == ("sequential", [None, True])
    where = "--backend", "dask", "--scheduler", "tcp://10.0.0.1:8786"
    call(part, "--methods", "all", *where)
    assert (got[2][1], got[2][3]) == ("dask", "tcp://10.0.0.1:8786")
    call(part, "--methods", PAPER, "--digits", "7")  # digits that were asked for are made
    assert {run.forget_class: run.seed for run in got[3][0].runs()} == {7: 42}
    call(part, "--methods", PAPER, "--seeds", "43", "42")
    assert [(run.seed, run.forget_class) for run in got[4][0].runs()] == [
        (seed, digit) for seed in (43, 42) for digit in (0, 3, 5)
    ]
    call(part, "--methods", PAPER, "--digits", "7", "--seeds", "43")
    assert [(run.seed, run.forget_class) for run in got[5][0].runs()] == [(43, 7)]
    assert len(written) == 6
    if part == "ladder":
        call(part, "--longer")
        assert got[6][0].ladder == grid.LONGER == sa.LadderConfig(heal_steps=6400, relearn_steps=25)
        assert got[6][0].methods == (HIDDEN, MASKED, RETRAINED, OURS, KEPT_IMAGES)
        assert got[6][0].forget_classes == (2, 3, 8)
        assert got[6][0].own_seeds == grid.LADDER_SEEDS


@pytest.mark.parametrize("words", [("--arch", "conv"), ("--dataset", "fashion_mnist")])
def test_longer_training_has_tables_of_one_place_alone(words, capsys):
    with pytest.raises(SystemExit):
        call("ladder", "--longer", *words)
    assert "--longer is for mnist and mlp: its page has no other tables" in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS)
def test_a_plan_runs_nothing(part, monkeypatch, written, capsys):
    monkeypatch.setattr(Grid, "run", None)
    call(part, "--plan", "--seeds", "7", "--methods", HIDDEN)
    assert "10 of 10 runs are missing" in capsys.readouterr().out
    call(part, "--plan", "--again", "--methods", VERSION3, "--digits", "3")
    assert "3 runs are done again" in capsys.readouterr().out
    call(part, "--plan", "--methods", "all", "--digits", "7")
    said = capsys.readouterr().out
    assert f"  {PAPER} no run: classes (0, 3, 5) of seeds (42,) only, unless it is named\n" in said
    assert said.count(" no run: ") == 2  # the other is the reference's
    assert written == []


def test_a_scoreboard_that_nobody_asked_for_is_not_started(monkeypatch, written, capsys):
    """As in a fresh clone, whose journal lacks runs."""
    monkeypatch.setattr(Grid, "run", None)
    monkeypatch.setattr(journal, "read", lambda path: [])
    call("scoreboard", "--digits", "3")
    said = capsys.readouterr().out
    assert "runs are missing" in said
    assert f'python -m study scoreboard --methods "{OURS}"' in said
    assert '" --digits 3\n' in said
    assert said.endswith("or all of them by --methods all\n")
    call("scoreboard", "--dataset", "fashion_mnist", "--arch", "conv", "--seeds", "7")
    assert '" --seeds 7 --dataset fashion_mnist --arch conv\n' in capsys.readouterr().out
    call("scoreboard", "--backend", "dask", "--scheduler", "tcp://h:1", "--device", "cuda")
    options = " --backend dask --scheduler tcp://h:1 --device cuda\n"
    assert options in capsys.readouterr().out
    call("scoreboard", "--jobs", "977")
    assert '" --jobs 977\n' in capsys.readouterr().out
    assert written == []


def test_all_that_is_there_is_not_done_again_by_a_word_less(monkeypatch, written, capsys):
    monkeypatch.setattr(Grid, "run", None)
    monkeypatch.setattr(Grid, "missing", lambda self: [])
    call("scoreboard", "--again", "--digits", "3")
    said = capsys.readouterr().out
    assert "runs are done again" in said
    assert '" --digits 3 --again\n' in said
    assert "Nothing is started" in said
    assert written == []


def test_a_scoreboard_with_nothing_missing_writes_the_tables(monkeypatch, written):
    monkeypatch.setattr(Grid, "missing", lambda self: [])
    call("scoreboard")
    assert written == ["now"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "0"], "argument --jobs: '0' is no whole number from 1 on"),
        (["--backend", "dask"], "needs the address of a scheduler"),
        (["--methods", "magic"], "method 'magic' is not one of"),
        (["--digits", "12"], "class 12 is not a class"),
        (["--dataset", "cifar"], "invalid choice: 'cifar'"),
        (["--seeds", "-1"], "seed=-1 must be a whole number from 0"),
        (["--device", "gpu"], "invalid choice: 'gpu'"),
    ],
)
def test_options_that_cannot_be_are_refused(part, words, said, written, capsys):
    with pytest.raises(SystemExit) as ended:
        call(part, *words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert f"usage: python -m study {part} " in error
    assert written == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("part", PARTS)
def test_a_plan_notices_that_there_is_no_cuda(part, capsys):
    with pytest.raises(SystemExit):
        call(part, "--device", "cuda", "--plan")
    assert "device='cuda' cannot be used here: give cpu" in capsys.readouterr().err
    where = "--backend", "dask", "--scheduler", "tcp://10.0.0.1:8786"  # whose workers may have it
    call(part, "--device", "cuda", "--plan", *where)
    assert "runs are missing" in capsys.readouterr().out


def test_a_command_of_which_every_run_failed_says_so(tmp_path, monkeypatch, written):
    def nothing(run):
        raise OSError("no disk")

    monkeypatch.setattr(grid, "prepare", nothing)
    monkeypatch.setattr(grid, "compute", nothing)
    monkeypatch.setattr(
        commands,
        "from_options",
        lambda part, options: Grid(part, (HIDDEN,), (3, 5), (1,), folder=tmp_path),
    )
    with pytest.raises(RuntimeError, match="2 of 2 runs failed"):
        call("scoreboard", "--methods", HIDDEN, "--backend", "sequential")
    assert written == ["now"]  # what was done before stands in them


@pytest.mark.parametrize("words", [[], ["claim"], ["healing"], ["magic"]])
def test_a_command_is_needed(words, capsys):
    with pytest.raises(SystemExit):
        call(*words)
    said = capsys.readouterr().err
    for name in (*PARTS, "tables", "convert", "effort", "power", "published", "your_data"):
        assert name in said or words == []


def test_the_words_of_the_shell_are_taken(monkeypatch, written):
    monkeypatch.setattr(sys, "argv", ["python -m study", "tables"])
    commands.main()
    assert written == ["now"]


def test_tables_are_written_from_the_journal(tmp_path, monkeypatch, capsys):
    """Both pages, the figure, README's figures and both JSON files, and nothing else."""
    page = commands.results_page
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setattr(page, "RESULTS", results)
    monkeypatch.setattr(page, "CHECKOUT", tmp_path)
    (tmp_path / "README.md").write_text(f"a\n{page.BEGIN}\n{page.END}\nb\n")
    made = {"README.md", "RESULTS.md"}
    made |= {f"results/{name}" for name in ("scoreboard.json", "audit.json", "scoreboard.md")}

    def files():
        return {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*") if p.is_file()}

    call("tables")
    assert files() == made  # there is nothing to draw
    assert page.NOT_YET in (tmp_path / "RESULTS.md").read_text()
    groups = {
        OURS: (101.0, 1),
        KEPT_IMAGES: (102.0, 1),
        HIDDEN: (70.0, 1),
        MASKED: (70.0, 1),
        RETRAINED: (100.0, 3),
    }
    for digit, (method, (nats, n)) in product((3, 4), groups.items()):
        for seed in (42, 43, 44)[:n]:
            (run,) = Grid("ladder", (method,), (digit,), (seed,)).runs()
            found = {name: [nats] for name in RUNGS} | {UNFINISHED: [0.0]}
            found |= {name: [1.0] for name in KEPT}
            if method == MASKED:  # it hides from the first two rungs
                found[OTHER] = found[FITTED] = [100.0]
            journal.append(results / "journal.jsonl", run.key | {"values": found})
    with (results / "journal.jsonl").open("a") as file:
        file.write("<<<<<<< ours\n")  # a merge that was not finished
    capsys.readouterr()
    call("tables")
    told = "journal.jsonl: 1 of its lines are no JSON and do not count"
    assert told in capsys.readouterr().out
    pictures = {"results/ladder.png", "results/ladder_kept_images.png"}
    assert files() == made | {"results/journal.jsonl"} | pictures
    for name in pictures:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n")
    audit = json.loads((results / "audit.json").read_text())
    assert {f["verdict"] for f in audit["findings"] if f["method"] == OURS} == {ALIKE}
    assert "alike on 2 (3 4) of 2" in (tmp_path / "RESULTS.md").read_text()
    assert (tmp_path / "README.md").read_text().startswith("a\n<!-- figures")


def test_the_journal_is_converted_in_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "RESULTS", tmp_path)
    (run,) = Grid("ladder", (HIDDEN,), (3,), (42,)).runs()
    line = run.key | {"values": {"a": [1.0]}}
    journal.append(tmp_path / "journal.jsonl", line | {"code": "0ldc0de"})
    call("convert", "--code", OURS)
    assert [r["code"] for r in journal.read(tmp_path / "journal.jsonl")] == ["0ldc0de"]
    call("convert", "--code", HIDDEN)
    assert journal.read(tmp_path / "journal.jsonl") == [line]
    said = capsys.readouterr().out
    for changed in (0, 1):
        assert f"{changed} of 1 lines of journal.jsonl have today's digest" in said
    for words in (["--code", "magic"], []):
        with pytest.raises(SystemExit):
            call("convert", *words)


def test_experiments_get_their_options(monkeypatch):
    got = []
    for name, (module, _) in commands.EXPERIMENTS.items():
        monkeypatch.setattr(module, "main", lambda options, name=name: got.append((name, options)))
    call("effort")
    call("encoder")
    call("power", "--audits", "7", "--models", "1/1/3", "6/3/6")
    call("published", "--tables", "--jobs", "3")
    call("your_data", "letters")
    assert [name for name, _ in got] == [
        "effort",
        "encoder",
        "power",
        "published",
        "your_data",
    ]
    _, options = got[2]
    assert options.audits == 7
    assert options.models == [(1, 1, 3), (6, 3, 6)]
    _, options = got[3]
    assert (options.tables, options.jobs) == (True, 3)
    assert got[4][1].sets == ["letters"]


# ---- two experiments that have no file of their own


@pytest.fixture
def lines(tmp_path):
    """A journal with models of two digits, 10 and 8 nats apart on every rung; none under test."""
    path = tmp_path / "journal.jsonl"
    for digit, gap in ((3, 10.0), (4, 8.0)):
        for method, middle in {HIDDEN: 0.0, MASKED: 0.0, RETRAINED: gap}.items():
            for k, seed in enumerate((42, 43, 44)):
                (run,) = Grid("ladder", (method,), (digit,), (seed,)).runs()
                values = {name: [middle + 0.5 * k] for name in (*RUNGS, *KEPT, UNFINISHED)}
                journal.append(path, run.key | {"values": values})
    return path


@pytest.fixture
def power_table(capsys):
    """Calls the command and reads the rows that it prints, each as column -> text."""

    def rows_of(*words):
        page = power.PAGE.read_bytes()
        call("power", *words)
        assert power.PAGE.read_bytes() == page  # these are not the usual options
        rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()]
        return [dict(zip(power.HEAD, row, strict=True)) for row in rows]

    return rows_of


def test_the_simulation_errs_seldom_and_finds_what_is_there(lines, power_table):
    rows = power_table("--journal", str(lines), "--audits", "6", "--tested", "0.5")
    assert [row["rung"] for row in rows] == [rung for rung in RUNGS for _ in range(3)]
    assert [row["models"] for row in rows[:3]] == ["1/3/3", "6/3/6", "1/1/3, one digit"]
    for row in rows:
        assert row["gaps, nats"] == "8.0 to 10.0"
        assert row["spreads, nats"] == "0.5* / 0.5 / 0.5"  # none was under test
        for error in (
            "a third of the gap: a digit passes",
            "no memory: said to remember",
            "retrained, left out: said to remember",
        ):
            assert float(row[error]) <= 0.2  # 48 verdicts of a tail of 0.05
        assert float(row["whole gap: memory is found"]) == 1
        assert float(row["no memory: a digit passes"]) >= 0.8


def test_a_model_whose_kind_scatters_more_than_retrained_ones_errs_more_often(lines, power_table):
    """It borrows their spread."""
    error = "a third of the gap: a digit passes"
    alike, wide = (
        {row["models"]: float(row[error]) for row in power_table(*words, "--tested", spread)}
        for spread in ("0.5", "2.0")
        for words in [("--journal", str(lines), "--audits", "60")]
    )
    assert wide["1/1/3, one digit"] > 0.1 > alike["1/1/3, one digit"]
    assert wide["6/3/6"] <= 0.1  # of which the spread is measured


def test_where_nothing_is_measured_the_simulation_names_what_it_assumes(tmp_path, power_table):
    (tmp_path / "empty").touch()
    options = "--journal", str(tmp_path / "empty"), "--audits", "3"
    wide = "--gap", "2", "--tested", "5", "--known", "4", "--retrained", "3"
    row, *_ = power_table(*options, *wide)
    assert (row["gaps, nats"], row["spreads, nats"]) == ("2.0*", "5.0* / 4.0* / 3.0*")
    assert float(row["no memory: a digit passes"]) <= 0.2  # such models say nothing
    assert float(row["no memory: all pass"]) == 0


def test_numbers_of_models_of_ones_own_have_rows(tmp_path, power_table):
    (tmp_path / "empty").touch()
    options = "--journal", str(tmp_path / "empty"), "--audits", "2"
    rows = power_table(*options, "--models", "2/2/5")
    assert [row["models"] for row in rows] == ["1/1/3", "6/3/6", "2/2/5", "1/1/3, one digit"]
    assert {row["gaps, nats"] for row in rows} == {"10.0*"}


def test_a_journal_that_is_not_there_is_no_measurement(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl: there is no such journal"):
        call("power", "--journal", str(tmp_path / "nowhere.jsonl"), "--audits", "2")


def test_the_usual_simulation_is_written_between_two_marks(monkeypatch, tmp_path):
    page = tmp_path / "power.md"
    page.write_text(f"before\n{power.BEGIN}{power.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(power, "PAGE", page)
    monkeypatch.setattr(power, "simulated", lambda *_: ["0.5"] * (len(power.HEAD) - 4))
    call("power")
    begin, _, written = page.read_text(encoding="utf-8").partition(power.BEGIN)
    written, _, end = written.partition(power.END)
    assert (begin, end) == ("before\n", "\nafter\n")
    head, line, *rows = (row.split("|")[1:-1] for row in written.strip("\n").split("\n"))
    assert [name.strip() for name in head] == power.HEAD
    assert set(line) == {"---"}
    assert [row[0].strip() for row in rows[::4]] == list(RUNGS)


@pytest.mark.parametrize("words", ["3/3", "a/b/c", "3/3/2", "0/1/3"])
def test_numbers_of_models_that_cannot_be_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        call("power", "--models", words)
    assert f"{words!r}: give" in capsys.readouterr().err
