"""The figures of other papers: precision and recall, and that the page says what was measured."""

import literature
import pieces
import pytest
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.study import grid


def slowly(points, others, k=3):
    """Share of points within the distance of some other to its k-th neighbour: plain loops."""
    inside = 0
    for p in points:
        for i, q in enumerate(others):
            own = sorted(float((q - r).norm()) for j, r in enumerate(others) if j != i)
            if float((p - q).norm()) <= own[k - 1] + 1e-6:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_precision_and_recall_are_the_loops(shift):
    draw = torch.Generator().manual_seed(0)
    real = torch.randn(40, 3, generator=draw)
    drawn = 0.7 * torch.randn(30, 3, generator=draw) + shift
    found = literature.precision_recall(real, drawn)
    expected = {"precision": 100 * slowly(drawn, real), "recall": 100 * slowly(real, drawn)}
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_same_points_are_found_and_distant_ones_are_not():
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert set(literature.precision_recall(points, points).values()) == {100.0}
    assert set(literature.precision_recall(points, points + 100).values()) == {0.0}


def test_mixtures_are_of_kept_labels_at_the_same_z():
    torch.manual_seed(0)
    model = sa.CVAE(latent_dim=3).eval()
    first = literature.mixtures(model, 3)
    assert first.shape == (36 * literature.DRAWS, 1, 28, 28)
    with torch.no_grad():  # the columns of c_f's label do not matter
        model.decoder[0].weight[:, 3 + 3] += 1
    assert torch.equal(first, literature.mixtures(model, 3))
    assert not torch.equal(first, literature.mixtures(model, 4))


def figures(shift=0.0, drift=0.25):
    """What a line holds, all of it moved by a shift."""
    found = {"p": 0.1, "entropy": 2.0, "unlearning": 90.0, "retain": 80.0, "precision": 70.0}
    found = {name: value + shift for name, value in found.items()} | {"recall": 60.0 - shift}
    found["frechet"] = [10.0 + shift] * 8 + [10.0 + 2 * shift]
    return found | {"mixtures": drift}


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """Two digits, of which the second lacks a model."""
    path = tmp_path / "literature.jsonl"
    monkeypatch.setattr(literature, "JOURNAL", path)
    shifts = dict(zip(literature.COMPARED, (0.0, 1, 2, 3, 4, 5, 6), strict=True))
    for digit, method in literature.models():
        if digit < 2 and (digit, method) != (1, literature.OURS):
            grid.append(path, {"digit": digit, "method": method, **figures(shifts[method])})
    return path


def test_the_table_is_made_of_the_digits_that_are_whole(journal):
    page = pieces.page(literature.tables())
    assert "Of the digits [0]; still to be measured: 57 of 70 models." in page
    row = next(line for line in page.splitlines() if line.startswith("| selective amnesia |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    # all moved by 4, of 10: nine classes +40 % but one +80 %; retraining is moved by 5
    expected = ["4.100", "6.000", "94.00", "84.00", "74.00", "56.00"]
    assert cells == [*expected, f"{(8 * 40 + 80) / 9:.2f}", "80.00", "0.250", "1.00"]


def test_other_defaults_and_torn_lines_do_not_count(journal):
    whole = pieces.read(journal, literature.Model)
    line = {"digit": 1, "method": literature.OURS, **figures(), "recipe": "another"}
    grid.append(journal, line)
    with journal.open("a", encoding="utf-8") as stream:
        stream.write('{"digit": 1, "method": "selective amnesia", "p": {}')
    assert pieces.read(journal, literature.Model) == whole
    grid.append(journal, line | {"recipe": pieces.RECIPE})
    assert len(pieces.read(journal, literature.Model)) == len(whole) + 1


def test_the_page_says_what_the_journal_holds():
    page = pieces.page(literature.tables())
    assert (CHECKOUT / "results/literature.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    assert set(pieces.read(literature.JOURNAL, literature.Model)) <= set(literature.models())
