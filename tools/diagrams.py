"""The collection's four diagrams: `python tools/diagrams.py` writes docs/diagram_*.png.

Nothing in them is measured.  Every model keeps one colour and one pattern in all of them and in
the notebooks' figures, so that none is told apart by colour alone.
"""

import argparse
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from sahelpers.attacks.verdicts import LEAST
from sahelpers.config import CHECKOUT
from sahelpers.plots import AFTER, BEFORE, HIDDEN, MODELS, PALETTE, RETRAINED

FOLDER = CHECKOUT / "docs"
INK, PALE = "#222222", "#F2F2F2"
MASKED = PALETTE[MODELS["masked"]]
Point = tuple[float, float]


def canvas(width: float, height: float) -> Axes:
    """White paper of this size in inches; one inch is one unit."""
    ax = plt.figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return ax


def save(ax: Axes, name: str) -> None:
    """Write docs/diagram_<name>.png, the same bytes each time."""
    figure: Any = ax.figure
    figure.savefig(FOLDER / f"diagram_{name}.png", dpi=100, metadata={"Software": None})
    plt.close(figure)


def write(ax: Axes, x: float, y: float, text: str, size: float = 12, **look: Any) -> None:
    """Text centred at a point."""
    ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": INK, **look})


def box(
    ax: Axes, x: float, y: float, w: float, h: float, text: str = "", edge: str = INK, **look: Any
) -> None:
    """A rounded box with its lower left corner at x, y."""
    shape = "round,pad=0,rounding_size=0.08"
    style = {"facecolor": "white", "lw": 2, **look}
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=shape, edgecolor=edge, **style))
    write(ax, x + w / 2, y + h / 2, text)


def arrow(ax: Axes, start: Point, end: Point, color: str = INK, **look: Any) -> None:
    """An arrow from start to end."""
    props = {"arrowstyle": "-|>", "color": color, "lw": 2, "mutation_scale": 18}
    ax.annotate("", end, start, arrowprops={**props, "shrinkA": 0, "shrinkB": 0, **look})


def picture(ax: Axes, x: float, y: float, side: float, *strokes: tuple[str, float]) -> None:
    """A small black image on which digits are drawn, each with its lightness; none: flat gray."""
    color = "black" if strokes else "0.5"
    ax.add_patch(Rectangle((x, y), side, side, facecolor=color, edgecolor=INK))
    for digit, light in strokes:
        look = {"color": str(light), "family": "serif", "weight": "bold", "va": "center_baseline"}
        write(ax, x + side / 2, y + side / 2 - 0.02, digit, 46 * side, **look)


def cvae() -> None:
    """Image and label into the encoder, z and label into the decoder."""
    ax = canvas(10, 4.1)
    picture(ax, 0.3, 1.75, 1.0, ("3", 1))
    write(ax, 0.8, 3.0, "image $x$:\n784 grays")
    box(ax, 1.95, 1.5, 1.6, 1.5, "encoder\n$q(z\\,|\\,x, y)$", facecolor=PALE)
    box(ax, 4.2, 1.6, 1.5, 1.3, "latent $z$\n20 numbers:\nstyle")
    box(ax, 6.35, 1.5, 1.6, 1.5, "decoder\n$p(x\\,|\\,z, y)$", facecolor=PALE)
    picture(ax, 8.6, 1.75, 1.0, ("3", 1))
    write(ax, 9.1, 3.0, "784 probabilities\nof white")
    for start, end in ((1.3, 1.95), (3.55, 4.2), (5.7, 6.35), (7.95, 8.6)):
        arrow(ax, (start, 2.25), (end, 2.25))
    write(ax, 2.75, 3.75, "training: $z$ from the encoder,\nmean + deviation $\\times$ noise", 11)
    arrow(ax, (3.87, 3.45), (3.87, 2.35), lw=1.5, mutation_scale=12)
    write(ax, 6.9, 3.75, "drawing: $z$ from $N(0, I)$\nor from the class's Gaussian", 11)
    ax.plot([5.55, 4.95], [3.75, 3.75], color=INK, lw=2, ls="--")
    arrow(ax, (4.95, 3.77), (4.95, 2.9), linestyle="--")
    box(ax, 4.2, 0.2, 1.5, 0.65, hatch="....", facecolor="0.8", lw=3)
    write(ax, 4.95, 0.52, "label $y$: 3", weight="bold", bbox={"fc": "white", "ec": "none"})
    for start, x, beside, side in ((4.2, 2.75, -0.15, "right"), (5.7, 7.15, 0.15, "left")):
        ax.plot([start, x], [0.52, 0.52], color=INK, lw=3)
        arrow(ax, (x, 0.5), (x, 1.5), lw=3)
        half = "encoder" if side == "right" else "decoder"
        write(ax, x + beside, 1.0, f"gate of the {half}:\nweights that read $y$", 11, ha=side)
    save(ax, "cvae")


