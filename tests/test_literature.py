"""The figures of other papers: precision and recall, and that the page says what was measured."""

import literature
import pieces
import pytest
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT


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
    assert found == pytest.approx((slowly(drawn, real), slowly(real, drawn)), abs=1e-6)


def test_the_same_points_are_found_and_distant_ones_are_not():
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert literature.precision_recall(points, points) == (1.0, 1.0)
    assert literature.precision_recall(points, points + 100) == (0.0, 0.0)


def test_mixtures_are_of_kept_labels_at_the_same_z():
    torch.manual_seed(0)
    model = sa.CVAE(latent_dim=3).eval()
    first = literature.mixtures(model, 3)
    assert first.shape == (36 * literature.DRAWS, 1, 28, 28)
    with torch.no_grad():  # the columns of c_f's label do not matter
        model.decoder[0].weight[:, 3 + 3] += 1
    assert torch.equal(first, literature.mixtures(model, 3))
    assert not torch.equal(first, literature.mixtures(model, 4))


def test_the_page_says_what_the_journal_holds():
    page = pieces.page(literature.tables())
    assert (CHECKOUT / "results/literature.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    found = pieces.read(literature.JOURNAL, literature.Model)
    assert set(found) <= set(literature.models())
    for of in found.values():
        assert set(of) == set(literature.COLUMNS)
