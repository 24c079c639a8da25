"""The attacks on one model and the audit of it, on tiny models."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import sahelpers as sa
from sahelpers.attacks import audit as audit_module
from sahelpers.attacks.audit import LABEL_ONLY_SIZES, AuditConfig, attack_model, audit
from sahelpers.attacks.verdicts import CLAIM_ATTACKS, WITHOUT_VERDICT, compare_all
from sahelpers.attacks.weights import RecoveryCurve

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
CLASS = 2
SMALL = AuditConfig(images=6, kept_images=4, steps=3, neighbours=2, relearn_steps=1, draws=2)


def tiny_model(seed, seen=(0, 1, 2, 3)):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = sa.CVAE(latent_dim=3, num_classes=4).eval()
    for label in seen:
        model.set_class_prior(label, 1 + torch.randn((20, 3), generator=sa.seeded(label)))
    return model


@pytest.fixture(scope="module")
def given():
    """Tiny judges, images and a baseline."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        judges = {role: sa.Judge(role, num_classes=4).eval() for role in ("open_set", "closed_set")}
    images = torch.rand((108, 1, 28, 28), generator=sa.seeded(1))
    labels = torch.tensor([CLASS] * 100 + [0, 1, 3, 0, 1, 3, 0, 1])
    data = sa.LabelledImages(images, labels, tuple("abcd"))
    return {"judges": judges, "data": data, "baseline": tiny_model(0)}


@pytest.fixture
def shortly(monkeypatch):
    """Fits of the label in a step: curve and cost are of nobody's interest."""
    fit_label = audit_module.fit_label
    monkeypatch.setattr(audit_module, "fit_label", partial(fit_label, steps=1))
    monkeypatch.setattr("sahelpers.attacks.weights.SAMPLES", 16)


def three_retrained():
    return [tiny_model(k, seen=(0, 1, 3)) for k in (1, 5, 6)]


