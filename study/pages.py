"""What pages are made of: tables of Markdown, lines between two marks, figures as PNG."""

import io
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; empty without a row."""
    lines = ["".join(f"| {cell} " for cell in row) + "|\n" for row in (head, *rows)]
    if len(lines) == 1:
        return ""
    return lines[0] + "|---" * len(head) + "|\n" + "".join(lines[1:])


def between_marks(page: str, begin: str, lines: Sequence[str], end: str) -> str:
    """A page with these lines between two marks of it; ValueError for a page without the marks."""
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page lacks {begin} ... {end}: put both marks where the lines belong")
    return before + "\n".join([begin, *lines, end]) + after


def as_png(figure: Figure, comment: str | None = None) -> bytes:
    """A figure as PNG on white, which does not name the software that drew it."""
    file = io.BytesIO()
    words = {"Software": None, "Comment": comment}
    figure.savefig(file, dpi=100, facecolor="white", metadata=words)
    return file.getvalue()
