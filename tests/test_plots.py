"""The figures show the numbers they are given: read back from the axes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import sahelpers as sa
from sahelpers import plots
from sahelpers.attacks.ladder import OTHER
from sahelpers.attacks.verdicts import (
    ALIKE,
    DAMAGED,
    ERASED,
    INCONCLUSIVE,
    REMAINS,
    RESISTS,
    UNDECIDED,
    Finding,
)
from sahelpers.attacks.weights import RecoveryCurve


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def sheet(ax):
    return np.asarray(ax.images[0].get_array())


def texts(ax):
    return [t.get_text() for t in ax.texts]


def flat(*levels):
    """One flat image for each level."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def test_image_grid_goes_row_by_row():
    ax = plots.image_grid(flat(0.1, 0.2, 0.3), columns=2, title="three")
    shown = sheet(ax)
    assert shown.shape == (58, 58)
    assert [shown[14, 14], shown[14, 44], shown[44, 14]] == pytest.approx([0.1, 0.2, 0.3])
    assert shown[14, 28] == shown[44, 44] == 1  # the gap, and the place left over
    assert ax.get_title() == "three"


def test_class_columns_are_sorted_by_class_and_named():
    labels = torch.tensor([7, 2, 7, 2])
    ax = plots.class_columns(flat(0.7, 0.2, 0.8, 0.3), labels, rows=2)
    shown = sheet(ax)
    assert texts(ax) == ["2", "7"]
    assert [shown[14, 14], shown[14, 44], shown[44, 14]] == pytest.approx([0.2, 0.7, 0.3])


def test_before_and_after_stand_side_by_side():
    labels = torch.tensor([0, 1])
    left, right = plots.before_after(flat(0.0, 0.1), flat(0.5, 0.6), labels, rows=1)
    assert (sheet(left)[14, 14], sheet(right)[14, 14]) == (0.0, 0.5)
    assert left.get_title() == "before"
    given = plt.subplots(1, 2)[1]
    assert plots.before_after(flat(0.0), flat(1.0), labels[:1], 1, given) is given


def test_curves():
    ax = plots.curves({"a": [3.0, 2.0, 1.0], "b": [5.0]}, ylabel="nats")
    first, second = ax.get_lines()
    assert first.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert second.get_xydata().tolist() == [[1, 5]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert first.get_color() != second.get_color()


def test_bars_per_class():
    ax = plots.class_bars(
        {"open_set": torch.tensor([1.0, 2.0]), "closed_set": torch.tensor([3.0, 4.0])}
    )
    assert [[bar.get_height() for bar in group] for group in ax.containers] == [[1, 2], [3, 4]]
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in group] for group in ax.containers]
    assert np.allclose(centres, [[-0.2, 0.8], [0.2, 1.2]])


