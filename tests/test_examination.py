"""The sealed examination: what damages the weights, and that its tables say what was found."""

import math

import examination
import pieces
import pytest
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.study.statistics import compare_all
from sahelpers.study.verdicts import claim


def tiny_model():
    torch.manual_seed(0)
    return sa.CVAE(latent_dim=3, num_classes=4).eval().requires_grad_(False)


def weights(model):
    return [p for p in model.decoder.parameters() if p.dim() > 1]


def test_noise_has_the_size_that_is_named():
    model = tiny_model()
    new = examination.damage(model, "noise", 0.4, seed=1)
    for before, after in zip(model.decoder.parameters(), new.decoder.parameters(), strict=True):
        if before.numel() > 1000:
            change = (after - before).square().mean().sqrt() / before.square().mean().sqrt()
            assert float(change) == pytest.approx(0.4, rel=0.1)
    assert all(torch.equal(a, b) for a, b in zip(
        model.encoder.parameters(), new.encoder.parameters(), strict=True))  # fmt: skip


def test_pruning_takes_the_smallest_share():
    model = tiny_model()
    for before, after in zip(
        weights(model), weights(examination.damage(model, "pruning", 0.6, seed=1)), strict=True
    ):
        gone = after == 0
        assert gone.float().mean() == pytest.approx(0.6, abs=1 / gone.numel())
        assert before[gone].abs().max() < before[~gone].abs().min()
        assert torch.equal(before[~gone], after[~gone])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_rounding_leaves_so_many_levels(bits):
    model = tiny_model()
    for before, after in zip(
        weights(model), weights(examination.damage(model, "rounding", bits, seed=1)), strict=True
    ):
        levels = after.unique()
        assert len(levels) <= 2**bits - 1
        step = before.abs().max() / (2 ** (bits - 1) - 1)
        assert (before - after).abs().max() <= step / 2 * 1.0001
        assert torch.allclose(levels / step, (levels / step).round(), atol=1e-5)


def test_models_of_the_protocol_were_examined():
    """Not more, at least; what is missing is said on the page."""
    found, wanted = examination.read(), examination.models()
    assert set(found) <= set(wanted)
    assert len(wanted) == 2 * 3 * 11 + 3 + 10 * 4
    left = len(wanted) - len(found)
    page = (CHECKOUT / "results/examination.md").read_text(encoding="utf-8")
    assert (f"Still to be examined: {left} models" in page) == (left > 0)
    for values in found.values():
        for attacks in values.values():
            assert {*examination.DAMAGED, *examination.LAYER, examination.FITTED} <= set(attacks)
            assert all(math.isfinite(v) for several in attacks.values() for v in several)


def test_the_tables_say_what_the_journal_holds():
    page = pieces.page(examination.tables())
    assert (CHECKOUT / "results/examination.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")


def test_readme_is_right_about_the_sealed_seeds():
    """It says that all four attacks acquit every digit."""
    reports = compare_all(examination.gathered(tuple(range(10))))
    told = claim({d: r.by_attack for d, r in reports.items()})
    assert len(reports) == 10
    assert [tally.erased and len(tally.powered) == 10 for tally in told.named] == [True] * 4
    assert not told.remains


def test_the_first_layer_is_fitted_and_nothing_else_moves():
    model, images = tiny_model(), torch.rand((3, 1, 28, 28), generator=sa.seeded(1))
    before = [p.clone() for p in model.parameters()]
    costs = examination.fit_first_layer(model, 2, images, steps=80)
    label, _, _ = sa.recovery.fit_label(model, 2, images[None], steps=80)
    bound = torch.nn.functional.binary_cross_entropy(images, images, reduction="sum") / 3
    assert float(bound) < sum(costs) / 3 < float(label)  # more weights reach farther than a label
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
