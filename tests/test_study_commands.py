"""`python -m study`: what each command asks for, and what it refuses."""

import json
import sys
from itertools import product

import pytest

import sahelpers as sa
from sahelpers.attacks.ladder import KEPT, RUNGS, UNFINISHED
from sahelpers.attacks.verdicts import ALIKE
from study import __main__ as commands
from study import grid, journal
from study.experiments import power
from study.grid import Grid
from study.methods import HIDDEN, MASKED, METHODS, OURS, PAPER, RETRAINED

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
    call(part, *digits, "--seeds", "5", "--jobs", "3", "--arch", "conv", "--device", "cpu")
    made, *where = got[0]
    assert (made.part, made.forget_classes, made.seeds) == (part, (3, 7), (5,))
    assert (made.baseline.arch, made.baseline.epochs) == ("conv", 10)
    assert made.amnesia == sa.AmnesiaConfig.conv()
    assert (made.dataset, made.device) == ("mnist", "cpu")
    assert where == ["loky", 3, None, False]
    compared = tuple(method for method in METHODS if method != MASKED)
    assert made.methods == (compared if part == "scoreboard" else grid.CLIMBED)
    assert made.only[PAPER] == ((0, 3, 5), (42,))
    assert made.further_seeds == ((42, 43, 44, 48) if part == "ladder" else ())
    call(part, "--methods", PAPER, HIDDEN, "--backend", "sequential", "--again")
    made, *where = got[1]
    assert (made.methods, made.only) == ((PAPER, HIDDEN), {})
    assert (made.forget_classes, made.seeds) == (tuple(range(10)), (42, 43, 44))
    assert (where[0], where[2:]) == ("sequential", [None, True])
    call(part, "--backend", "dask", "--scheduler", "tcp://10.0.0.1:8786")
    assert (got[2][1], got[2][3]) == ("dask", "tcp://10.0.0.1:8786")
    assert len(written) == 3


@pytest.mark.parametrize("part", PARTS)
def test_a_plan_runs_nothing(part, monkeypatch, written, capsys):
    monkeypatch.setattr(Grid, "run", None)
    call(part, "--plan", "--seeds", "7", "--methods", HIDDEN)
    assert "10 of 10 runs are missing" in capsys.readouterr().out
    call(part, "--plan", "--again", "--methods", HIDDEN, "--digits", "3")
    assert "3 runs are done again" in capsys.readouterr().out
    assert written == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "0"], "jobs=0 processes: give 1 or more"),
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
    assert said in capsys.readouterr().err
    assert written == []


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
        call("scoreboard", "--backend", "sequential")
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


def test_tables_are_written_from_the_journal(tmp_path, monkeypatch):
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
    groups = {OURS: (101.0, 1), HIDDEN: (70.0, 1), MASKED: (70.0, 1), RETRAINED: (100.0, 3)}
    for digit, (method, (nats, n)) in product((3, 4), groups.items()):
        for seed in (42, 43, 44)[:n]:
            (run,) = Grid("ladder", (method,), (digit,), (seed,)).runs()
            found = {name: [nats] for name in (*RUNGS, *KEPT, UNFINISHED)}
            journal.append(results / "journal.jsonl", run.key | {"values": found})
    call("tables")
    assert files() == made | {"results/journal.jsonl", "results/ladder.png"}
    assert (results / "ladder.png").read_bytes().startswith(b"\x89PNG\r\n")
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
    call("power", "--digits", "2", "4", "--audits", "7")
    call("published", "--tables", "--jobs", "3")
    call("your_data", "letters")
    assert [name for name, _ in got] == ["effort", "power", "published", "your_data"]
    _, options = got[1]
    assert (options.digits, options.audits) == ([2, 4], 7)
    _, options = got[2]
    assert (options.tables, options.jobs) == (True, 3)
    assert got[3][1].sets == ["letters"]


# ---- two experiments that have no file of their own


@pytest.fixture
def lines(tmp_path):
    """A journal in which the attacks have power on two digits."""
    path = tmp_path / "journal.jsonl"
    middles = {OURS: 0.20, HIDDEN: 0.90, RETRAINED: 0.20}
    for digit in (3, 4):
        for method, middle in middles.items():
            for k, seed in enumerate((42, 43, 44)):
                (run,) = Grid("claim", (method,), (digit,), (seed,)).runs()
                share = middle + 0.002 * k
                values = {a: [100 - 50 * share if a in COST_ATTACKS else share]
                          for a in CLAIM_ATTACKS}  # fmt: skip
                journal.append(path, run.key | {"values": values})
    return path


def test_the_simulation_errs_seldom_and_finds_erasure_where_spreads_are_small(lines, capsys):
    call("power", "--journal", str(lines), "--audits", "20")
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| retrained | attack | largest error | least power (digit) | all digits pass |"
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == [str(n) for n in range(3, 7) for _ in range(5)]
    assert [row[1] for row in cells[:5]] == [*CLAIM_ATTACKS, "all of them"]
    for row in cells:
        if row[1] == "all of them":
            assert float(row[4]) > 0.5
        else:
            assert float(row[2]) <= 0.35  # 20 audits of a tail of 0.05
            power_of, _, digit = row[3].partition(" ")
            assert float(power_of) >= 0.9
            assert digit in ("(3)", "(4)")


def test_the_simulation_takes_what_the_journal_holds(lines):
    truth = power.measured(lines, None, [3, 4])
    assert [digit for digit, _ in truth] == [3, 4] * 5
    wide, hidden, retrained = truth[0][1][CLAIM_ATTACKS[0]]
    assert hidden == pytest.approx((0.902, 0.002))
    assert retrained == pytest.approx((0.202, 0.002))
    assert wide == retrained[1]
    assert {digit for digit, _ in power.measured(lines, OURS, [4])} == {4}
    with pytest.raises(SystemExit, match=r"lacks the attacks: run `python -m study claim`"):
        power.measured(lines.with_name("none"), None, [3])
