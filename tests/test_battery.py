"""The battery of attacks on tiny models, and what the audit makes of it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import sahelpers as sa
from sahelpers.probing import ProbeResult
from sahelpers.recovery import RecoveryCurve
from sahelpers.study import Effort, audit, battery
from sahelpers.study.battery import attack_all
from sahelpers.study.statistics import FOOLED, KEPT, MARGIN, OPEN, SOUND, compare, compare_all

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
CLASS = 2
LITTLE = Effort(restarts=3, attack_steps=2, inversion_steps=2, relearn_steps=1, repeats=2)


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
    images = torch.rand((100, 1, 28, 28), generator=sa.seeded(1))
    real = sa.LabelledImages(images, torch.full((100,), CLASS), tuple("abcd"))
    return {"judges": judges, "guide": guide, "real": real, "baseline": tiny_model(0)}


def test_the_audit_attacks_all_alike(cast):
    control, model = tiny_model(1, seen=(0, 1, 3)), tiny_model(2)
    report = audit(model, CLASS, LITTLE, controls=[control], **cast)
    values = attack_all(control, CLASS, LITTLE, **cast)
    assert {f.attack for f in report.findings} == set(values)
    for finding in report.findings:
        assert finding.control == pytest.approx(np.mean(values[finding.attack]))
        assert finding.n == (2 if finding.attack.startswith("relearn") else 3)
        if not finding.attack.startswith("guided"):
            assert finding.verdict == (SOUND if finding.attack == FOOLED else OPEN)
        assert finding.attack in str(report)
    assert audit(model, np.int64(CLASS), LITTLE, controls=[control], **cast) == report


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
        return RecoveryCurve([0, steps], curve)

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


def test_seeds_are_put_together(cast):
    control = tiny_model(1, seen=(0, 1, 3))
    seeds = [attack_all(tiny_model(k), CLASS, LITTLE, **cast) for k in (2, 3)]
    known, unknown = (attack_all(m, CLASS, LITTLE, **cast) for m in (cast["baseline"], control))
    report = compare_all(CLASS, seeds, [known], [unknown, unknown])
    for finding in report.findings:
        name = finding.attack
        parts = [s[name] for s in seeds], [known[name]], [unknown[name]] * 2
        assert replace(finding, verdict="") == replace(compare(name, *parts), verdict="")
    with pytest.raises(ValueError, match=r"attacks \['blind'\] are not \['prototype'.* make them"):
        compare_all(CLASS, seeds, [{"blind": [1.0]}], [unknown])
    with pytest.raises(ValueError, match=r"\[2, 1, 0\] models, baselines and controls"):
        compare_all(CLASS, seeds, [known], [])


def test_refusals_name_what_is_wrong(cast):
    model, asked = tiny_model(0), partial(audit, config=LITTLE, **cast)
    with pytest.raises(ValueError, match=r"controls\[1\] was trained with class 2"):
        asked(model, CLASS, controls=[tiny_model(1, seen=(0, 1, 3)), model])
    control = tiny_model(1, seen=(0, 1, 3))
    for given_twice in (
        [control, control],
        [tiny_model(4, seen=(0, 1, 3)), tiny_model(0, seen=())],
    ):
        with pytest.raises(ValueError, match=r"controls\[1\] has the weights of"):
            asked(tiny_model(0), CLASS, controls=given_twice)
    with pytest.raises(ValueError, match="controls is empty"):
        asked(model, CLASS, controls=[])
    with pytest.raises(ValueError, match="class 4"):
        asked(model, 4, controls=[tiny_model(1, seen=())])
    with pytest.raises(ValueError, match="1 repeat has no spread"):
        compare("a", [[0.3]], [[1.0]], [[0.2]])
    with pytest.raises(ValueError, match="restarts=0"):
        Effort(restarts=0)
    assert MARGIN == 0.10