def objective() -> None:
    """Four terms around the model that is trained; the attacker meets its shadow."""
    ax = canvas(10, 5.5)
    box(ax, 3.75, 2.05, 2.5, 1.4, edge=AFTER, lw=3, facecolor="#FCE6DA", hatch="//")
    fill = {"fc": "white", "ec": "none"}
    write(ax, 5, 2.75, "model in training,\nweights $\\theta$", 13, weight="bold", bbox=fill)

    box(ax, 0.15, 3.65, 3.5, 1.7)
    write(ax, 1.9, 5.08, "1  forget: draw the surrogate", weight="bold")
    write(ax, 0.93, 4.3, "label 3 and\nmixtures,\nany $z$", 11)
    picture(ax, 2.6, 3.85, 0.85)
    arrow(ax, (1.65, 4.3), (2.5, 4.3))

    box(ax, 6.35, 3.65, 3.5, 1.7, edge=BEFORE)
    write(ax, 8.1, 5.08, "2  replay: draw as before", weight="bold")
    write(ax, 7.2, 4.3, "kept label\n7, any $z$")
    picture(ax, 8.85, 3.85, 0.85, ("7", 1))
    arrow(ax, (7.9, 4.3), (8.75, 4.3))

    box(ax, 0.15, 0.15, 3.5, 1.7, edge=BEFORE)
    write(ax, 1.9, 1.58, "3  consolidation: springs", weight="bold")
    ax.plot(
        [0.7 + 0.1 * k for k in range(13)], [0.75 + 0.16 * (k % 2) for k in range(13)], color=INK
    )
    write(ax, 0.48, 0.82, "$\\theta$", 15)
    write(ax, 2.12, 0.82, "$\\theta^*$", 15)
    write(ax, 2.95, 0.82, "stiffness:\nFisher $F_i$", 11.5)

    box(ax, 6.35, 0.15, 3.5, 1.7, linestyle="--")
    write(ax, 8.1, 1.58, "4  attacker in the loop", weight="bold")
    picture(ax, 6.5, 0.35, 0.85, ("3", 1))
    write(ax, 8.62, 0.8, "moves $z$ and a label\nuntil the shadow draws\nan old image cheaply", 11)

    arrow(ax, (3.65, 3.85), (4.15, 3.45))
    arrow(ax, (6.35, 3.85), (5.85, 3.45), BEFORE)
    arrow(ax, (3.65, 1.65), (4.15, 2.05), BEFORE)
    box(ax, 4.1, 0.2, 1.75, 0.95, "shadow: a copy,\ntrained further", AFTER, linestyle="--")
    arrow(ax, (6.35, 0.68), (5.85, 0.68), arrowstyle="<|-|>", linestyle="--")
    arrow(ax, (4.7, 1.15), (4.7, 2.05), linestyle="--")
    arrow(ax, (5.45, 2.05), (5.45, 1.15), AFTER)
    write(ax, 5.53, 1.6, "copied", 11, ha="left")
    for x, y, weight in (
        (4.25, 3.8, "w_f"),
        (5.75, 3.8, "\\gamma"),
        (4.2, 1.72, "\\lambda"),
        (4.97, 1.6, "w_a"),
    ):
        write(ax, x, y, f"${weight}$", 15)
    write(ax, 1.9, 2.75, "2 and 3 hold to the frozen\nmodel, weights $\\theta^*$", 11.5)
    write(
        ax,
        8.1,
        2.75,
        "in 4 the weights raise the cost\nin the shadow, the attacker lowers it",
        11.5,
    )
    save(ax, "objective")


ROWS = (  # name, colour, pattern, label's gate, what is behind it, strokes, what an attack finds
    ("baseline", BEFORE, "", "its own", "3", (("3", 1.0),),
     "nothing to find:\nit is drawn on demand"),
    ("hidden", HIDDEN, "xx", "replaced", "3", (("5", 0.45), ("8", 0.75)),
     "the 3, through a new gate\nor under other labels"),
    ("masked", MASKED, "\\\\", "replaced", "3", (("5", 0.45), ("8", 0.75)),
     "nothing until it is trained further:\nits last layer hides the 3, too"),
    ("forgotten", AFTER, "//", "trained", "?", (),
     "the question of notebook 04:\nlike hidden, or like retrained?"),
    ("retrained", RETRAINED, "..", "never used", "", (("8", 0.45), ("9", 0.75)),
     "as much 3 as nine other digits\ncan be bent into: the zero line"),
)  # fmt: skip


