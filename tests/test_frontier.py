"""The exchange of memory against kept digits: what is measured of a model, and what is shown."""

import pytest

import sahelpers as sa
from study import journal
from study.experiments import frontier
from study.grid import RESULTS
from study.measures import MeasureConfig

LITTLE = sa.LadderConfig(z_steps=2, sets=1, fit_steps=2, heal_steps=2)


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A journal in which all models but one have been measured, and what is read from it."""
    monkeypatch.setattr(frontier, "JOURNAL", tmp_path / "journal.jsonl")
    names = (frontier.FITTED, frontier.HEALED_FITTED, frontier.ELBO, frontier.FRECHET)
    for model in frontier.models()[1:]:
        values = dict.fromkeys((*names, "steps", "seconds"), 100 * model.value + model.seed)
        journal.append(frontier.JOURNAL, {**model.key, "values": values})
    return frontier.read()


def test_every_model_has_a_key_of_its_own():
    keys = {journal.key_of(model.key) for model in frontier.models()}
    assert len(keys) == len(frontier.models())


def test_the_default_is_among_the_runs():
    usual = frontier.Model(3, "ours", 0.9, 42)
    assert usual.config == sa.AmnesiaConfig()
    before = frontier.Model(3, "version 4", 0.06, 42)
    assert before.config == sa.AmnesiaConfig.version4()


def test_a_mean_is_over_the_seeds_that_are_complete(done):
    assert frontier.complete(done) == [*frontier.SEEDS[1:]]
    assert (
        frontier.points(done)[8]["version 4, longer"][0.12][frontier.ELBO] == 12 + frontier.SEEDS[1]
    )
    assert not any(frontier.points({})[8].values())


def test_page_and_figure_show_every_run(done):
    known = {digit: {"retrained": 20.0, "masked": 10.0} for digit in frontier.DIGITS}
    page = frontier.page(done, known)
    n = len(frontier.DIGITS) * len(frontier.RUNS) * len(frontier.BUDGETS)
    assert page.count("\n| ") == 1 + n
    assert "Still to be measured: 1 of" in page
    assert f"Seeds of the baselines: {frontier.SEEDS[1]};" in page
    assert "* *version 4, longer*: `HEAL_EVERY` 120, `COOLDOWN` 900" in page
    assert "the 3: retrained 20.0, masked 10.0; the 8: " in page
    assert frontier.findings({}) == ""
    low = {**done, **{of: {"values": {**line["values"], frontier.ELBO: of.value}}
                      for of, line in done.items()}}  # fmt: skip
    assert (
        "cost of the 8 after training further (higher is less memory): *ours* 134.0, "
        in frontier.findings(low)
    )
    assert frontier.picture(done, known).startswith(b"\x89PNG")


def test_costs_of_controls_are_those_of_the_ladders_models_and_may_be_missing():
    assert frontier.costs_of_controls([])[3] == {}
    found = frontier.costs_of_controls(journal.read(frontier.JOURNAL))[3]
    assert set(found) == {"retrained", "masked"}
    assert found["masked"] < found["retrained"]


def test_the_exchange_is_measured_of_the_model_that_this_configuration_gives(
    model, fishers, mnist, scoring, give_judges
):
    def found(cooldown):
        quick = {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": cooldown}
        story = sa.Story(
            (mnist.take(500), mnist.take(200, seed=1)), amnesia=sa.AmnesiaConfig(**quick)
        )
        vars(story).update(baseline=sa.TrainedCVAE(model, {}), fishers=fishers)
        give_judges(story, scoring)
        attack = sa.Ladder(model, 3, story.train, mnist.take(400), LITTLE)
        return frontier.exchange(story, 3, attack, MeasureConfig(frechet_samples=20))

    once = found(cooldown=1)
    assert once["steps"] == 10
    assert once["seconds"] > 0
    assert once[frontier.ELBO] != 0
    assert once[frontier.FRECHET] > -100
    assert once == {**found(cooldown=1), "seconds": once["seconds"]}
    assert once[frontier.FITTED] != found(cooldown=9)[frontier.FITTED]


def test_the_committed_page_says_what_the_journal_holds():
    known = frontier.costs_of_controls(journal.read(frontier.JOURNAL))
    page = frontier.page(frontier.read(), known)
    assert (RESULTS / "frontier.md").read_text(encoding="utf-8") == page
