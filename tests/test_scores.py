"""The scoreboard's figures: one number per run, their means and intervals, who dominates whom."""

import math

import pytest
from scipy import stats

from sahelpers.attacks.ladder import HEALED_FITTED, RUNGS
from sahelpers.attacks.verdicts import compare
from study import measures, results_page, scores
from study.methods import ALONE, HIDDEN, OURS, PAPER, RETRAINED
from study.scores import interval

NAN = math.nan


def rows_of(figures):
    """Rows of one digit with these argmax, worst drop and seconds."""
    made = []
    columns = [*measures.JUDGED, *measures.REAL, *measures.COST]
    for method, (argmax, drop, seconds) in figures.items():
        row = dict.fromkeys(columns, 0.0) | {"method": method, "class": 3, "seed": 1}
        row |= {"dataset": "mnist", "arch": "mlp", "seconds": seconds, "frechet_before": 10.0}
        for prior in ("class", "standard"):
            row[f"argmax_open_set_{prior}"] = argmax
        for role in ("open_set", "closed_set"):
            row[f"worst_drop_{role}_class"] = drop
        made.append(row)
    return made


def excess(value):
    """digit -> rung -> finding, of digit 3; training further finds so many nats, others none."""
    costs = {rung: 100 - value * (rung == HEALED_FITTED) for rung in RUNGS}
    return {3: {rung: compare(rung, [cost], [70], (99, 100, 101)) for rung, cost in costs.items()}}


def test_a_figure_is_the_worst_of_its_columns_in_its_unit():
    (row,) = rows_of({OURS: (0.0, 0.2, 4.0)})
    row |= {"argmax_open_set_standard": 0.03, "worst_drop_closed_set_class": 0.7}
    row |= {"kept_change_open_set_class": 0.4, "kept_change_closed_set_class": -0.25}
    row |= {"frechet_after": 10.5, "elbo_kept_change": 0.9}
    found = {name: figure[3, 1] for name, figure in scores.summarise([row])[OURS].items()}
    assert found["argmax = c_f, %"] == pytest.approx(3)
    assert found["worst class lost, points"] == 0.7
    assert found["kept mean lost, points"] == 0.25
    assert found["kept Frechet, % worse"] == pytest.approx(5)
    assert found["kept ELBO lost, nats"] == 0.9
    assert math.isnan(found["kept IWAE lost, nats"])  # not measured
    assert math.isnan(found[scores.MEMORY])


def test_methods_stand_in_the_order_of_their_list_and_other_data_apart():
    rows = rows_of({RETRAINED: (NAN, 0.5, 80.0), HIDDEN: (0.1, 0.0, 0.0), OURS: (0.0, 0.2, 4.0)})
    other = [row | {"dataset": "fashion_mnist"} for row in rows]
    network = [row | {"arch": "conv"} for row in rows[:1]]
    found = scores.summarise([*rows, *other, *network], {OURS: excess(-4.0)})
    fashion = [f"{name} (fashion_mnist, mlp)" for name in (OURS, HIDDEN, RETRAINED)]
    assert [m for m in found if "(fashion" in m] == fashion
    assert [m for m in found if "mlp" not in m and "conv" not in m] == [OURS, HIDDEN, RETRAINED]
    assert f"{RETRAINED} (mnist, conv)" in found
    assert math.isnan(found[fashion[0]][scores.MEMORY][3, 1])  # the audit is MNIST's
    assert all(set(below) <= set(fashion) for m, below in scores.dominance(found).items()
               if m in fashion)  # fmt: skip


def test_the_audit_may_be_of_another_data_set():
    rows = rows_of({OURS: (0.0, 0.2, 4.0)})
    rows += [row | {"dataset": "fashion_mnist"} for row in rows]
    found = scores.summarise(rows, {OURS: excess(4.0)}, place=("fashion_mnist", "mlp"))
    other = f"{OURS} (fashion_mnist, mlp)"
    assert found[other][scores.MEMORY] == {(3, 1): pytest.approx(4)}
    assert math.isnan(found[OURS][scores.MEMORY][3, 1])


def test_seconds_of_an_accelerator_are_not_compared_with_a_processors():
    (row,) = rows_of({OURS: (0.0, 0.2, 4.0)})
    machines = {1: "Intel Xeon, 2 cores", 2: "NVIDIA H100, CUDA"}
    rows = [row | {"seed": seed, "machine": machine} for seed, machine in machines.items()]
    seconds = scores.summarise(rows)[OURS]["seconds"]
    assert seconds[3, 1] == 4.0
    assert math.isnan(seconds[3, 2])


def test_dominance_counts_only_what_both_have():
    figures = {
        OURS: (0.0, 0.2, 4.0),
        PAPER: (0.0, 0.2, 400.0),
        HIDDEN: (0.1, 0.0, 0.0),
        RETRAINED: (NAN, 0.5, 80.0),
    }
    audit = {OURS: excess(-3.0), PAPER: excess(-3.0), HIDDEN: excess(25.0)}
    found = scores.summarise(rows_of(figures), audit)
    assert found[HIDDEN][scores.MEMORY] == {(3, 1): pytest.approx(25)}
    assert scores.dominance(found) == {
        OURS: [PAPER],  # of retraining neither argmax nor memory was measured
        PAPER: [],
        HIDDEN: [],
        RETRAINED: [],
    }


def test_nobody_dominates_a_method_whose_memory_alone_was_measured():
    figures = {OURS: (0.0, 0.2, 4.0), PAPER: (0.0, 0.1, 3.0)}
    found = scores.summarise(rows_of(figures), {OURS: excess(-3.0)})
    assert scores.dominance(found) == {OURS: [], PAPER: []}
    found = scores.summarise(rows_of(figures), {})
    assert scores.dominance(found) == {OURS: [], PAPER: [OURS]}


