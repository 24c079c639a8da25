"""The battery of attacks on tiny models, and what the audit makes of it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import sahelpers as sa
from sahelpers.probing import ProbeResult
from sahelpers.recovery import RecoveryCurve
from sahelpers.study import Effort, battery
from sahelpers.study.battery import Claim, attack_all, named_attacks
from sahelpers.study.statistics import BESIDE, FOOLED, KEPT, NAMED, SOUND, compare_all
from sahelpers.study.verdicts import audit

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
CLASS = 2
LITTLE = Effort(restarts=3, attack_steps=2, inversion_steps=2, relearn_steps=1, repeats=2)
SMALL = Claim(images=6, kept_images=4, steps=3, neighbours=2, relearn_steps=1, draws=2)


def tiny_model(seed, seen=(0, 1, 2, 3)):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = sa.CVAE(latent_dim=3, num_classes=4).eval()
    for label in seen:
        model.set_class_prior(label, 1 + torch.randn((20, 3), generator=sa.seeded(label)))
    return model


@pytest.fixture(scope="module")
def cast():
    """Tiny judges, images and a baseline."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        judges = {role: sa.Judge(role, num_classes=4).eval() for role in ("open", "plain")}
        guide = sa.Judge("guide", num_classes=4).eval()
    images = torch.rand((108, 1, 28, 28), generator=sa.seeded(1))
    labels = torch.tensor([CLASS] * 100 + [0, 1, 3, 0, 1, 3, 0, 1])
    real = sa.LabelledImages(images, labels, tuple("abcd"))
    return {"judges": judges, "guide": guide, "real": real, "baseline": tiny_model(0)}


def three_controls():
    return [tiny_model(k, seen=(0, 1, 3)) for k in (1, 5, 6)]


def test_the_audit_attacks_all_alike(cast):
    controls, model = three_controls(), tiny_model(2)
    report = audit(model, CLASS, LITTLE, SMALL, controls=controls, **cast)
    given = {name: cast[name] for name in ("baseline", "judges", "real")}
    values = [
        named_attacks(m, CLASS, SMALL, **given) | attack_all(m, CLASS, LITTLE, **cast)
        for m in (model, sa.reset_label(cast["baseline"], CLASS), *controls)
    ]
    expected = compare_all({CLASS: (values[:1], values[1:2], values[2:])})[CLASS]
    assert repr(report) == repr(expected)  # nan is not equal to itself
    assert {f.attack for f in report.findings} == set(values[0]) > {*NAMED, *BESIDE}
    for finding in report.findings:
        assert (finding.models, finding.controls) == (1, 3)
        assert finding.attack in str(report)
        if finding.attack == FOOLED:
            assert finding.verdict == SOUND
    again = audit(model, np.int64(CLASS), LITTLE, SMALL, controls=controls, **cast)
    assert repr(again) == repr(report)


def test_the_claim_is_what_it_says(cast, monkeypatch):
    """The fits of the label are recorded; costs are those of `image_cost`."""
    calls, claim = [], replace(SMALL, images=5, draws=3)

    def relearning(model, label, *, data, judges, steps, over, seed):
        calls.append((label, over, steps, len(data), set(data.labels.tolist()), seed))
        return RecoveryCurve([0, 1], [0.25 * len(calls)] * 2, model)

    monkeypatch.setattr(battery, "relearn", relearning)
    monkeypatch.setattr(battery, "success", lambda x, judges, label: torch.arange(len(x)) % 2 == 0)
    model, given = tiny_model(1), {name: cast[name] for name in ("baseline", "judges", "real")}
    found = named_attacks(model, CLASS, claim, **given)
    assert [call[:5] for call in calls] == [
        (CLASS, "label", 1, n, {CLASS}) for n in (10, 100) for _ in range(3)
    ]
    assert len({call[5] for call in calls}) == 6  # other images each
    assert found["label only, 10 images"] == [0.25, 0.5, 0.75]
    images = cast["real"].only(CLASS).take(5, claim.seed).images
    own = sa.image_cost(cast["baseline"], images, torch.tensor([CLASS]), claim.steps)[0]
    others = sa.image_cost(model, images, torch.tensor([0, 1, 3]), claim.steps)[0]
    expected = (others.amin(1) - own[:, 0]).tolist()
    assert found["cost under other labels"] == pytest.approx(expected, abs=1e-3)
    assert found["share shown under other labels"] == [0.5] * 5
    kept = cast["real"].without(CLASS).take(4, claim.seed)
    own = sa.image_cost(model, kept.images, kept.labels[:, None], claim.steps)[0][:, 0]
    assert found["kept digits' cost, own label"] == pytest.approx(own.tolist(), abs=1e-3)
    apart = torch.tensor([[k for k in (0, 1, 3) if k != c] for c in kept.labels.tolist()])
    other = sa.image_cost(model, kept.images, apart, claim.steps)[0].amin(1)
    assert found["kept digits' cost, other labels"] == pytest.approx(other.tolist(), abs=1e-3)
    calls.clear()
    named_attacks(model, CLASS, replace(claim, seed=43), **given)
    assert (
        found["cost under other labels"]
        != named_attacks(model, CLASS, replace(claim, seed=43), **given)["cost under other labels"]
    )