def models() -> None:
    """Where the knowledge of the 3 lies, what each model draws for it, what an attack finds."""
    ax = canvas(10, 6.9)
    heads = ((2.75, "the label's gate"), (4.6, "behind the gate"), (6.15, "draws for 3"))
    for x, head in (*heads, (8.35, "an attack finds")):
        write(ax, x, 6.63, head, 12.5, weight="bold")
    for k, (name, color, pattern, gate, knows, strokes, found) in enumerate(ROWS):
        y = 5.3 - 1.28 * k
        box(ax, 0.15, y, 1.6, 1.05, edge=color, hatch=pattern, alpha=0.25, facecolor=color)
        write(ax, 0.95, y + 0.53, name, 13, weight="bold", bbox={"fc": "white", "ec": color})
        look: Any = {"linestyle": "--"} if gate != "its own" else {}
        box(ax, 2.1, y + 0.2, 1.3, 0.65, gate, **look)
        arrow(ax, (3.4, y + 0.53), (3.95, y + 0.53))
        box(ax, 3.95, y, 1.3, 1.05, facecolor=PALE)
        if knows:
            write(ax, 4.6, y + 0.53, knows, 30, family="serif", weight="bold")
        else:
            write(ax, 4.6, y + 0.53, "never saw\na 3", 11.5)
        arrow(ax, (5.25, y + 0.53), (5.7, y + 0.53))
        picture(ax, 5.72, y + 0.09, 0.87, *strokes)
        write(ax, 8.35, y + 0.53, found, 11.5, weight="bold" if name == "forgotten" else "normal")
    save(ax, "models")


CASES = (  # ends in thirds of the gap, words, marker
    (-0.9, 0.6, "alike: the lower end of excess + gap/2 above 0", "o"),
    (-2.1, 0.3, "erased: the upper end of excess \u2212 gap/3 below 0", "o"),
    (-2.9, -1.9, "resists: the upper end of excess + gap/2 below 0", "<"),
    (-1.6, 0.1, "damaged: kept images pay gap/3 more, too", "P"),
    (0.3, 1.9, "memory remains: the lower end of the excess above 0", "s"),
    (-0.6, 1.6, "undecided: none of these", "D"),
)


def verdict() -> None:
    """Power first; then where the interval lies between minus half of the gap and a third of it."""
    ax = canvas(10, 6.3)
    left: Any = {"ha": "left"}
    zero, third = 7.5, 0.75  # place of zero, length of a third of the gap
    half = 1.5 * third

    def row(y: float, low: float, high: float, text: str, color: str, marker: str) -> None:
        ends = [zero + third * low, zero + third * high]
        ax.plot(ends, [y, y], color=color, lw=4, marker="|", ms=14, mew=3)
        look: dict[str, Any] = {"mec": "white", "ms": 14 if marker == "P" else 11}
        if text.startswith("erased"):
            look |= {"mec": color, "mfc": "white", "mew": 2}
        ax.plot([sum(ends) / 2], [y], color=color, marker=marker, **look)
        write(ax, 0.2, y, text, 12, **left)

    power = "First: can the rung tell?  The gap: excess of models that are known to remember"
    write(ax, 0.1, 6.05, power, 12.5, weight="bold", **left)
    row(5.6, 2.1, 3.2, f"its lower end above {LEAST:g} nats: it can, go on below", HIDDEN, "^")
    cannot = f"not above: inconclusive, unless the excess lies above {LEAST:g}"
    row(5.2, -0.6, 1.6, cannot, HIDDEN, "v")
    ax.plot([zero, zero], [5.0, 5.8], color=INK, lw=2)
    found = "Then: how much is found?  Excess of the forgotten models over the retrained models"
    write(ax, 0.1, 4.55, found, 12.5, weight="bold", **left)
    band = Rectangle((zero - half, 1.05), half + third, 3.25, facecolor="0.88", edgecolor="none")
    ax.add_patch(band)
    for k, (low, high, text, marker) in enumerate(CASES):
        row(4.05 - 0.53 * k, low, high, text, AFTER, marker)
    for x, style in ((-half, ":"), (0, "-"), (third, "--")):
        ax.plot([zero + x] * 2, [1.05, 4.3], color=INK, lw=2, ls=style)
    for x, text in ((-half, r"$-\frac{1}{2}$ gap"), (0, "0"), (third, r"$\frac{1}{3}$ gap")):
        write(ax, zero + x, 0.85, text, 12)
    arrow(ax, (5.0, 0.6), (9.9, 0.6))
    write(ax, 6.0, 0.4, "less than retrained models", 10.5)
    write(ax, 8.6, 0.4, "more memory than retrained models", 10.5)
    note = "Alike, resists and damaged also ask for what erased asks.\n"
    note += "The gap is estimated as well: near an edge\nthe mark counts, not where the bar ends."
    write(ax, 0.2, 0.5, note, 10.5, linespacing=1.4, **left)
    save(ax, "verdict")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no typing errors
    for draw in (cvae, objective, models, verdict):
        draw()
