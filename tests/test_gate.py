"""Can this be judged at all?  The gate before every verdict, on models that know and do not."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import jupytext
import pytest
import torch

import sahelpers as sa
from sahelpers.attacks.gate import CANNOT, Gate, can_be_judged
from sahelpers.config import CHECKOUT


def shapes(each, seed=0):
    """Three classes of 8 by 8 pixels that are easy to tell: bars at three places, and noise."""
    labels = torch.arange(3).repeat_interleave(each)
    images = 0.2 * torch.rand((len(labels), 1, 8, 8), generator=sa.seeded(seed))
    for k, label in enumerate(labels.tolist()):
        images[k, 0, 3 * label : 3 * label + 2] += 0.7
    return sa.LabelledImages(images, labels, ("top", "middle", "bottom"))


@pytest.fixture(scope="module")
def known():
    """Images, a baseline and judges that know them."""
    train, test = shapes(80), shapes(20, seed=1)
    config = sa.BaselineConfig(epochs=30, batch_size=20, latent_dim=3, lr=3e-3)
    judge = sa.JudgeConfig(epochs=12, batch_size=20)
    judges = {role: sa.train_judge(train, role, judge) for role in ("open_set", "closed_set")}
    baseline = sa.train_baseline(train, test, config).model
    return {"baseline": baseline, "train": train, "test": test, "judges": judges}


def gate(known, forget_class=1, **changes):
    arguments = known | changes
    return can_be_judged(arguments.pop("baseline"), forget_class, **arguments)


def test_a_class_that_was_learned_can_be_judged(known):
    found = gate(known)
    assert found.passed
    assert found.lacking == ()
    assert (found.train_images, found.test_images, found.latent_dim) == (80, 20, 3)
    assert min(found.judge_accuracy, found.class_accuracy, found.recognised) > 0.9
    assert found.own_label > 0.9
    assert found.word("holds") == "holds"
    few = "An audit asks for 30 test images of it, and there are 20."
    assert str(found) == f"Class middle can be judged. {few}"
    assert str(replace(found, test_images=30)) == "Class middle can be judged."
    assert gate(known, "middle") == found


def test_a_class_that_the_baseline_was_trained_without_cannot_be_judged(known):
    without = copy.deepcopy(known["baseline"])
    without.set_class_prior(1)  # what training without it leaves
    for train in (None, known["train"]):
        found = gate(known, baseline=without, train=train)
        assert not found.passed
        assert "The baseline has no Gaussian of the class middle, as of others" in str(found)
    few = known["train"].take(3)  # this was said already
    said = [line for line in gate(known, baseline=without, train=few).lacking if "Gaussian" in line]
    assert len(said) == 1


def test_a_class_that_was_never_drawn_cannot_be_judged(known):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = sa.CVAE("mlp", 3, 3, (1, 8, 8)).eval()
    found = gate(known, baseline=untrained)
    assert not found.passed
    assert found.recognised < 0.5
    assert found.word("holds") == CANNOT == "cannot be judged"
    assert str(found).startswith("Class middle cannot be judged.\n")
    assert "of the baseline's samples of the class, and 50% are asked" in str(found)
    assert "train the baseline longer" in str(found)


def test_judges_that_do_not_know_the_images_judge_nothing(known):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judges = {"closed_set": sa.Judge("closed_set", 3, (1, 8, 8)).eval()}
    found = gate(known, judges=judges)
    assert found.judge_accuracy < 0.8
    assert any("of the test images, and 80% are asked: train them" in s for s in found.lacking)


def test_the_least_of_the_judges_counts(known):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = sa.Judge("closed_set", 3, (1, 8, 8)).eval()
    judges = known["judges"] | {"closed_set": untrained}
    one = gate(known, judges={"closed_set": untrained})
    assert gate(known, judges=judges).judge_accuracy == one.judge_accuracy


def test_a_class_with_too_few_training_images_has_no_gaussian_and_says_so(known):
    few = known["train"]._where(torch.cat([torch.arange(80), torch.arange(157, 240)]))
    found = gate(known, train=few)
    assert found.train_images == 3
    (said,) = found.lacking
    assert "Class middle has 3 training images" in said
    assert "more than latent_dim=3: give more of them, or take a smaller latent_dim" in said
    assert gate(known, train=few, forget_class=0).passed


def test_without_training_images_the_missing_gaussian_is_seen_in_the_baseline(known):
    assert gate(known, train=None).passed
    assert gate(known, train=None).train_images is None
    model = sa.CVAE.from_state(known["baseline"].to_state())
    model.set_class_prior(1)
    found = gate(known, train=None, baseline=model, judges=None)
    (said,) = found.lacking
    assert "no Gaussian of the class middle" in said


def test_too_few_test_images_are_named(known):
    few = known["test"]._where(torch.cat([torch.arange(20), torch.arange(36, 60)]))
    (said,) = gate(known, test=few).lacking
    assert "Class middle has 4 test images, and 10 are asked: give more" in said
    none = known["test"]._where(torch.cat([torch.arange(20), torch.arange(40, 60)]))
    found = gate(known, test=none)
    assert "Class middle has 0 test images" in str(found)
    assert math.isnan(found.own_label)
    assert math.isnan(found.class_accuracy)


def test_without_test_images_of_the_class_no_share_of_them_is_named(monkeypatch):
    """The sentence said "they recognise nan%"."""
    monkeypatch.setattr("sahelpers.attacks.gate.RECOGNISED", 1.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        baseline = sa.CVAE("mlp", 3, 3, (1, 8, 8)).eval()
        judges = {"closed_set": sa.Judge("closed_set", 3, (1, 8, 8)).eval()}
    for test, named in ((shapes(20).without(1), False), (shapes(20), True)):
        found = str(can_be_judged(baseline, 1, test=test, judges=judges))
        assert "of the baseline's samples of the class, and 110% are asked" in found
        assert ("of its real test images they recognise" in found) == named
        assert "nan" not in found


def test_without_judges_the_baseline_itself_is_asked(known):
    found = gate(known, judges=None)
    assert found.passed
    assert found.judge_accuracy is found.class_accuracy is found.recognised is None
    wrong = replace(known["test"], labels=(known["test"].labels + 1) % 3)
    blind = gate(known, test=wrong, judges=None)
    assert blind.own_label < 0.5
    (said,) = blind.lacking
    assert "of the class's test images their own label, and 50% are asked: train it" in said


def test_the_gate_is_the_same_each_time_and_leaves_torch_alone(known):
    before = torch.get_rng_state()
    assert gate(known) == gate(known)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(gate(known), Gate)


def test_what_does_not_fit_is_refused(known):
    wide = sa.LabelledImages(torch.zeros(20, 1, 8, 9), torch.arange(20) % 3, tuple("abc"))
    with pytest.raises(ValueError, match=r"test has .* the model"):
        gate(known, test=wide)
    with pytest.raises(ValueError, match=r"train has .* the model"):
        gate(known, train=wide)
    other = replace(known["train"], class_names=known["test"].class_names[::-1])
    with pytest.raises(ValueError, match="give both the same, in one order"):
        gate(known, train=other)
    with pytest.raises(TypeError, match="test is of type"):
        gate(known, test=None)
    with pytest.raises(ValueError, match="test has no image"):
        gate(known, test=known["test"]._where(torch.zeros(60, dtype=torch.bool)))
    with pytest.raises(ValueError, match="class 7 is not a class"):
        gate(known, forget_class=7)
    with pytest.raises(ValueError, match="give at least one that scores"):
        gate(known, judges={})


@pytest.mark.parametrize("gone", [(1,), (0, 2)])
@pytest.mark.parametrize("learned", [True, False])
def test_notebook_06_says_holds_only_of_what_can_be_judged(known, capsys, gone, learned):
    cells = jupytext.read(CHECKOUT / "notebooks" / "06_your_images.py").cells
    (source,) = [cell.source for cell in cells if "def look(" in cell.source]
    names = {"sa": sa}
    exec(source, names)
    gray = sa.CVAE.from_state(known["baseline"].to_state())
    with torch.no_grad():
        for p in gray.decoder[-1].parameters():
            p.zero_()
    before = known["baseline"] if learned else gray
    gates = names["look"](SimpleNamespace(**known), before, gray, gone)
    said = capsys.readouterr().out
    assert set(gates) == set(gone)
    for c in gone:
        name = known["test"].class_names[c]
        word = "holds" if learned else "cannot be judged"
        assert f"{name} is seen in at most 1 % of its samples: {word}\n" in said
    assert ("holds" in said) == learned
