"""The sealed examination: every healing trains on kept images alone, and the page says verdicts."""

import json

import pytest
import torch

import sahelpers as sa
from study.experiments import sealed


@pytest.fixture
def quick(monkeypatch):
    for name in ("LAST_LAYER_STEPS", "AFTER_DAMAGE", "BOTH_STEPS"):
        monkeypatch.setattr(sealed, name, 2)
    monkeypatch.setattr(sealed, "PASSES", 1)


@pytest.mark.parametrize("name", sealed.HEALINGS)
def test_a_healing_changes_the_weights_that_it_names_and_never_sees_the_digit(
    name, model, mnist, quick, monkeypatch
):
    data, seen = mnist.take(400), []
    real = sa.LabelledImages.without

    def without(self, classes):
        seen.append(classes)
        return real(self, classes)

    monkeypatch.setattr(sa.LabelledImages, "without", without)
    healed = sealed.HEALINGS[name](model, 3, data)
    assert seen
    assert all(3 in (classes if isinstance(classes, tuple) else (classes,)) for classes in seen)
    moved = {
        key.split(".")[0]
        for key, weight in healed.named_parameters()
        if not torch.equal(weight, model.get_parameter(key))
    }
    both = name in ("baseline's recipe", "encoder and decoder")
    assert moved == ({"encoder", "decoder"} if both else {"decoder"})


def test_the_last_layer_alone_is_made_anew(model, mnist, quick):
    healed = sealed.last_layer(model, 3, mnist.take(400))
    same = [torch.equal(a, b) for a, b in zip(healed.parameters(), model.parameters(), strict=True)]
    assert same[-2:] == [False, False]
    assert all(same[:-2])


def lines():
    nats = {"ours": (20.0, 21.0), "masked": (10.0, 11.0), "retrained": (20.0, 21.0, 20.5)}
    return [
        {"digit": digit, "kind": kind, "seed": seed, "nats": dict.fromkeys(sealed.HEALINGS, cost)}
        for digit in (0, 5)
        for kind, costs in nats.items()
        for seed, cost in enumerate(costs)
    ]


def test_the_page_compares_ours_with_models_that_remember_and_models_that_never_knew():
    found = sealed.findings(lines())
    assert list(found) == list(sealed.HEALINGS)
    assert {f.verdict for of in found.values() for f in of.values()} == {"alike"}
    page = sealed.page(lines())
    assert page.count("| alike |") == 2 * len(sealed.HEALINGS)
    assert "| baseline's recipe | 5 | 20.5 | 10.5 | 20.5 |" in page


def test_models_that_are_in_the_journal_are_not_measured_again(tmp_path, monkeypatch):
    journal = tmp_path / "sealed.jsonl"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    monkeypatch.setattr(sealed, "DIGITS", (0, 5))
    models = [(of["kind"], of["seed"]) for of in lines() if of["digit"] == 0]
    monkeypatch.setattr(sealed, "MODELS", models)
    assert sealed.measure(journal) == lines()
