"""The published recipe: what trains its baseline, and that the page says what was measured."""

import argparse

import pytest
import torch

import sahelpers as sa
from sahelpers import training
from sahelpers.attacks.ladder import FITTED, KEPT, OTHER, RUNGS, UNFINISHED
from study import journal, measures, workers
from study.experiments import published
from study.grid import RESULTS
from study.methods import HIDDEN, KEPT_IMAGES, KEPT_SLOWLY, MASKED, OURS, PAPER, RETRAINED


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A story of few images, and a training of forty steps."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(200, 1, 28, 28, generator=draw).round()
    data = sa.LabelledImages(images, torch.arange(200) % 10)
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    story = sa.Story((data, data), baseline=published.SMALL)
    monkeypatch.setattr(published, "usual", lambda: story)
    monkeypatch.setattr(published, "STEPS", 40)
    monkeypatch.setattr(published, "BATCH", 20)
    return story


def plainly(data, steps, classes):
    """The recipe again: Adam at a constant rate, nothing else."""
    torch.manual_seed(42)
    model, draw = sa.CVAE(latent_dim=8), torch.Generator().manual_seed(42)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    kept = data.without(classes)
    done = 0
    while done < steps:
        order = torch.randperm(len(kept), generator=draw)
        for k in range(len(kept) // 20):
            index = order[20 * k : 20 * k + 20]
            images, labels = kept.images[index], kept.labels[index]
            mean, log_var = model.encode(images, labels)
            z = mean + torch.randn(20, 8, generator=draw) * (log_var / 2).exp()
            logits = model.decode_logits(z, labels)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, images, reduction="sum"
            )
            loss = loss + 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
            optimizer.zero_grad()
            (loss / 20).backward()
            optimizer.step()
            done += 1
    return model


