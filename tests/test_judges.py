"""The judges, their verdicts and the distance of two sets of images."""

import math

import pytest
import torch
from torch import nn

import sahelpers as sa
from sahelpers.judges import JUDGE_ROLES


@pytest.mark.parametrize("role", list(JUDGE_ROLES))
def test_judges_answer_and_come_back_from_their_state(role, digits, monkeypatch):
    monkeypatch.setattr("sahelpers.judges.BATCH", 7)
    judge = sa.Judge(role).eval()
    p = judge.probabilities(digits.images)
    assert p.shape == (40, 11 if role in ("open_set", "wary") else 10)
    assert torch.allclose(p.sum(1), torch.ones(40), atol=1e-5)
    assert torch.allclose(p, judge(digits.images).softmax(1), atol=1e-5)
    assert judge.features(digits.images).ndim == 2
    again = sa.Judge.from_state(judge.to_state()).probabilities(digits.images)
    assert torch.allclose(again, p, atol=1e-5)


@pytest.mark.parametrize(("former", "role"), [("open", "open_set"), ("plain", "closed_set")])
def test_a_judge_of_an_earlier_release_comes_back_under_its_new_role(former, role, digits):
    judge = sa.Judge(role).eval()
    again = sa.Judge.from_state({**judge.to_state(), "role": former})
    assert again.role == role
    assert torch.allclose(
        again.probabilities(digits.images), judge.probabilities(digits.images), atol=1e-5
    )
    with pytest.raises(ValueError, match="role='plain'"):
        sa.Judge("plain")  # in files only


def test_judges_differ():
    shapes = {role: [tuple(p.shape) for p in sa.Judge(role).parameters()] for role in JUDGE_ROLES}
    assert len({str(s) for s in shapes.values()}) == len(JUDGE_ROLES)


class Oracle(sa.Judge):
    """A judge that answers from the mean gray level; features are two pixels."""

    def __init__(self):
        super().__init__("open_set")

    def probabilities(self, images):
        level = (images.mean((1, 2, 3)) * 10).long().clamp(0, 9)
        return nn.functional.one_hot(level, 11).float() * 0.8 + 0.2 / 11

    def features(self, images):
        return images.flatten(1)[:, :2]


def painted(monkeypatch, model, level_of):
    """Make the model draw a flat level for each label."""

    def decode(z, labels):
        levels = torch.tensor([level_of(int(c)) for c in labels])
        return levels.view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

    monkeypatch.setattr(model, "decode", decode)
    return model


def test_verdict_counts_rows_and_columns(monkeypatch, tiny):
    model = painted(monkeypatch, tiny, lambda c: 0.05 + 0.1 * (c if c != 3 else 7))
    latents = sa.fixed_latents(tiny, per_class=6)
    verdict = sa.judge_samples(model, Oracle().eval(), latents)
    expected = torch.eye(11)[:10].clone()
    expected[3] = torch.eye(11)[7]
    assert torch.equal(verdict.argmax, expected)
    assert torch.allclose(verdict.probability, 0.8 * expected + 0.2 / 11)
    assert verdict.correct().tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert verdict.correct((3, 4)).tolist() == [0, 1]


def test_fixed_latents_are_the_same_for_every_model(tiny):
    a, b = sa.fixed_latents(tiny, 5), sa.fixed_latents(tiny, 5)
    assert torch.equal(a.z, b.z)
    assert a.labels.tolist() == sorted(list(range(10)) * 5)
    with pytest.raises(ValueError, match="per_class=0"):
        sa.fixed_latents(tiny, 0)
    with pytest.raises(ValueError, match="prior='x'"):
        sa.fixed_latents(tiny, 5, prior="x")


def test_batches_do_not_change_the_images(tiny, monkeypatch):
    latents = sa.fixed_latents(tiny, 7)
    whole = sa.draw_images(tiny, latents)
    monkeypatch.setattr("sahelpers.judges.DRAW_BATCH", 11)
    assert torch.allclose(whole, sa.draw_images(tiny, latents), atol=1e-6)
    assert torch.allclose(whole, tiny.decode(latents.z, latents.labels), atol=1e-6)


def test_retained_accuracy_has_the_worst_drop_of_a_kept_class():
    before = sa.Verdict(torch.zeros(4, 4), torch.diag(torch.tensor([0.9, 0.8, 1.0, 0.7])))
    after = sa.Verdict(torch.zeros(4, 4), torch.diag(torch.tensor([0.9, 0.0, 0.97, 0.75])))
    change = sa.retained_accuracy(before, after, (1,))
    assert change.mean_before == pytest.approx(100 * (0.9 + 1.0 + 0.7) / 3)
    assert change.mean_after == pytest.approx(100 * (0.9 + 0.97 + 0.75) / 3)
    assert (change.worst_class, change.worst_drop) == (2, pytest.approx(3.0))


def test_frechet_distance_has_the_closed_form_of_two_gaussians():
    """Independent features: |m1 - m2|^2 + sum (s1 - s2)^2."""
    judge = Oracle().eval()
    generator = sa.seeded(0)
    images = torch.rand((20_000, 1, 28, 28), generator=generator)
    other = 0.25 + 0.5 * torch.rand((20_000, 1, 28, 28), generator=generator)
    expected = 2 * (math.sqrt(1 / 12) - 0.5 * math.sqrt(1 / 12)) ** 2  # equal means of 0.5
    found = sa.frechet_distance(judge, images, other)
    assert found == pytest.approx(expected, rel=0.05)
    assert sa.frechet_distance(judge, images, images) == pytest.approx(0, abs=1e-8)
    shifted = (0.5 * images + 0.5, 0.5 * images)
    assert sa.frechet_distance(judge, *shifted) == pytest.approx(2 * 0.25, rel=1e-3)


def test_a_judge_that_still_learns_measures_no_distance(mnist):
    with pytest.raises(ValueError, match="training mode"):
        sa.frechet_distance(sa.Judge("open_set"), mnist.images[:20], mnist.images[20:40])


@pytest.mark.parametrize(
    ("probability", "argmax", "message"),
    [
        (torch.eye(4), torch.eye(5), r"verdict\.argmax of shape \(5, 5\) must be \(4, 4\)"),
        (torch.eye(4, 6), torch.eye(4, 6), r"\(4, 6\) must be \(K, K\) or \(K, K \+ 1\)"),
        (torch.ones(4), torch.ones(4), r"verdict\.probability of shape \(4,\)"),
        (torch.eye(4), torch.eye(4).long(), r"verdict\.argmax of type torch\.int64 must be float"),
    ],
)
def test_what_is_no_verdict_is_named(probability, argmax, message):
    with pytest.raises(ValueError, match=message):
        sa.Verdict(probability, argmax)
    assert sa.Verdict(torch.eye(4, 5), torch.eye(4, 5)).correct().tolist() == [1, 1, 1, 1]


def test_only_classes_that_there_are_can_be_read_off_a_verdict():
    verdict = sa.Verdict(torch.eye(4), torch.eye(4))
    assert verdict.correct([0, 3]).tolist() == [1, 1]
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=f"class {wrong} is not a class"):
            verdict.correct([wrong])
    lacking = torch.eye(4)
    lacking[2] = torch.nan
    lacking = sa.Verdict(lacking, lacking)
    with pytest.raises(ValueError, match=r"no sample of the kept classes \[2\]"):
        sa.retained_accuracy(verdict, lacking, 0)
