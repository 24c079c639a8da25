"""The attacks that were added later: what they do, and that their table says what was found."""

import math
from itertools import product

import further
import pieces
import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.elbo import negative_elbo
from sahelpers.probing import ProbeResult
from sahelpers.recovery import RecoveryCurve
from sahelpers.study import battery, grid
from sahelpers.study.statistics import FOOLED, KEPT

torch.set_num_threads(1)
CLASS = 2
NAMES = {
    "guided both, wary guide", "guided z, wary guide", "relearned, then guided both",
    "relearned, then guided z", "label vector", "label only, rate of choice", "decoder alone",
    "fine-tuned on the others",
}  # fmt: skip


def test_a_label_vector_is_fitted_and_no_weight(tiny, digits, monkeypatch):
    """Beside a loop that is written out; under it the images cost less than where it began."""
    monkeypatch.setattr(further, "FIT_STEPS", 3)
    few, before = digits.only(CLASS), [p.clone() for p in tiny.parameters()]
    found = further.fit_vector(tiny, CLASS, few, seed=5)
    start = torch.full((10,), 1 / 9)
    start[CLASS] = 0
    y, draw = start.clone().requires_grad_(True), sa.seeded(5)
    adam = torch.optim.Adam([y], lr=further.FIT_RATE)
    for _ in range(3):
        noise = torch.randn((len(few), tiny.latent_dim), generator=draw)
        (y.grad,) = torch.autograd.grad(
            negative_elbo(tiny, few.images, y.repeat(len(few), 1), noise).mean(), [y]
        )
        adam.step()
    torch.testing.assert_close(found, y.detach())
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in tiny.parameters())
    noise = torch.zeros(len(few), tiny.latent_dim)
    costs = [negative_elbo(tiny, few.images, v.repeat(len(few), 1), noise) for v in (start, found)]
    assert costs[1].mean() < costs[0].mean()


def test_the_attacks_are_what_they_say(tiny, scoring, digits, monkeypatch):
    """Relearning and searches are recorded: which model, weights, rate, images and guide."""
    runs, searches, asked, relearned = [], [], [], sa.CVAE(latent_dim=tiny.latent_dim).eval()
    wary = sa.Judge("wary").eval()

    def relearning(of, digit, *, data, judges, steps, over="all", rate=None, seed=42):
        assert (digit, judges) == (CLASS, scoring)
        classes = tuple(data.labels.unique().tolist())
        runs.append((of is tiny, over, rate, steps, classes, len(data), seed))
        area = 0.125 if rate is None else 1 - abs(rate - 0.2)  # the best is not the last
        return RecoveryCurve([0, 1], [area] * 2, relearned)

    def search(of, digit, config, *, guide, over):
        assert guide is wary
        searches.append((of is relearned, digit, over, config.n_restarts))
        return ProbeResult(digits.images[:4], *[torch.zeros(4)] * 3)

    def success(images, judges, digit):
        asked.append((len(images), digit))
        return torch.tensor([True, False]).repeat(len(images) // 2)

    monkeypatch.setattr(further, "relearn", relearning)
    monkeypatch.setattr(battery, "relearn", relearning)
    monkeypatch.setattr(further, "guided_attack", search)
    monkeypatch.setattr(further, "success", success)
    for name, value in {"FIT_STEPS": 1, "SAMPLES": 8, "SIZE": 3}.items():
        monkeypatch.setattr(further, name, value)
    values = further.attack(tiny, CLASS, scoring, wary, digits)
    assert set(values) == {*NAMES, KEPT, FOOLED}
    assert searches == [
        (False, CLASS, "both", 128), (False, CLASS, "z", 128), (False, CLASS + 1, "both", 128),
        (True, CLASS, "both", 128), (True, CLASS, "z", 128),
    ]  # fmt: skip
    assert asked == [(4, digit) for _, digit, *_ in searches] + [(8, CLASS)] * further.RUNS
    assert runs[0] == (False, "all", None, further.STEPS, (CLASS,), 3, 42)
    others = tuple(k for k in range(10) if k != CLASS)
    assert runs[-1] == (True, "all", None, further.LONG, others, 36, 46)
    each = [*(("label", rate) for rate in further.RATES), ("decoder", None)]
    assert {(run[0], *run[3:6]) for run in runs[1:-1]} == {(True, further.STEPS, (CLASS,), 3)}
    assert [(*run[1:3], run[6]) for run in runs[1:-1]] == [
        (*what, seed) for what, seed in product(each, range(42, 47))
    ]
    assert values["label only, rate of choice"] == [1.0] * further.RUNS
    assert values["decoder alone"] == [0.125] * further.RUNS
    assert values["label vector"] == [0.5] * further.RUNS
    assert values["guided both, wary guide"] == [1, 0, 1, 0]


def test_the_models_were_attacked():
    """No others, by all attacks, and finite; what is missing is said on the page."""
    found = pieces.read(further.JOURNAL, pieces.Model)
    assert set(found) <= set(further.models())
    left = len(further.models()) - len(found)
    page = (CHECKOUT / "results/further.md").read_text(encoding="utf-8")
    assert (f"Still to be attacked: {left} of 50 models." in page) == (left > 0)
    for of in found.values():
        assert set(of["values"]) == {*NAMES, KEPT, FOOLED}
        assert all(math.isfinite(v) for several in of["values"].values() for v in several)


def test_the_page_says_what_the_journal_holds():
    page = pieces.page(further.tables())
    assert (CHECKOUT / "results/further.md").read_text(encoding="utf-8") == page
    assert page in (CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")


def test_the_table_says_what_was_found(tmp_path, monkeypatch):
    """Verdicts of the journal's lines; a digit without three controls is left out."""
    monkeypatch.setattr(further, "JOURNAL", tmp_path / "further.jsonl")
    for model in further.models():
        if model.digit in (3, 4) or (model.digit == 5 and model.seed != 44):
            ours = 0.1 if model.digit == 4 else 0.8
            share = {further.HIDDEN: 0.9, further.OURS: ours, further.CONTROL: 0.2}[model.method]
            values = {"label vector": [share] * 5, "guided z": [0.2] * 5, KEPT: [1], FOOLED: [0]}
            grid.append(further.JOURNAL, {**model._asdict(), "values": values})
    page = pieces.page(further.tables()).splitlines()
    assert page[0] == "Still to be attacked: 36 of 50 models."
    assert page[2] == "Digits: 3 4."
    assert page[6:] == [
        "| label vector | 0.90 | 0.45 | 0.20 | 4 | 3 | 3 | - | - |",
        "| guided z | 0.20 | 0.20 | 0.20 | - | - | - | - | 3 4 |",
    ]
