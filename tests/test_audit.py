"""The audit of one model, on tiny models: who climbs, what the report says, and what is refused."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import sahelpers as sa
from sahelpers.attacks import audit as audit_module
from sahelpers.attacks import ladder as ladder_module
from sahelpers.attacks.audit import audit
from sahelpers.attacks.ladder import FITTED, OTHER, RUNGS, Ladder, LadderConfig
from sahelpers.attacks.verdicts import Climbed, compare_all
from sahelpers.masked import PUSH, masked_model

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
CLASS = 2
SMALL = LadderConfig(
    images=6,
    choosing=6,
    z_steps=1,
    sets=2,
    set_size=3,
    fit_steps=1,
    heal_steps=4,
    relearn_steps=25,
)


def tiny_model(seed, seen=(0, 1, 2, 3), **changes):
    given = {"latent_dim": 3, "num_classes": 4, "image_shape": (1, 8, 8)} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = sa.CVAE(**given).eval()
    for label in seen:
        latents = torch.randn((20, model.latent_dim), generator=sa.seeded(label))
        model.set_class_prior(label, 1 + latents)
    return model


def made_up(of_class, others=12, seed=1):
    """Images of noise of four classes."""
    labels = torch.tensor([CLASS] * of_class + [0, 1, 3] * (others // 3))
    images = torch.rand((len(labels), 1, 8, 8), generator=sa.seeded(seed))
    return sa.LabelledImages(images, labels, tuple("abcd"))


GIVEN = {"baseline": tiny_model(0), "data": (made_up(12, 24, seed=2), made_up(30))}


@pytest.fixture(autouse=True)
def shortly(monkeypatch):
    """A mask of one step and little relearning: how well they work is of no interest here."""
    monkeypatch.setattr(audit_module, "masked_model", partial(masked_model, steps=1))
    monkeypatch.setattr("sahelpers.attacks.gate.OWN_LABEL", 0.0)  # tiny models know nothing
    monkeypatch.setattr(ladder_module, "RATES", (1e-3,))
    monkeypatch.setattr(ladder_module, "FURTHER", 0)
    monkeypatch.setattr(ladder_module, "LABEL_STEPS", 25)


def three_retrained(**changes):
    return [tiny_model(k, seen=(0, 1, 3), **changes) for k in (1, 5, 6)]


def test_classes_that_were_forgotten_together_are_no_kept_classes(monkeypatch):
    """Or the attackers would train the model further with images of another forgotten class."""
    faced = []

    class Seen(Ladder):
        def __init__(self, baseline, forget_class, train, test, config):
            super().__init__(baseline, forget_class, train, test, config)
            faced.append(
                (set(self.kept_train.labels.tolist()), set(self.kept.data.labels.tolist()))
            )

    monkeypatch.setattr(audit_module, "Ladder", Seen)
    both = [tiny_model(k, seen=(0, 3)) for k in (1, 5, 6)]
    for retrained in (three_retrained(), both):
        report = audit(tiny_model(2), CLASS, SMALL, retrained=retrained, **GIVEN)
        left_out = [note for note in report.notes if note.startswith("Left out")]
    assert "no retrained model has a Gaussian of them" in left_out[0]
    assert faced == [({0, 1, 3}, {0, 1, 3}), ({0, 3}, {0, 3})]


def test_models_that_forgot_more_than_the_retrained_ones_lack_are_refused():
    """Or the attackers would take images of another forgotten class for kept ones."""
    two = tiny_model(2, seen=(0, 3))
    words = r"model has no Gaussian of the classes b either, .*give models retrained without all"
    with pytest.raises(ValueError, match=words):
        audit(two, CLASS, SMALL, retrained=three_retrained(), **GIVEN)


def test_a_report_says_how_its_effort_differs_from_the_usual():
    report = audit(tiny_model(2), CLASS, SMALL, retrained=three_retrained(), **GIVEN)
    (note,) = [note for note in report.notes if "effort" in note]
    assert note.startswith("Not the usual effort, so not to be compared with it: ")
    assert "images=6, " in note
    assert "heal_steps=4, " in note
    assert "seed" not in note


def test_all_models_climb_the_same_ladder():
    retrained, model, baseline = three_retrained(), tiny_model(2), GIVEN["baseline"]
    every = [model, baseline, *retrained]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in every]
    report = audit(model, CLASS, SMALL, retrained=retrained, **GIVEN)
    ladder = Ladder(baseline, CLASS, *GIVEN["data"], SMALL)
    unknowing = [ladder.climb(m) for m in retrained]
    tried = ladder.try_out(masked_model(baseline, CLASS, steps=1))
    mean = {rung: np.mean([np.mean(of[rung]) for of in unknowing]) for rung in (OTHER, FITTED)}
    push = max(0, PUSH - min(tried.other - mean[OTHER], tried.fitted - mean[FITTED]))
    mask = masked_model(baseline, CLASS, push=float(push), steps=1)
    hidden = sa.reset_label(baseline, CLASS)
    climbed = Climbed(*([ladder.climb(m)] for m in (model, hidden, mask)), unknowing)
    expected = compare_all({CLASS: climbed})[CLASS]
    assert report == replace(expected, notes=report.notes)
    assert report.notes[: len(expected.notes)] == expected.notes
    assert report.notes[-1].startswith("One model borrows the spread of the retrained ones")
    assert report.forget_class == CLASS
    assert [f.rung for f in report.findings] == list(RUNGS)
    assert all((f.n_models, f.n_known, f.n_retrained) == (1, 1, 3) for f in report.findings)
    assert all(rung in str(report) for rung in RUNGS)
    for m, state in zip(every, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in m.state_dict().items())
    for of_class in (np.int64(CLASS), "c"):  # a name is as good as a number
        assert audit(model, of_class, SMALL, retrained=retrained, **GIVEN) == report
    other = audit(model, CLASS, replace(SMALL, seed=43), retrained=retrained, **GIVEN)
    assert other.findings != report.findings


def test_data_may_be_a_list_as_in_a_story():
    given = GIVEN | {"data": list(GIVEN["data"])}
    with pytest.raises(ValueError, match="1 retrained models: give 3"):
        audit(tiny_model(2), CLASS, SMALL, retrained=three_retrained()[:1], **given)


def test_where_the_baseline_does_not_know_the_class_nothing_is_attacked(monkeypatch):
    monkeypatch.setattr("sahelpers.attacks.gate.OWN_LABEL", 1.1)
    monkeypatch.setattr(Ladder, "climb", lambda ladder, model: pytest.fail("it was attacked"))
    report = audit(tiny_model(2), CLASS, SMALL, retrained=three_retrained(), **GIVEN)
    assert report.findings == ()
    assert str(report).startswith("Class c cannot be judged.")
    assert "of the class's test images their own label" in str(report)
    assert sa.in_words({CLASS: report.by_rung}) == ""


@pytest.mark.parametrize("n", [0, 29])
def test_with_too_few_test_images_nothing_is_attacked_and_the_report_says_why(n, monkeypatch):
    monkeypatch.setattr(Ladder, "climb", lambda ladder, model: pytest.fail("it was attacked"))
    given = GIVEN | {"data": (made_up(30), made_up(n))}
    report = audit(tiny_model(2), CLASS, SMALL, retrained=three_retrained(), **given)
    assert report.findings == ()
    few = "Class c has 0 test images" if n == 0 else "asks for 30 test images of it, and there are"
    assert few in str(report)


def test_an_audit_is_the_same_whatever_the_caller_has_set():
    """Gradients that are off, and numbers of another type."""
    given = {"config": SMALL, "retrained": three_retrained(), **GIVEN}
    report = audit(tiny_model(2), CLASS, **given)
    with torch.inference_mode():
        assert audit(tiny_model(2), CLASS, **given) == report
    torch.set_default_dtype(torch.float64)
    try:
        models = [m.float() for m in (tiny_model(2), given["baseline"], *given["retrained"])]
        assert len(audit(models[0], CLASS, **given).findings) == len(RUNGS)
    finally:
        torch.set_default_dtype(torch.float32)


class Half(nn.Module):
    """A network of one's own, which does not say where the label enters."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.last = nn.Linear(inputs + 4, 16), nn.Linear(16, outputs)

    def forward(self, values, y):
        return self.last(self.first(torch.cat([values.flatten(1), y], 1)).relu())


