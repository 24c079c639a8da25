"""The published recipe: what trains its baseline, and that the page says what was measured."""

from collections import Counter
from statistics import fmean

import pieces
import published
import pytest
import torch

import sahelpers as sa
from sahelpers import training
from sahelpers.config import CHECKOUT
from sahelpers.study import battery, grid, report
from sahelpers.study.statistics import BESIDE, ERASED, NAMED, NATS, REMAINS, compare_all
from sahelpers.study.verdicts import claim, of_method


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


def line(piece):
    """What the journal would hold of a model: it remembers as much as its name says."""
    memory = {published.HIDDEN: 0.9, "paper": 0.8}.get(piece.method, 0.1 + piece.seed / 1000)
    values = {name: [-memory if name in NATS else memory] for name in (*NAMED, *BESIDE)}
    found = {"values": values, "held_out": 100.0, "p": 0.1, "entropy": 2.0}
    if piece.method in published.TESTED:
        names = (*battery.JUDGED, *battery.REAL, "seconds")
        found |= dict.fromkeys(names, 0.5)
    return {**piece._asdict(), **found}


def test_the_table_needs_all_groups_of_a_digit(tmp_path, monkeypatch):
    path = tmp_path / "published.jsonl"
    monkeypatch.setattr(published, "JOURNAL", path)
    assert "Still to be measured: 22 of 22 models." in pieces.page(published.tables())
    for piece in published.models():
        if (piece.digit, piece.method) != (7, "paper"):
            grid.append(path, line(piece))
    page = pieces.page(published.tables())
    assert "Still to be measured: 1 of 22 models." in page
    rows = [row for row in page.splitlines() if row.startswith("| label only, 10 images |")]
    cells = [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]
    assert cells[0] == ["0", "0.90", "0.80", "0.14", "0.14", "", "memory remains", "erased"]
    assert cells[1][5] == "0.14"  # for 3, what the official recipe retrained stands beside
    assert len(cells) == 2
    assert "* selective amnesia: Label only, 10 images: erased on 3 of 3." in page


def test_readme_says_what_the_attacks_found():
    """Memory after the published recipe, on every digit by one attack; none after ours."""
    groups = {method: published.gathered(method) for method in ("paper", published.OURS)}
    found = {
        method: [f for of in compare_all(digits).values() for f in of.findings]
        for method, digits in groups.items()
    }
    remains = Counter(f.attack for f in found["paper"] if f.verdict == REMAINS)
    assert remains["cost under a fitted label"] == len(published.DIGITS)
    assert set(remains.values()) == {2, 3}  # README says so, and that it is three attacks
    assert len(remains) == 3
    from_ours = claim(of_method(report.read_audit(), "paper")).named
    assert sorted(len(tally.digits[REMAINS]) for tally in from_ours) == [0, 3, 3, 3]
    assert all(f.verdict != REMAINS for f in found[published.OURS])
    assert sum(f.verdict == ERASED for f in found[published.OURS]) > 6  # of four attacks on three


def test_the_control_of_the_official_recipe_stands_between_the_two():
    """RESULTS.md says so, and that by three attacks it gives more than the usual controls."""
    done = pieces.read(published.JOURNAL, published.Model)
    hidden, paper, ours, official = (
        done[published.Model(3, method, 42)]["values"]
        for method in (*published.TESTED, published.OFFICIAL)
    )
    controls = [of["values"] for (d, m, _), of in done.items() if (d, m) == (3, published.CONTROL)]
    more = []
    for attack in NAMED:
        sign = -1 if attack in NATS else 1  # of memory
        known, taken, left, own = (
            sign * fmean(of[attack]) for of in (hidden, paper, ours, official)
        )
        assert known > taken > own > left
        more.append(own > fmean(sign * fmean(of[attack]) for of in controls))
    assert more == [True, True, False, True]


def test_the_page_says_what_the_journal_holds():
    page = pieces.page(published.tables())
    assert (CHECKOUT / "results/published.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    found = pieces.read(published.JOURNAL, published.Model)
    assert set(found) <= set(published.models())