NAMES = {
    "no formula": (("$x_$", "a $5 bill and $6"), [r"\$x_\$", r"a \$5 bill and \$6"]),
    "no glyph": (("猫", "dog", "犬の子"), ["0", "dog", "2"]),
    "nothing to see": (("", " \n", "b\nc"), ["0", "1", "2"]),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.filterwarnings("error")  # matplotlib warns of characters that it cannot draw
def test_any_class_name_can_be_drawn(case, tmp_path):
    """A name like a formula ended the figure, and one that no font has became empty boxes."""
    names, shown = NAMES[case]
    k = len(names)
    ax = plots.class_columns(torch.zeros(k, 1, 8, 8), torch.arange(k), 1, names=names)
    ax.figure.savefig(tmp_path / "columns.png")
    assert [text.get_text() for text in ax.texts] == shown
    ax = plots.class_bars({"a": torch.ones(k)}, names=names)
    ax.figure.savefig(tmp_path / "bars.png")
    assert [text.get_text() for text in ax.get_xticklabels()] == shown
    ax = plots.image_rows({"$x_$": torch.zeros(2, 1, 8, 8)}, 2)
    ax.figure.savefig(tmp_path / "rows.png")


def test_probes_in_rows():
    images = flat(0.1, 0.2, 0.3)
    ax = plots.image_rows({"blind": images, "prototype": images}, count=4)
    shown = sheet(ax)
    assert [shown[44, 14], shown[14, 74], shown[14, 104]] == pytest.approx([0.1, 0.3, 1])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["blind", "prototype"]


def test_recovery_with_its_area():
    curve = RecoveryCurve([0, 10], [0.0, 1.0], sa.CVAE())
    ax = plots.recovery_curves({"forgotten": curve})
    assert ax.get_lines()[0].get_xydata().tolist() == [[0, 0], [10, 1]]
    assert texts(ax) == [f"forgotten {curve.area:.2f}"]


def test_a_model_has_its_colour_in_every_figure_and_names_do_not_overlap():
    curve = RecoveryCurve([0, 10], [0.0, 1.0], sa.CVAE())
    ax = plots.recovery_curves({"hidden": curve, "forgotten": curve, "baseline": curve})
    colors = {t.get_text().split()[0]: t.get_color() for t in ax.texts}
    assert colors == {"hidden": plots.HIDDEN, "forgotten": plots.AFTER, "baseline": plots.BEFORE}
    low, middle, high = sorted(t.get_position()[1] for t in ax.texts)
    assert min(middle - low, high - middle) > 0.08
    bars = plots.class_bars({"retrained": torch.ones(1), "forgotten": torch.ones(1)}).patches
    shown = [plt.matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in bars]
    assert shown == [plots.RETRAINED, plots.AFTER]


def test_what_is_no_model_has_no_models_colour():
    """Up to three things, the same in lines and in bars, next to a model or not."""
    own = {plots.BEFORE, plots.AFTER, plots.RETRAINED, plots.HIDDEN}
    lines = plots.curves({"training": [1.0], "test": [2.0], "KL": [3.0]}).get_lines()
    drawn = [line.get_color() for line in lines]
    assert len(set(drawn)) == 3
    assert not own & set(drawn)
    groups = plots.class_bars({n: torch.ones(1) for n in ("one", "forgotten", "two")}).containers
    found = [plt.matplotlib.colors.to_hex(b.patches[0].get_facecolor()).upper() for b in groups]
    assert found == [drawn[0], plots.AFTER, drawn[2]]
    seven = [plots.line_style(k)["color"] for k in range(7)]
    assert set(seven) == set(plots.PALETTE)  # more are told apart all the same


def finding(low, high, verdict, power=20.0):
    """Hidden models at 10 nats, retrained ones at 40, so that the gap is 30."""
    middle = (low + high) / 2
    ends = middle, low, high, 30.0, power, 0.0, 0.01, 0.5
    return Finding(OTHER, "hidden", 10.0, 40.0 - middle, 40.0, 3, 3, 4, *ends, verdict)


def marks(ax, marker):
    """Places of the points with this marker."""
    return [x.get_xdata()[0] for x in ax.get_lines() if x.get_marker() == marker]


def test_an_interval_has_the_marker_of_its_verdict_and_what_remembers_beside_it():
    rows = {
        "as if it never knew": finding(-2.0, 4.0, ALIKE),
        "wide": finding(-20.0, 5.0, ERASED),
        "given away": finding(-40.0, -20.0, RESISTS),
        "bad": finding(20.0, 30.0, REMAINS),
        "undecided": finding(-20.0, 20.0, UNDECIDED),
        "dear for all": finding(-1.0, 1.0, DAMAGED),
        "blind": finding(-20.0, 1.0, INCONCLUSIVE, power=1.0),
    }
    ax = sa.excess_intervals(rows, title="class 3")
    ends = [x for x in ax.get_lines() if list(x.get_ydata()) in [[row, row] for row in range(7)]]
    assert [list(x.get_xdata()) for x in ends] == [[f.low, f.high] for f in rows.values()]
    assert {x.get_color() for x in ends} == {plots.AFTER}
    found = [mark for marker in "o<sDPx" for mark in marks(ax, marker)]
    assert found == pytest.approx([f.excess for f in rows.values()])
    circles = [x.get_markerfacecolor() for x in ax.get_lines() if x.get_marker() == "o"]
    assert circles == [plots.AFTER, "white"]  # alike is filled, erased is open
    assert marks(ax, "^") == pytest.approx([30.0] * 7)  # the gap
    gray = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert gray == [pytest.approx((-15.0, 25.0))] * 6  # none where the rung cannot tell
    assert [t.get_text() for t in ax.get_yticklabels()] == list(rows)
    assert ax.get_ylim() == (6.5, -0.5)  # the first row on top
    assert ax.get_title() == "class 3"
    assert "nats" in ax.get_xlabel()


def test_the_axes_given_are_used():
    ax = plt.figure().subplots()
    assert plots.image_grid(flat(0.0), 1, ax) is ax
    assert plots.curves({"a": [1.0]}, ax) is ax
    assert plots.class_bars({"m": torch.ones(1)}, ax) is ax
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: plots.curves({}), ValueError, "history is empty: give at least one to draw"),
        (lambda: plots.curves([1.0]), TypeError, "history is of type list, not Mapping"),
        (lambda: plots.curves({"a": 1.0}), TypeError, r"history\['a'\] is of type float"),
        (lambda: plots.image_rows({"a": 1}), TypeError, r"rows\['a'\] is of type int, not Tensor"),
        (lambda: plots.class_bars({"a": [1.0]}), TypeError, r"values\['a'\] is of type list"),
        (
            lambda: plots.recovery_curves({"a": [1, 2]}),
            TypeError,
            r"curves\['a'\] is of type list, not Curve: relearn returns a RecoveryCurve",
        ),
        (
            lambda: plots.class_columns(torch.rand(2, 1, 28, 28), [0, 1]),
            TypeError,
            "labels is of type list, not Tensor",
        ),
        (
            lambda: plots.class_columns(flat(0.1, 0.2), torch.tensor([0, 0]), rows=0),
            ValueError,
            "rows=0 must be a whole number from 1",
        ),
        (
            lambda: plots.class_columns(flat(0.1, 0.2), torch.tensor([0, 3]), 1, names=("a",)),
            ValueError,
            r"names=\('a',\): give 4, one for each class 0 to 3",
        ),
        (
            lambda: sa.excess_intervals({"a": 0.5}),
            TypeError,
            r"findings\['a'\] is of type float, not Finding",
        ),
        (lambda: sa.excess_intervals({}), ValueError, "findings is empty: give at least one"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
