import re
from contextlib import contextmanager

import pytest
import torch

import sahelpers as sa
from sahelpers.store import load, save
from sahelpers.store.archive import same
from sahelpers.training import train_judge

SHORT = {"epochs": 1, "batch_size": 20, "latent_dim": 3}


@pytest.fixture(scope="module")
def data(mnist):
    return mnist.take(600, seed=0)


def test_same_seed_same_weights_and_another_seed_others(data):
    state = torch.get_rng_state()
    runs = [sa.train_baseline(data, data, sa.BaselineConfig(seed=s, **SHORT)) for s in (1, 1, 2)]
    first, again, other = (r.model.state_dict() for r in runs)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator is not touched


@pytest.mark.parametrize("n", [1, 2, 19, 20, 41])
def test_any_number_of_images_will_do(data, n):
    config = sa.BaselineConfig(epochs=1, batch_size=20, latent_dim=3)
    trained = sa.train_baseline(data.take(n), data, config)
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_training_lowers_the_bound_on_held_out_images(data, mnist, arch):
    held_out = mnist.take(200, seed=9)
    config = sa.BaselineConfig(arch=arch, epochs=3, batch_size=20, latent_dim=3)
    trained = sa.train_baseline(data, held_out, config)
    curve = trained.history["held_out"]
    assert len(curve) == len(trained.history["kl"]) == 3
    assert curve[-1] < curve[0] < 784 * 0.6931
    value = sa.dataset_negative_elbo(trained.model, held_out).mean()
    assert curve[-1] == pytest.approx(float(value), rel=1e-5)
    assert not trained.model.training


def test_class_gaussians_are_fitted_for_the_classes_seen_only(data):
    trained = sa.train_baseline(data, data, sa.BaselineConfig(exclude=(3, 5), **SHORT))
    for label in range(10):
        untouched = torch.equal(trained.model.prior_mean[label], torch.zeros(3))
        assert untouched == (label in (3, 5))


def test_a_retrained_model_never_sees_the_class(data):
    """Other pixels in the left-out class change nothing."""
    config = sa.BaselineConfig(exclude=(3,), **SHORT)
    spoiled = data.images.clone()
    spoiled[data.labels == 3] = 0.5
    others = sa.LabelledImages(spoiled, data.labels)
    a, b = (sa.train_baseline(d, data, config).model.state_dict() for d in (data, others))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_state_round_trip(data):
    trained = sa.train_baseline(data, data, sa.BaselineConfig(**SHORT))
    twin = sa.TrainedCVAE.from_state(trained.to_state())
    assert twin.history == trained.history
    assert torch.equal(twin.model.prior_mean, trained.model.prior_mean)


def interrupted(items, what):
    """A progress bar whose user interrupts the kernel after one pass."""
    yield next(iter(items))
    raise KeyboardInterrupt


def train(what, data, held_out, resume=None):
    """The state of a training of three passes."""
    if what == "judge":
        config = sa.JudgeConfig(epochs=3, batch_size=30)
        return train_judge(data, "open_set", config, resume=resume).to_state()
    config = sa.BaselineConfig(**{**SHORT, "epochs": 3}, arch=what)
    return sa.train_baseline(data, held_out, config, resume=resume).to_state()