def own(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sa.CVAE(latent_dim=3, num_classes=4, image_shape=(1, 8, 8),
                       encoder=Half(64, 6), decoder=Half(3, 64))  # fmt: skip


def test_the_baseline_stands_for_the_hidden_model_where_networks_do_not_say_their_label():
    baseline, retrained = own(0), [own(k) for k in (2, 3, 4)]
    data = GIVEN["data"]
    report = audit(own(1), CLASS, SMALL, baseline=baseline, retrained=retrained, data=data)
    assert report.notes[-3] == (
        "The baseline stands in the hidden model's place: encoder or decoder has no method "
        "label_weights()."
    )
    assert "\n".join(report.notes) in str(report)
    itself = Ladder(baseline, CLASS, *data, SMALL).climb(baseline)
    for rung, finding in report.by_rung.items():
        if finding.control == "hidden":
            assert finding.known == pytest.approx(float(np.mean(itself[rung])))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": GIVEN["data"][1]}, TypeError, "LabelledImages, not tuple or list: give"),
        ({"data": GIVEN["data"][:1]}, ValueError, r"data has 1 parts: give a pair \(train, test\)"),
        ({"data": (None, made_up(30))}, TypeError, "train is of type NoneType"),
        ({"data": (made_up(30), made_up(40, 0))}, ValueError, "test has 0 images of kept classes"),
        ({"forget_class": 4}, ValueError, "class 4"),
        ({"config": {"images": 5}}, TypeError, "config is of type dict, not LadderConfig"),
        ({"model": nn.Linear(1, 1)}, TypeError, "model is of type Linear"),
        ({"baseline": sa.CVAE(num_classes=3)}, ValueError, "baseline has 3 classes, not 4"),
        ({"retrained": tiny_model(1)}, TypeError, "retrained is of type CVAE.*give a list"),
        ({"retrained": []}, ValueError, "0 retrained models: give 3 or more"),
        ({"retrained": three_retrained()[:2]}, ValueError, "2 retrained models: give 3 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_refused(change, error, words):
    given = {"model": tiny_model(2), "forget_class": CLASS, "config": SMALL, **GIVEN}
    given["retrained"] = three_retrained()
    with pytest.raises(error, match=words):
        audit(**(given | change))


@pytest.mark.parametrize(
    ("fourth", "words"),
    [
        (tiny_model(7), r"retrained\[3\] was trained with class 2"),
        (three_retrained()[0], r"retrained\[3\] has the weights of"),
        (tiny_model(2, seen=()), r"retrained\[3\] has the weights of the model"),
        (
            tiny_model(7, seen=(), latent_dim=4),
            r"retrained\[3\] has arch, latent_dim and image_shape .*4, .*, the model",
        ),
        (tiny_model(7, seen=(), num_classes=3), r"retrained\[3\] has 3 classes, not 4"),
    ],
)
def test_a_model_that_is_no_retrained_one_is_named(fourth, words):
    with pytest.raises(ValueError, match=words):
        audit(tiny_model(2), CLASS, SMALL, retrained=[*three_retrained(), fourth], **GIVEN)


@pytest.mark.parametrize(
    ("field", "value"), [("images", 0), ("relearn_steps", 24), ("sets", 0), ("heal_rate", 11.0)]
)
def test_a_configuration_out_of_its_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be"):
        LadderConfig(**{field: value})
