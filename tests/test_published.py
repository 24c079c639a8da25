"""The published recipe: what trains its baseline, and that the page says what was measured."""

import argparse

import pytest
import torch

import sahelpers as sa
from sahelpers import training
from sahelpers.attacks.verdicts import CLAIM_ATTACKS, COST_ATTACKS, WITHOUT_VERDICT
from study import journal, measures
from study.experiments import published
from study.grid import RESULTS
from study.methods import HIDDEN, OURS, PAPER


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
    memory = {HIDDEN: 0.9, PAPER: 0.8}.get(model.method, 0.1 + model.seed / 1000)
    values = {
        name: [-memory if name in COST_ATTACKS else memory]
        for name in (*CLAIM_ATTACKS, *WITHOUT_VERDICT)
    }
    found = {"held_out": 100.0, "p": 0.1, "entropy": 2.0}
    if model.method in published.TESTED:
        found |= dict.fromkeys((*measures.JUDGED, *measures.REAL, "seconds"), 0.5)
    return {**model.key, "values": values, "measures": found}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A journal of the test's own."""
    monkeypatch.setattr(published, "JOURNAL", tmp_path / "journal.jsonl")
    return tmp_path / "journal.jsonl"


def test_the_table_needs_all_groups_of_a_digit(path):
    assert "Still to be measured: 22 of 22 models." in "\n".join(published.tables())
    for model in published.models():
        if (model.digit, model.method) != (7, PAPER):
            journal.append(path, line(model))
    page = "\n".join(published.tables())
    assert "Still to be measured: 1 of 22 models." in page
    rows = [row for row in page.splitlines() if row.startswith("| label only, 10 images |")]
    cells = [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]
    assert cells[0] == ["0", "0.90", "0.80", "0.14", "0.14", "", "memory remains", "erased"]
    assert cells[1][5] == "0.14"  # for 3, what the official recipe retrained stands beside
    assert len(cells) == 2
    assert f"* {OURS}: Label only, 10 images: erased on 3 of 3." in page
    assert f"| {PAPER} | 2 | **50.00** | **0.50** |" in page
    assert f"| 3 | {published.OFFICIAL} | 0.100 | 2.000 | 100.00 |" in page


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
    monkeypatch.setattr(published, "do_all", each)
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