@pytest.mark.parametrize("what", ["mlp", "conv", "judge"])
def test_an_interrupted_training_ends_in_the_same_bits(data, mnist, tmp_path, monkeypatch, what):
    part, held_out = tmp_path / "x.part.pt", mnist.take(50, seed=9)
    whole = train(what, data, held_out)
    for _ in range(2):  # each time after one more pass
        with monkeypatch.context() as patch:
            patch.setattr(sa.training, "progress", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(what, data, held_out, part)
    assert part.exists()
    steps = []
    monkeypatch.setattr(sa.training, "progress", lambda items, what: steps.append(what) or items)
    assert same(train(what, data, held_out, part), whole)
    assert steps[0].endswith("from pass 3")


def test_keeping_the_state_changes_nothing(data, tmp_path):
    assert same(train("mlp", data, data, tmp_path / "x.part.pt"), train("mlp", data, data))


@pytest.mark.full
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "misfit"])
def test_a_part_file_that_does_not_fit_is_not_used(data, mnist, tmp_path, damage):
    part, whole = tmp_path / "x.part.pt", train("mlp", data, data)
    train("mlp", mnist.take(600, seed=5) if damage == "other" else data, data, part)
    content = bytearray(part.read_bytes())
    if damage == "misfit":  # the right mark, but of another network
        state, mark = load(part)
        state["optimizer"]["param_groups"][0]["params"].pop()
        save(part, state, mark)
    elif damage != "other":
        content[len(content) // 2] ^= 8
        part.write_bytes({"flip": content, "cut": content[:-1], "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"starts afresh: .*"):
        assert same(train("mlp", data, data, part), whole)


def test_a_part_that_cannot_be_written_does_not_stop_the_training(data, tmp_path):
    part = tmp_path / "file" / "x.part.pt"
    part.parent.write_text("where a folder should be")
    with pytest.warns(UserWarning, match="goes on, but could not be resumed") as caught:
        assert same(train("mlp", data, data, part), train("mlp", data, data))
    assert len(caught) == 1


def test_test_images_of_other_classes_are_refused(data):
    others = sa.LabelledImages(data.images, data.labels, tuple("abcdefghij"))
    with pytest.raises(ValueError, match=r"test has 600 images of the classes \('a', 'b'"):
        sa.train_baseline(data, others, sa.BaselineConfig(**SHORT))
    with pytest.raises(ValueError, match="test has 0 images"):
        sa.train_baseline(data, data.only(()), sa.BaselineConfig(**SHORT))


@pytest.mark.parametrize("role", ["open_set", "tuning"])
def test_a_judge_learns(data, mnist, role):
    config = sa.JudgeConfig(epochs=3, batch_size=30, lr=2e-3)
    judge = train_judge(data, role, config)
    answers = judge.probabilities(mnist.images[:500]).argmax(1)
    assert (answers == mnist.labels[:500]).float().mean() > 0.6
    assert not judge.training


def test_junk_is_junk_in_six_kinds(digits):
    junk = sa.training.none_of_these(digits.images, digits.labels, 12, sa.seeded(0))
    assert junk.shape == (12, 1, 28, 28)
    assert 0 <= junk.min() <= junk.max() <= 1
    spread = junk.flatten(1).std(1)
    assert spread[2] == spread[8] == 0  # flat gray
    assert 0 < spread[3] < 0.05  # faint noise on gray
    assert spread[0] > 0.25  # uniform noise: 0.289
    shuffled = junk[5].flatten().sort().values  # a digit cut up keeps its gray values
    assert any(torch.equal(shuffled, d.flatten().sort().values) for d in digits.images)


@pytest.mark.full
def test_bfloat16_products_change_the_bound_by_little(data, mnist):
    held_out, config = mnist.take(200, seed=9), sa.BaselineConfig(epochs=3, batch_size=20)
    plain, half = (sa.train_baseline(data, held_out, config, bf16=b) for b in (False, True))
    assert plain.model.dtype == half.model.dtype == torch.float32
    assert not torch.equal(plain.model.decoder[0].weight, half.model.decoder[0].weight)
    assert half.history["held_out"][-1] == pytest.approx(plain.history["held_out"][-1], rel=0.02)


# Whatever the caller has set


@contextmanager
def default_type(kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "double": lambda: default_type(torch.float64),
    "half": lambda: default_type(torch.float16),
    "meta": lambda: torch.device("meta"),
}
QUICK = sa.BaselineConfig(epochs=1, batch_size=10, latent_dim=3)


def chain(data):
    """Each thing that is trained or estimated, as one state."""
    model = sa.train_baseline(data, data, QUICK).model
    judge = sa.train_judge(data, "guide", sa.JudgeConfig(epochs=1, batch_size=10))
    fishers = sa.class_fishers(model, data, sa.FisherConfig(n_fisher_samples=20))
    config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=64, batch_size=32, cooldown=1)
    result = sa.forget(model, fishers.without(3), 3, config)
    return [x.to_state() for x in (model, judge, fishers, result.model)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_training_and_forgetting_do_not_depend_on_what_the_caller_has_set(digits, setting):
    expected = chain(digits)
    with SETTINGS[setting]():
        before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
        found = chain(digits)
        after = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    assert before == after
    assert all(same(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def made_under(setting):
    with setting:
        return sa.CVAE(latent_dim=3)


UNTRAINABLE = {
    "meta": (lambda: made_under(torch.device("meta")), "model is on the device meta"),
    "inference": (lambda: made_under(torch.inference_mode()), "made under torch.inference_mode"),
    "half": (lambda: sa.CVAE(latent_dim=3).half(), r"float16 and .*call model\.to\(torch\.float32"),
    "bfloat16": (lambda: sa.CVAE(latent_dim=3).bfloat16(), "weights of torch.bfloat16 and the"),
    "double": (lambda: sa.CVAE(latent_dim=3).double(), "weights of torch.float64 and the images"),
    "frozen": (lambda: sa.CVAE(latent_dim=3).requires_grad_(False), r"requires_grad_\(True\)"),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_a_model_that_cannot_be_trained_is_refused_in_words(digits, case):
    make, message = UNTRAINABLE[case]
    with pytest.raises(ValueError, match=message):
        sa.train_baseline(digits, digits, QUICK, model=make())


def own_model(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sa.CVAE(latent_dim=SHORT["latent_dim"])


def test_a_part_file_of_another_model_of_the_same_shapes_is_not_used(data, tmp_path):
    part, config = tmp_path / "x.part.pt", sa.BaselineConfig(**SHORT)
    whole = sa.train_baseline(data, data, config, model=own_model(2)).to_state()
    sa.train_baseline(data, data, config, model=own_model(1), resume=part)
    with pytest.warns(UserWarning, match="left by another run"):
        other = sa.train_baseline(data, data, config, model=own_model(2), resume=part)
    assert same(other.to_state(), whole)


@pytest.mark.parametrize("what", ["baseline", "judge"])
def test_where_no_pass_is_left_the_outcome_is_in_evaluation_mode(data, tmp_path, what):
    def trained():
        part = tmp_path / "x.part.pt"
        if what == "judge":
            config = sa.JudgeConfig(epochs=1, batch_size=30)
            return train_judge(data, "open_set", config, resume=part)
        model = own_model(1)
        config = sa.BaselineConfig(**{**SHORT, "epochs": 1})
        return sa.train_baseline(data, data, config, model=model, resume=part).model

    assert [trained().training for _ in range(2)] == [False, False]


def test_a_file_that_is_no_part_file_is_left_alone(data, tmp_path):
    mine = tmp_path / "mine.pt"
    torch.save({"weights": torch.ones(3)}, mine)
    before = mine.read_bytes()
    with pytest.warns(UserWarning, match="Training starts afresh.*the file stays as it is"):
        sa.train_baseline(data, data, sa.BaselineConfig(**SHORT), resume=str(mine))
    assert mine.read_bytes() == before


def test_test_images_of_another_type_are_refused_before_the_first_pass(data):
    doubled = sa.LabelledImages(data.images.double(), data.labels)
    with pytest.raises(ValueError, match=r"images of test of type torch.float64"):
        sa.train_baseline(data, doubled, sa.BaselineConfig(**SHORT))


@pytest.mark.parametrize("what", ["mlp", "conv", "judge"])
def test_no_bar_promises_a_time(data, monkeypatch, what):
    said = []

    def bar(items, words):
        said.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(sa.training, "progress", bar)
    with pytest.raises(KeyboardInterrupt):
        train(what, data, data)
    assert not re.search("minute|second", said[0])