@pytest.mark.parametrize("exclude", [(), (3,)])
def test_the_official_training_is_adam_at_a_constant_rate(few, exclude):
    made, expected = published.official(exclude), plainly(few.train, 40, exclude)
    for a, b in zip(made.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_stopped_training_goes_on_to_the_same_bits(few, monkeypatch, tmp_path):
    whole = [p.clone() for p in published.official().parameters()]
    for path in tmp_path.glob("official*"):
        path.unlink()
    save, passes = training.Resume.save, []

    def stop(self, history):
        save(self, history)
        passes.append(len(history["loss"]))
        if passes == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Resume, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        published.official()
    again = published.official()
    assert passes == [1, 2, 3, 4]  # of ten steps
    assert all(torch.equal(a, b) for a, b in zip(whole, again.parameters(), strict=True))


def line(model):
    """What the journal would hold of a model: it remembers as much as its name says."""
    nats = {HIDDEN: 70.0, MASKED: 70.0, PAPER: 72.0}.get(model.method, 100.0) + model.seed / 100
    kept = {PAPER: 2.0, OURS: 3.0, KEPT_IMAGES: 5.0, KEPT_SLOWLY: 2.5, MASKED: 4.0}.get(
        model.method, 1.0
    )
    values = {rung: [nats - 1, nats + 1] for rung in RUNGS}
    if model.method == MASKED:  # it hides from the first two rungs
        values[OTHER] = values[FITTED] = [100.5]
    values |= {name: [kept] for name in KEPT} | {UNFINISHED: [0.0]}
    found = {"held_out": 100.0, "p": 0.1, "entropy": 2.0}
    if model.method not in (RETRAINED, published.OFFICIAL):
        found |= dict.fromkeys((*measures.JUDGED, *measures.REAL, "seconds"), 0.5)
    return {**model.key, "values": values, "measures": found}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A journal of the test's own."""
    monkeypatch.setattr(published, "JOURNAL", tmp_path / "journal.jsonl")
    return tmp_path / "journal.jsonl"


def test_the_table_needs_all_groups_of_a_digit(path):
    assert "Still to be measured: 31 of 31 models (" in "\n".join(published.tables())
    for model in published.models():
        if (model.digit, model.method) != (7, PAPER):
            journal.append(path, line(model))
    page = "\n".join(published.tables())
    assert f"Still to be measured: 1 of 31 models ({PAPER}: 7)." in page
    for rung in RUNGS:
        rows = [row for row in page.splitlines() if row.startswith(f"| {rung} |")]
        cells = [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]
        numbers, words = ["70.4", "72.4", *["100.4"] * 4], ["alike"] * 3
        assert cells[0] == ["0", *numbers, "", "memory remains", *words]
        assert cells[1] == ["3", *numbers, "100.4", "memory remains", *words]  # the official one's
        assert cells[2] == ["7", "70.4", "", *numbers[2:], "", "", *words]
    assert f"* {OURS}: Other labels: alike on 3 (0 3 7) of 3." in page
    assert f"* {PAPER}: Other labels: memory remains on 2 (0 3) of 2." in page
    for name in KEPT:
        assert f"| {name} | 0 | 2.0 | 3.0 | 5.0 | 2.5 | 1.0 | 4.0 | 1.0 |" in page
    assert f"| {PAPER} | 2 | **50.00** | **0.50** |" in page
    assert f"| {MASKED} | 3 | **50.00** | **0.50** |" in page
    assert f"| 3 | {published.OFFICIAL} | 0.100 | 2.000 | 100.00 |" in page


def test_no_heading_stands_above_a_table_that_is_not_measured_yet(path):
    *_, last = "\n".join(published.tables()).strip().splitlines()
    assert last.startswith("Still to be measured: 31 of 31 models (label column: 0 3 7; masked: ")
    assert last.endswith(f"; {published.OFFICIAL}: 3).")
    for model in published.models():
        if model.method == RETRAINED:
            journal.append(path, line(model))
    page = "\n".join(published.tables())
    assert "The largest of the runs" not in page  # no method under test has been run
    assert f"| {RETRAINED} | 0.100 | 2.000 | 100.00 |" in page
    assert "\n\n\n" not in page


def test_a_digit_that_lacks_a_control_or_a_third_retrained_model_has_no_verdict(path):
    lacking = {(0, MASKED, 42), (3, RETRAINED, 43), (3, RETRAINED, 44)}
    for model in published.models():
        if model not in lacking:
            journal.append(path, line(model))
    for method in published.TESTED:
        found = published.gathered(published.read(), method)
        assert {digit: len(of.retrained) for digit, of in found.items()} == {7: 4}


def test_lines_of_other_code_do_not_count(path):
    for model in published.models():
        journal.append(path, line(model) | {"code": "0ldc0de"})
    assert published.read() == {}


def test_a_command_goes_on_from_the_journal(path, monkeypatch):
    """What is there is not measured again; what fails is said at the end."""
    done, written = [], []
    models = published.models()
    for model in models[:-3]:
        journal.append(path, line(model))

    def measured(model):
        if model == models[-2]:
            raise OSError("no disk")
        return {name: line(model)[name] for name in ("values", "measures")}

    def each(work, items, backend, jobs):
        assert (backend, jobs) == ("loky", 7)
        done.extend(items)
        for item in items:
            try:
                yield item, work(item)
            except OSError as error:
                yield item, error

    monkeypatch.setattr(published, "measure", measured)
    monkeypatch.setattr(workers, "do_all", each)
    monkeypatch.setattr(published, "write", lambda: written.append(len(published.read())))
    options = argparse.Namespace(tables=False, jobs=7)
    with pytest.raises(OSError, match="no disk"):
        published.main(options)
    assert done == models[-3:]
    assert written == [len(models) - 1]
    published.main(argparse.Namespace(tables=True, jobs=7))
    assert done == models[-3:]  # the tables alone
    with pytest.raises(OSError, match="no disk"):
        published.main(options)
    assert done == [*models[-3:], models[-2]]


def test_the_page_says_what_the_journal_holds():
    page = "\n".join(published.tables()).rstrip("\n") + "\n"
    assert (RESULTS / "published.md").read_text(encoding="utf-8") == page
    done = published.read()
    assert set(done) <= set(published.models())
    own = {r["method"] for r in journal.read(published.JOURNAL) if r["part"] == published.PART}
    assert {model.method for model in done} == own