def test_paying_more_than_a_retrained_model_is_no_merit():
    figures = {OURS: (0.0, 0.2, 4.0), ALONE: (0.0, 0.2, 3.0), HIDDEN: (0.0, 0.2, 2.0)}
    audit = {OURS: excess(-4.0), ALONE: excess(-2.0), HIDDEN: excess(2.0)}
    above = scores.dominance(scores.summarise(rows_of(figures), audit))
    assert above[ALONE] == [OURS]
    assert above[HIDDEN] == above[OURS] == []


def test_a_digit_that_costs_more_than_in_retrained_models_does_not_hide_anothers_memory():
    (row,) = rows_of({OURS: (0.0, 0.2, 4.0)})
    audit = {OURS: excess(4.0) | {5: excess(-20.0)[3]}}
    figure = scores.summarise([row, row | {"class": 5}], audit)[OURS][scores.MEMORY]
    assert figure == {(3, 1): pytest.approx(4), (5, 1): 0.0}
    assert interval(figure)[0] == pytest.approx(2)


def test_memory_of_a_digit_without_a_row_counts_too():
    (row,) = rows_of({PAPER: (0.0, 0.2, 4.0)})
    audit = {PAPER: excess(4.0) | {7: excess(6.0)[3]}}
    figure = scores.summarise([row, row | {"class": 5}], audit)[PAPER][scores.MEMORY]
    assert interval(figure)[0] == pytest.approx(5)
    (shown,) = results_page.cells({PAPER: {"seconds": figure, scores.MEMORY: figure}}).values()
    assert shown[scores.MEMORY] == "5.00 n=2"


def test_memory_of_different_digits_is_not_compared():
    figures = {OURS: (0.0, 0.2, 4.0), PAPER: (0.0, 0.3, 5.0)}
    audit = {OURS: excess(-3.0), PAPER: {5: excess(3.0)[3]}}
    above = scores.dominance(scores.summarise(rows_of(figures), audit))
    assert above == {OURS: [], PAPER: []}


def test_memory_counts_once_for_each_digit():
    (row,) = rows_of({OURS: (0.0, 0.2, 4.0)})
    rows = [row | {"seed": seed} for seed in (2, 1, 3)] + [row | {"class": 5}]
    figure = scores.summarise(rows, {OURS: excess(4.0)})[OURS][scores.MEMORY]
    assert figure.pop((3, 1)) == pytest.approx(4)
    assert set(figure) == {(3, 2), (3, 3), (5, 1)}
    assert all(map(math.isnan, figure.values()))


def test_means_are_compared_over_the_runs_of_both():
    easy, hard, missing = (0, 1), (3, 1), (4, 1)
    few, many = {hard: 5.0, missing: NAN}, {easy: 1.0, hard: 6.0, missing: 0.0}
    assert scores.common_means(few, many) == (5, 6)  # over all runs many would be better
    assert math.isnan(scores.common_means(few, {easy: 1.0})[0])


def test_the_interval_takes_digits_as_fixed_and_seeds_as_the_sample():
    figure = {(0, 1): 1.0, (0, 2): 3.0, (5, 1): 10.0, (5, 2): 14.0, (5, 3): 12.0}
    spread = math.sqrt((2 + 8) / 3)  # squares around each digit's mean, three degrees of freedom
    reach = spread * math.sqrt(1 / 2 + 1 / 3) / 2 * stats.t.ppf(0.975, 3)
    expected = pytest.approx((7, 7 - reach, 7 + reach))
    assert interval(figure) == expected
    assert interval(figure | {(5, 4): NAN, (7, 1): NAN}) == expected
    one = {(0, 1): 2.0, (0, 2): 3.0, (0, 3): 7.0}
    ends = stats.t.interval(0.95, 2, 4, stats.sem([2, 3, 7]))
    assert interval(one) == pytest.approx((4, *ends))


def test_without_two_seeds_there_is_a_mean_and_no_interval():
    mean, *ends = interval({(0, 1): 1.0, (3, 1): 2.0})
    assert mean == 1.5
    assert all(map(math.isnan, ends))
    assert all(map(math.isnan, interval({(0, 1): NAN})))


def test_cells_are_means_with_half_an_interval_or_the_largest_beside_what_is_allowed():
    worst, runs = "worst class lost, points", [(3, 1), (3, 2), (5, 1)]
    figures = {worst: dict(zip(runs, (0.5, 1.5, 0.2), strict=True))}
    figures["seconds"] = dict(zip(runs, (1.0, 2000.0, NAN), strict=True))
    figures |= {axis: dict.fromkeys(runs, NAN) for axis in scores.AXES if axis not in figures}
    mean, low, high = interval(figures[worst])
    cells = results_page.cells({"a": figures})
    largest = results_page.cells({"a": figures}, largest=True)
    assert cells["a"][worst] == f"{mean:.2f}\u00a0±\u00a0{(high - low) / 2:.2f}"
    assert cells["a"]["seconds"].startswith("1000\u00a0±")
    assert cells["a"]["seconds"].endswith(" n=2")
    assert (largest["a"][worst], largest["a"]["seconds"]) == ("**1.50**", "2000 n=2")
    assert cells["a"][scores.MEMORY] == largest["a"][scores.MEMORY] == "-"
    table = results_page.by_method(cells, [worst, "dominates"])
    assert table.splitlines()[2] == f"| a | 3 | {cells['a'][worst]} | 0 |"