def test_the_audit_attacks_all_alike(given, shortly):
    retrained, model = three_retrained(), tiny_model(2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = audit(model, CLASS, SMALL, retrained=retrained, **given)
    models = (model, sa.reset_label(given["baseline"], CLASS), *retrained)
    values = [attack_model(m, CLASS, SMALL, **given) for m in models]
    expected = compare_all({CLASS: (values[:1], values[1:2], values[2:])})[CLASS]
    expected = replace(expected, notes=report.notes)
    assert repr(report) == repr(expected)  # nan is not equal to itself
    assert {f.attack for f in report.findings} == {*CLAIM_ATTACKS, *WITHOUT_VERDICT}
    for finding in report.findings:
        assert (finding.n_models, finding.n_retrained) == (1, 3)
        assert finding.attack in str(report)
    assert report.forget_class == CLASS
    assert report.notes == ()  # of a hundred images all that was asked for
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again = audit(model, np.int64(CLASS), SMALL, retrained=retrained, **given)
    assert repr(again) == repr(report)


def test_few_images_are_taken_as_they_are_and_the_report_says_so(given, shortly):
    data = given["data"]
    index = torch.tensor([*range(12), *range(100, 108)])
    few = sa.LabelledImages(data.images[index], data.labels[index], data.class_names)
    report = audit(
        tiny_model(2), CLASS, SMALL, retrained=three_retrained(), **{**given, "data": few}
    )
    assert report.notes == (
        "There are 12 images of the class: attacks that ask for more take these.",
    )
    assert str(report).endswith(report.notes[0])
    assert {f.attack for f in report.findings} == {*CLAIM_ATTACKS, *WITHOUT_VERDICT}


def test_the_attacks_are_what_they_say(given, monkeypatch):
    """The fits of the label are recorded; costs are those of `image_cost`."""
    calls, config = [], replace(SMALL, images=5, draws=3)

    def relearning(model, label, *, data, judges, steps, over, seed):
        calls.append((label, over, steps, len(data), set(data.labels.tolist()), seed))
        return RecoveryCurve([0, 1], [0.25 * len(calls)] * 2, model)

    def fitting(model, label, sets):
        fitted.append((label, sets))
        return torch.tensor([7.0] * len(sets)), None, None

    def shown(images, judges, label):
        return torch.arange(len(images)) % 2 == 0

    fitted = []
    monkeypatch.setattr(audit_module, "relearn", relearning)
    monkeypatch.setattr(audit_module, "fit_label", fitting)
    monkeypatch.setattr(audit_module, "attack_success", shown)
    model = tiny_model(1)
    found = attack_model(model, CLASS, config, **given)
    assert list(found) == [*CLAIM_ATTACKS, *WITHOUT_VERDICT]
    assert [call[:5] for call in calls] == [
        (CLASS, "label", 1, n, {CLASS}) for n in LABEL_ONLY_SIZES for _ in range(3)
    ]
    assert len({call[5] for call in calls}) == 6  # other images each
    assert found["label only, 10 images"] == [0.25, 0.5, 0.75]
    images = given["data"].only(CLASS).take(5, config.seed).images
    own = sa.image_cost(given["baseline"], images, torch.tensor([CLASS]), config.steps)[0]
    others = sa.image_cost(model, images, torch.tensor([0, 1, 3]), config.steps)[0]
    expected = (others.amin(1) - own[:, 0]).tolist()
    assert found["cost under other labels"] == pytest.approx(expected, abs=1e-3)
    ((label, sets),) = fitted
    assert label == CLASS
    assert torch.equal(sets, images[None])  # five images are one set, not ten
    price = 7 - float(own.mean())
    assert found["cost under a fitted label"] == pytest.approx([price], abs=1e-3)
    assert found["share shown under other labels"] == [0.5] * 5
    kept = given["data"].without(CLASS).take(4, config.seed)
    own = sa.image_cost(model, kept.images, kept.labels[:, None], config.steps)[0][:, 0]
    assert found["kept digits' cost, own label"] == pytest.approx(own.tolist(), abs=1e-3)
    apart = torch.tensor([[k for k in (0, 1, 3) if k != c] for c in kept.labels.tolist()])
    other = sa.image_cost(model, kept.images, apart, config.steps)[0].amin(1)
    assert found["kept digits' cost, other labels"] == pytest.approx(other.tolist(), abs=1e-3)
    again = attack_model(model, CLASS, replace(config, seed=43), **given)
    assert found["cost under other labels"] != again["cost under other labels"]


def test_a_label_is_fitted_to_sets_of_ten_real_images(given, monkeypatch):
    fitted = []

    def fitting(model, label, sets):
        fitted.append(sets)
        return torch.zeros(len(sets)), None, None

    monkeypatch.setattr(audit_module, "fit_label", fitting)
    monkeypatch.setattr("sahelpers.attacks.weights.SAMPLES", 16)
    config = replace(SMALL, images=36, draws=5)
    found = attack_model(tiny_model(1), CLASS, config, **given)
    assert tuple(fitted[0].shape[:2]) == (3, 10)  # of 36 images there are three sets
    assert len(found["cost under a fitted label"]) == 3
    assert len(fitted[0].flatten(0, 1).unique(dim=0)) == 30


def test_refusals_name_what_is_wrong(given):
    model, others = tiny_model(0), three_retrained()
    asked = partial(audit, config=SMALL, **given)
    with pytest.raises(ValueError, match=r"retrained\[3\] was trained with class 2"):
        asked(model, CLASS, retrained=[*others, model])
    for given_twice in ([*others, others[0]], [*others, tiny_model(0, seen=())]):
        with pytest.raises(ValueError, match=r"retrained\[3\] has the weights of"):
            asked(tiny_model(0), CLASS, retrained=given_twice)
    with pytest.raises(
        ValueError, match=r"retrained\[3\] has arch, latent_dim and image_shape .*4, .*, the model"
    ):
        asked(model, CLASS, retrained=[*others, sa.CVAE(latent_dim=4, num_classes=4).eval()])
    with pytest.raises(ValueError, match=r"retrained\[3\] has 3 classes, not 4"):
        asked(model, CLASS, retrained=[*others, sa.CVAE(latent_dim=3, num_classes=3).eval()])
    for few in ([], others[:2]):
        with pytest.raises(ValueError, match=f"{len(few)} retrained models: give 3 or more"):
            asked(model, CLASS, retrained=few)
    nothing = {**given, "data": given["data"].without(CLASS)}
    with pytest.raises(ValueError, match="data has 0 images of class 2: give 10 or more"):
        audit(model, CLASS, SMALL, retrained=others, **nothing)
    alone = {**given, "data": given["data"].only(CLASS)}
    with pytest.raises(ValueError, match="data has images of class 2 only"):
        audit(model, CLASS, SMALL, retrained=others, **alone)
    with pytest.raises(ValueError, match="class 4"):
        asked(model, 4, retrained=others)
    with pytest.raises(ValueError, match="images=1 "):
        AuditConfig(images=1)
    with pytest.raises(TypeError, match="config"):
        audit(model, CLASS, {"images": 5}, retrained=others, **given)
