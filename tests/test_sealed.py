"""The sealed examination: every healing trains on kept images alone, and the page says verdicts."""

import argparse
from dataclasses import replace

import pytest
import torch

from sahelpers.elbo import negative_elbo
from study import journal, workers
from study.experiments import sealed
from study.grid import RESULTS


def quickly(healing):
    return replace(healing, steps=4)


@pytest.mark.parametrize("name", sealed.HEALINGS)
def test_a_healing_changes_the_weights_that_it_names(name, model, mnist):
    healing = quickly(sealed.HEALINGS[name])
    damaged = sealed.prepared(model, healing)
    healed = sealed.trained_on(damaged, mnist.take(400).without(3), healing, 4)
    moved = [
        key
        for key, weight in healed.named_parameters()
        if not torch.equal(weight, model.get_parameter(key))
    ]
    decoder = [f"decoder.{key}" for key, _ in model.decoder.named_parameters()]
    everything = [key for key, _ in model.named_parameters()]
    named = {"last layer": decoder[-2:], "decoder": decoder, "all": everything}
    assert moved == named[healing.weights]
    assert all(weight.requires_grad for weight in healed.parameters())
    assert all(weight.isfinite().all() for weight in healed.parameters())


def test_a_last_layer_is_made_anew_and_damage_is_done_before_training_on(model):
    for name, healing in sealed.HEALINGS.items():
        before = sealed.prepared(model, healing)
        same = [
            torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True)
        ]
        if healing.damage == "new":
            assert same[-2:] == [False, False]
            assert all(same[:-2])
        else:
            assert all(same) == (not healing.damage), name


def test_the_attacker_keeps_the_state_that_pays_most_and_never_sees_the_digit(
    model, mnist, monkeypatch
):
    monkeypatch.setattr(sealed, "HEALINGS", {"all": quickly(sealed.HEALINGS["all weights"])})
    labels, costs = set(), iter([9.0, 4.0, float("nan")])

    class Attack:
        kept_train = mnist.take(400).without(3)

        def try_out(self, model):
            return argparse.Namespace(model=model, fitted=next(costs))

        def fitted_label(self, tried):
            return [tried.fitted]

        def kept_costs(self, model):
            return [1.0, 2.0]

    monkeypatch.setattr(
        sealed,
        "negative_elbo",
        lambda model, images, of, noise: (
            labels.update(of.tolist()) or negative_elbo(model, images, of, noise)
        ),
    )
    found = sealed.climb(Attack(), model)
    assert found == {"as it is": 9.0, "all": 4.0, "kept, as it is": 1.5, "kept, all": 1.5}
    assert labels == set(range(10)) - {3}


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A journal in which all models have been measured, and what is read from it."""
    nats = {sealed.OURS: (20.0, 21.0, 20.5), sealed.MASKED: (10.0, 11.0, 10.5)}
    nats[sealed.KEPT_IMAGES] = (25.0, 26.0, 25.5)
    nats[sealed.RETRAINED] = (20.0, 21.0, 20.5, 20.5)
    monkeypatch.setattr(sealed, "JOURNAL", tmp_path / "journal.jsonl")
    for model in sealed.models():
        cost = nats[model.method][sealed.SEEDS[model.method].index(model.seed)]
        names = (sealed.AS_IT_IS, *sealed.HEALINGS)
        values = dict.fromkeys(names, cost) | {sealed.KEPT + name: 0.0 for name in names}
        journal.append(sealed.JOURNAL, {**model.key, "values": values})
    return sealed.read()


def test_the_page_compares_ours_with_models_that_remember_and_models_that_never_knew(done):
    found = sealed.findings(done, sealed.OURS)
    assert list(found) == [sealed.AS_IT_IS, *sealed.HEALINGS]
    assert {f.verdict for of in found.values() for f in of.values()} == {"alike"}
    page = sealed.page(done)
    assert page.count("| alike |") == len(sealed.DIGITS) * len(sealed.HEALINGS)
    assert "| all weights | 5 | 20.5 | 10.5 | 20.5 |" in page
    assert "Still to be measured" not in page
    assert "the examination is *passed*: alike 8." in page
    assert "the examination is *passed*: erased 8." in page
    assert "| all weights | 5 | 25.5 | 10.5 | 20.5 |" in page


def test_models_that_kept_images_pay_for_are_damaged(done):
    for model, line in done.items():
        if model.method == sealed.OURS:
            line["values"] |= {sealed.KEPT + name: 5.0 for name in sealed.HEALINGS}
    found = sealed.findings(done, sealed.OURS)
    assert {found[name][8].verdict for name in sealed.HEALINGS} == {"damaged"}
    assert sealed.outcome(found).endswith("*failed*: damaged 8.")
    one = {"all weights": {8: replace(found["all weights"][8], verdict="undecided")}}
    assert sealed.outcome(one).endswith("*open*: undecided 1, 7 not measured yet.")
    half = {name: {8: replace(of[8], verdict="alike")} for name, of in found.items()}
    assert sealed.outcome(half).endswith("*open*: alike 4, 4 not measured yet.")
    assert sealed.outcome({}) == ""


def test_the_page_says_how_many_models_are_missing_and_judges_no_digit_by_halves(done):
    del done[sealed.models()[0]]
    page = sealed.page(done)
    assert "Still to be measured: 1 of 26 models." in page
    assert page.count("| alike |") == len(sealed.HEALINGS)


def test_models_that_are_in_the_journal_are_not_measured_again(done, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "do_all", lambda work, items, *rest: asked.extend(items) or [])
    workers.measure_missing(sealed.measure, sealed.models(), sealed.JOURNAL, 1)
    assert not asked
    monkeypatch.setattr(sealed, "DAMAGE", 0.4)
    workers.measure_missing(sealed.measure, sealed.models(), sealed.JOURNAL, 1)
    assert asked == sealed.models()


def test_what_fails_is_said_by_name_and_stands_in_the_journal(tmp_path, monkeypatch, capsys):
    path, models = tmp_path / "journal.jsonl", sealed.models()[:4]
    bad = {models[0]: OSError("no\ndisk"), models[2]: ArithmeticError("no luck")}

    def work(model):
        if model in bad:
            raise bad[model]
        return {"values": {"a": float("nan") if model == models[3] else 1.0}}

    def each(work, items, *rest):
        for item in items:
            try:
                yield item, work(item)
            except (OSError, ArithmeticError, ValueError) as error:
                yield item, error

    monkeypatch.setattr(workers, "do_all", each)
    with pytest.raises(OSError, match="no\ndisk"):
        workers.measure_missing(work, models, path, 1)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"{models[0].seed} OSError: no disk")
    assert said[1].endswith(f"{models[1].seed} ")
    assert said[2].endswith(" ArithmeticError: no luck")
    assert " ValueError: 'a' has nan, where finite numbers are allowed" in said[3]
    failed, made, *_ = journal.read(path)
    assert failed["error"] == "OSError: no disk"
    assert made["machine"] == workers.about()
    assert made["cell_seconds"] > 0
    assert list(journal.of_models(path, models)) == [models[1]]  # the others are tried again


def test_the_committed_page_says_what_the_journal_holds():
    page = sealed.page(sealed.read())
    assert (RESULTS / "sealed.md").read_text(encoding="utf-8") == page