def test_the_battery_is_what_it_says(cast, monkeypatch):
    """Every attack is replaced by a recorder; what it finds is known, so is what is made of it."""
    calls, effort = [], replace(LITTLE, attack_steps=4, inversion_steps=6, relearn_steps=8, seed=5)
    z = torch.tensor([[0.0, 0, 0], [9.0, 9, 9], [1.0, 0, 0]])  # the second is out of reach
    nothing = torch.zeros(3, 1, 28, 28)

    def search(name):
        def run(model, label, settings, *, baseline=None, guide=None, over=""):
            assert (baseline, guide) == (
                cast["baseline"] if name == "invert_prototypes" else None,
                cast["guide"] if name == "guided_attack" else None,
            )
            calls.append((name, label, over, settings.steps, settings.n_restarts, settings.seed))
            return ProbeResult(nothing, z, torch.zeros(3, 4), torch.zeros(3))

        return run

    def relearning(model, label, *, data, judges, steps, over, seed):
        calls.append(("relearn", label, over, steps, len(data), seed))
        curve = [0.25 if over == "all" else 0.5] * 2
        return RecoveryCurve([0, steps], curve, model)

    for name in ("invert_prototypes", "invert_blind", "guided_attack"):
        monkeypatch.setattr(battery, name, search(name))
    monkeypatch.setattr(battery, "relearn", relearning)
    hits = torch.tensor([True, True, False])
    monkeypatch.setattr(battery, "success", lambda images, judges, label: hits)
    found = attack_all(tiny_model(1), CLASS, effort, **cast)
    expected = [("invert_prototypes", 2, "", 6, 3, 5), ("invert_blind", 2, "", 6, 3, 5)]
    expected += [("guided_attack", 2, over, 4, 3, 5) for over in ("both", "z", "y", "free_y")]
    expected += [("guided_attack", 3, "", 4, 3, 5)]
    expected += [
        ("relearn", 2, over, 8, size, seed)
        for size in (1, 10, 100)
        for over in ("all", "label")
        for seed in (5, 6)
    ]
    assert calls == expected
    assert found["guided both"] == found["prototype"] == found[KEPT] == [1, 1, 0]
    assert found["guided both, reachable"] == found["guided z, reachable"] == [1, 0, 0]
    assert (found["relearn 10"], found["relearn 1, label only"]) == ([0.25] * 2, [0.5] * 2)


def test_a_guide_is_fooled_where_it_alone_sees_the_class(cast):
    model, kind = tiny_model(1), {name: cast[name] for name in ("judges", "guide")}
    heads = [judge.head.bias.data for judge in (*cast["judges"].values(), cast["guide"])]
    saved = [head.clone() for head in heads]
    try:
        for votes, expected in (((0, 0, 1), 1), ((1, 1, 1), 0), ((1, 0, 1), 1), ((0, 0, 0), 0)):
            for head, vote in zip(heads, votes, strict=True):
                head[CLASS] = 100.0 if vote else -100.0
            assert battery.fooled(model, CLASS, LITTLE, **kind) == [expected] * 3
    finally:
        for head, old in zip(heads, saved, strict=True):
            head.copy_(old)


def test_refusals_name_what_is_wrong(cast):
    model, asked, others = tiny_model(0), partial(audit, config=LITTLE, **cast), three_controls()
    with pytest.raises(ValueError, match=r"controls\[3\] was trained with class 2"):
        asked(model, CLASS, controls=[*others, model])
    for given_twice in ([*others, others[0]], [*others, tiny_model(0, seen=())]):
        with pytest.raises(ValueError, match=r"controls\[3\] has the weights of"):
            asked(tiny_model(0), CLASS, controls=given_twice)
    with pytest.raises(
        ValueError, match=r"controls\[3\] has arch, latent_dim and image_shape .*4, .*, the model"
    ):
        asked(model, CLASS, controls=[*others, sa.CVAE(latent_dim=4, num_classes=4).eval()])
    with pytest.raises(ValueError, match=r"controls\[3\] has 3 classes, not 4"):
        asked(model, CLASS, controls=[*others, sa.CVAE(latent_dim=3, num_classes=3).eval()])
    for few in ([], others[:2]):
        with pytest.raises(ValueError, match=f"{len(few)} controls: give 3 or more"):
            asked(model, CLASS, controls=few)
    with pytest.raises(ValueError, match="restarts=1 has no share"):
        audit(model, CLASS, replace(LITTLE, restarts=1), controls=others, **cast)
    nothing = {**cast, "real": cast["real"].without(CLASS)}
    with pytest.raises(ValueError, match="real has 0 images of class 2: give 10 or more"):
        audit(model, CLASS, LITTLE, controls=others, **nothing)
    alone = {**cast, "real": cast["real"].only(CLASS)}
    with pytest.raises(ValueError, match="real has images of class 2 only"):
        audit(model, CLASS, LITTLE, controls=others, **alone)
    with pytest.raises(ValueError, match="class 4"):
        asked(model, 4, controls=others)
    with pytest.raises(ValueError, match="restarts=0"):
        Effort(restarts=0)
