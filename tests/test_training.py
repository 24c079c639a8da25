import pytest
import torch

import sahelpers as sa
from sahelpers.archive import same

SHORT = {"epochs": 1, "batch_size": 20, "latent_dim": 3}


@pytest.fixture(scope="module")
def data(mnist):
    return mnist.take(600, seed=0)


def test_same_seed_same_weights_and_another_seed_others(data):
    state = torch.get_rng_state()
    runs = [sa.train_baseline(data, sa.BaselineConfig(seed=s, **SHORT)) for s in (1, 1, 2)]
    first, again, other = (r.model.state_dict() for r in runs)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator is not touched


@pytest.mark.parametrize("n", [1, 2, 19, 20, 41])
def test_any_number_of_images_will_do(data, n):
    config = sa.BaselineConfig(epochs=1, batch_size=20, latent_dim=3)
    trained = sa.train_baseline(data.take(n), config)
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_training_lowers_the_bound_on_held_out_images(data, mnist, arch):
    held_out = mnist.take(200, seed=9)
    config = sa.BaselineConfig(arch=arch, epochs=3, batch_size=20, latent_dim=3)
    trained = sa.train_baseline(data, config, held_out)
    curve = trained.history["held_out"]
    assert len(curve) == len(trained.history["kl"]) == 3
    assert curve[-1] < curve[0] < 784 * 0.6931
    value = sa.negative_elbo(trained.model, held_out.images, held_out.labels, sa.seeded(0)).mean()
    assert curve[-1] == pytest.approx(float(value), rel=1e-5)
    assert not trained.model.training


def test_class_gaussians_are_fitted_for_the_classes_seen_only(data):
    trained = sa.retrain_without(data, sa.BaselineConfig(**SHORT), (3, 5))
    for label in range(10):
        untouched = torch.equal(trained.model.prior_mean[label], torch.zeros(3))
        assert untouched == (label in (3, 5))


def test_control_never_sees_the_class(data):
    """Other pixels in the left-out class change nothing."""
    config = sa.BaselineConfig(**SHORT)
    spoiled = data.images.clone()
    spoiled[data.labels == 3] = 0.5
    a = sa.retrain_without(data, config, 3).model.state_dict()
    b = sa.retrain_without(sa.LabelledImages(spoiled, data.labels), config, 3).model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_state_round_trip(data):
    trained = sa.train_baseline(data, sa.BaselineConfig(**SHORT))
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
        return sa.train_judge(data, "open", config, resume=resume).to_state()
    config = sa.BaselineConfig(**{**SHORT, "epochs": 3}, arch=what)
    return sa.train_baseline(data, config, held_out, resume=resume).to_state()


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
    assert same(train("mlp", data, None, tmp_path / "x.part.pt"), train("mlp", data, None))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "misfit"])
def test_a_part_file_that_does_not_fit_is_not_used(data, mnist, tmp_path, damage):
    part, whole = tmp_path / "x.part.pt", train("mlp", data, None)
    train("mlp", mnist.take(600, seed=5) if damage == "other" else data, None, part)
    content = bytearray(part.read_bytes())
    if damage == "misfit":  # the right mark, but of another network
        mark = torch.load(part, weights_only=True)["fingerprint"]
        state = sa.load(part)
        state["optimizer"]["param_groups"][0]["params"].pop()
        sa.save(part, state, mark)
    elif damage != "other":
        content[len(content) // 2] ^= 8
        part.write_bytes({"flip": content, "cut": content[:-1], "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"starts afresh: .*"):
        assert same(train("mlp", data, None, part), whole)


def test_a_part_that_cannot_be_written_does_not_stop_the_training(data, tmp_path):
    part = tmp_path / "file" / "x.part.pt"
    part.parent.write_text("where a folder should be")
    with pytest.warns(UserWarning, match="goes on, but could not be resumed") as caught:
        assert same(train("mlp", data, None, part), train("mlp", data, None))
    assert len(caught) == 1


def test_wrong_class_count_is_named(data):
    with pytest.raises(ValueError, match=r"num_classes=11, but the data has 10"):
        sa.train_baseline(data, sa.BaselineConfig(num_classes=11, **SHORT))


@pytest.mark.parametrize("role", ["open", "tuning"])
def test_a_judge_learns(data, mnist, role):
    config = sa.JudgeConfig(epochs=3, batch_size=30, lr=2e-3)
    judge = sa.train_judge(data, role, config)
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


def test_bfloat16_products_change_the_bound_by_little(data, mnist):
    held_out, config = mnist.take(200, seed=9), sa.BaselineConfig(epochs=3, batch_size=20)
    plain, half = (sa.train_baseline(data, config, held_out, bf16=b) for b in (False, True))
    assert plain.model.dtype == half.model.dtype == torch.float32
    assert not torch.equal(plain.model.decoder[0].weight, half.model.decoder[0].weight)
    assert half.history["held_out"][-1] == pytest.approx(plain.history["held_out"][-1], rel=0.02)
