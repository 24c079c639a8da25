"""The chain from data to a forgotten class, on a small configuration."""

import copy
import functools
import os
import random
import shutil
import warnings
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

import sahelpers as sa
from sahelpers import amnesia, fisher, training
from sahelpers.masked import MNIST_PUSH, PUSH
from sahelpers.store import load, save
from sahelpers.store.archive import same
from sahelpers.store.files import digest

BASE = sa.BaselineConfig(epochs=1, batch_size=50, latent_dim=3)
FISH = sa.FisherConfig(n_fisher_samples=50)
QUICK = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2)
JUDGE = sa.JudgeConfig(epochs=1, batch_size=50)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def pair(mnist):
    return mnist.take(400), mnist.take(100, seed=1)


def story(pair, **changes):
    usual = {"baseline": BASE, "fisher": FISH, "amnesia": QUICK, "judge": JUDGE}
    return sa.Story(pair, **(usual | changes))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_every_link_is_made_once_and_then_loaded(folder, pair, monkeypatch):
    def chain():
        s = story(pair)
        return s.baseline, s.fishers, s.forgotten((5, 2)), s.retrained(3), s.judge("tuning")

    first = chain()
    stems = [name.rsplit("-", 1)[0] for name in names(folder)]
    assert stems == ["fisher", "judge_tuning", "vae_baseline", "vae_forget_2-5", "vae_without_3"]
    for maker in ("train_baseline", "train_judge", "class_fishers", "forget"):
        monkeypatch.setattr(sa.story, maker, None)  # nothing is made again
    again = chain()
    assert all(same(a.to_state(), b.to_state()) for a, b in zip(first, again, strict=True))
    assert first[2].forget_class == again[2].forget_class == (2, 5)
    assert first[1].without(3).n == again[1].without(3).n == 45


@pytest.mark.parametrize("made", ["forgotten", "hidden", "masked", "retrained"])
def test_weights_that_were_changed_in_place_are_not_handed_out_again(folder, pair, made):
    found = getattr(story(pair), made)
    before = copy.deepcopy(model_of(found(1)).state_dict())
    with torch.no_grad():
        for weight in model_of(found(1)).parameters():
            weight.zero_()
    again = found(1)
    assert all(torch.equal(v, before[k]) for k, v in model_of(again).state_dict().items())
    assert found(1) is again


def model_of(found):
    return getattr(found, "model", found)


def test_a_story_is_the_same_under_inference_mode(folder, pair):
    expected = story(pair).forgotten(1).model.state_dict()
    for path in folder.glob("*.pt"):
        path.unlink()
    with torch.inference_mode():
        found = story(pair).forgotten(1).model
    assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())
    assert all(weight.requires_grad for weight in found.parameters())


def test_a_class_without_images_to_train_on_is_named_at_once(pair):
    train, test = pair
    with pytest.raises(ValueError, match=r"train has no image of the classes \('1',\): a story"):
        sa.Story((train.without(1), test))


def test_in_one_story_a_link_is_read_once(folder, pair):
    s = story(pair)
    assert s.baseline is s.baseline
    assert s.forgotten(3) is s.forgotten((3,))
    assert s.retrained(3) is s.retrained([3])
    assert s.guide is s.judge("guide")
    assert s.hidden(3) is s.hidden(3)
    assert s.retrained(3, seed=5) is not s.retrained(3)


def test_nothing_is_made_before_it_is_asked_for(folder, pair):
    story(pair)
    assert names(folder) == []


def test_the_default_story_has_plain_names(folder, monkeypatch):
    s = sa.Story()
    monkeypatch.setattr(sa.Story, "_baseline_digest", "0")
    monkeypatch.setattr(sa.Story, "fishers", sa.ClassFishers((sa.Fisher({}, 1, {}, ""),)))
    assert s.forgotten_recipe((2, 5)).path == folder / "vae_forget_2-5.pt"
    assert s._training_recipe("vae_baseline", s.config.baseline).path.name == "vae_baseline.pt"
    other = sa.Story((s.train.take(1000), s.test))
    path = other._training_recipe("vae_baseline", other.config.baseline).path
    assert path.name.startswith("vae_baseline-")  # the full model's place is not taken


def test_the_test_curve_is_always_there(folder, pair):
    """Whatever is asked for first, notebook 01 finds `held_out`."""
    s = story(pair)
    s.forgotten(3), s.retrained(3)
    fresh = story(pair)
    assert len(fresh.baseline.history["held_out"]) == BASE.epochs
    assert len(fresh.retrained(3).history["held_out"]) == BASE.epochs


@pytest.mark.parametrize("link", ["baseline", "judge", "fishers", "forgotten", "retrained"])
def test_other_data_under_one_configuration_are_another_file(folder, pair, mnist, link):
    ask = {
        "baseline": lambda s: s.baseline,
        "judge": lambda s: s.judge("closed_set"),
        "fishers": lambda s: s.fishers,
        "forgotten": lambda s: s.forgotten(3).model,
        "retrained": lambda s: s.retrained(3),
    }[link]
    other = mnist.take(300, seed=7), pair[1]
    first, second = (ask(story(data)).to_state() for data in (pair, other))
    assert not same(first, second)
    shutil.rmtree(folder)
    assert same(ask(story(other)).to_state(), second)  # as from a clean folder


def test_other_class_names_are_other_data(folder, pair):
    renamed = [sa.LabelledImages(d.images, d.labels, tuple("abcdefghij")) for d in pair]
    story(pair).baseline, story(tuple(renamed)).baseline
    assert len(names(folder)) == 2


def test_what_is_made_for_another_model_is_another_file(folder, pair):
    models = [sa.CVAE("mlp", 3) for _ in range(2)]
    found = [story(pair, baseline=m).fishers for m in models]
    assert not same(found[0].to_state(), found[1].to_state())
    results = [story(pair, baseline=m).forgotten(3) for m in models]
    assert not same(results[0].model.to_state(), results[1].model.to_state())
    assert same(story(pair, baseline=models[0]).forgotten(3).to_state(), results[0].to_state())
    assert len(names(folder)) == 4
    trained = story(pair, baseline=models[0]).baseline
    assert trained.model is models[0]
    assert trained.history == {}


def test_a_replaced_baseline_makes_its_children_anew(folder, pair):
    s = story(pair)
    old = s.forgotten(3)
    path = s._training_recipe("vae_baseline", BASE).path
    state, mark = load(path)
    with torch.no_grad():
        state["model"]["tensors"]["decoder.0.bias"] += 0.01  # as another number of threads might
    save(path, state, mark)
    with pytest.warns(UserWarning, match="made anew") as caught:
        new = story(pair).forgotten(3)
    said = [str(w.message) for w in caught]
    assert len(said) == 2  # one line for each child
    assert all("is made anew: it was made from another baseline" in line for line in said)
    assert not same(new.model.to_state(), old.model.to_state())
    shutil.rmtree(folder)
    save(path, state, mark)
    assert same(story(pair).forgotten(3).model.to_state(), new.model.to_state())


@pytest.mark.parametrize(
    ("module", "made", "message"),
    [
        (training, "vae_baseline", "version 1 of its recipe, which is 9 now"),
        (fisher, "fisher", "version 1 of its recipe, which is 9 now"),
        (amnesia, "vae_forget_3", "version 4 of its recipe, which is 9 now"),
    ],
)
def test_a_raised_recipe_version_makes_anew_and_says_so(
    folder, pair, monkeypatch, module, made, message
):
    story(pair).forgotten(3)
    monkeypatch.setattr(module, "VERSION", 9)
    with pytest.warns(UserWarning, match=rf"{made}.*{message}"):
        story(pair).forgotten(3)


def test_a_given_model_of_other_classes_is_refused(pair):
    with pytest.raises(ValueError, match="baseline has 4 classes, your data 10"):
        story(pair, baseline=sa.CVAE("mlp", 3, num_classes=4))


def test_a_given_model_of_other_images_is_refused(pair):
    other = sa.CVAE("mlp", 3, image_shape=(1, 8, 8))
    with pytest.raises(
        ValueError, match=r"images of baseline have the shape \(1, 8, 8\), those of"
    ):
        story(pair, baseline=other)


@pytest.mark.parametrize("arch", ["mlp", "conv", "own"])
def test_retrained_models_of_a_given_one_are_built_like_it(pair, arch):
    given = sa.CVAE("mlp" if arch == "own" else arch, 3)
    given.arch = arch
    built = "mlp" if arch == "own" else arch  # there is no recipe for networks of one's own
    assert story(pair, baseline=given).config.baseline == sa.BaselineConfig(
        arch=built, latent_dim=3
    )


def test_the_best_device_is_looked_for_only_when_asked(pair, monkeypatch):
    asked = []
    monkeypatch.setattr(sa.story, "default_device", lambda: asked.append(1) or torch.device("cpu"))
    assert story(pair).device == torch.device("cpu")
    assert asked == []
    assert story(pair, device="auto").device == torch.device("cpu")
    assert asked == [1]


def test_the_configurations_of_a_story_do_not_change(pair):
    with pytest.raises(FrozenInstanceError):
        story(pair).config.baseline = BASE


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"fisher": BASE}, TypeError, "fisher is of type BaselineConfig, not FisherConfig"),
        ({"baseline": 3}, TypeError, "baseline is of type int, not BaselineConfig"),
        ({"judge": QUICK}, TypeError, "judge is of type AmnesiaConfig, not JudgeConfig"),
    ],
)
def test_wrong_configurations_are_named(pair, changes, error, words):
    with pytest.raises(error, match=words):
        story(pair, **changes)


def test_data_that_are_no_pair_are_named(pair):
    with pytest.raises(TypeError, match=r"dataset is a single set of images: .*Story\(images\.spl"):
        sa.Story(pair[0])
    with pytest.raises(TypeError, match=r"dataset is of type int: give a name .*split"):
        sa.Story(3)
    with pytest.raises(TypeError, match=r"dataset\[1\] is of type Tensor, not LabelledImages"):
        sa.Story((pair[0], pair[1].images))


def test_test_images_of_other_classes_are_refused(pair):
    """They are only measured on: without a word, every score of a class was of another one."""
    train, test = pair
    swapped = sa.LabelledImages(test.images, test.labels, tuple("1023456789"))
    with pytest.raises(ValueError, match=r"the classes of test are \('1', '0'.*give both the same"):
        story((train, swapped))


def test_a_storys_classes_have_names(folder, pair):
    """Files keep the numbers: under a name and under its number there is one file."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    named = tuple(sa.LabelledImages(d.images, d.labels, words) for d in pair)
    s = story(named)
    assert s.forgotten("three") is s.forgotten(3)
    assert s.forgotten("three").forget_class == (3,)
    assert s.hidden(("five", "two")) is s.hidden((2, 5))
    assert s.retrained("nine") is s.retrained(9)
    assert s.forgotten_recipe("three").path == s.forgotten_recipe(3).path
    assert s.forgotten_recipe(("five", 2)).path.name.startswith("vae_forget_2-5-")
    assert s.retrained_recipe("nine").path.name.startswith("vae_without_9-")
    with pytest.raises(
        ValueError, match=r"class 'drei' is not a class.*names: \('zero', 'one', 't"
    ):
        s.forgotten("drei")


def test_knobs_that_are_not_given_fit_the_size_of_the_images():
    story = sa.Story.from_knobs(DATASET="digits8", SURROGATE="class:1", GAMMA=2.0)
    usual = sa.AmnesiaConfig.for_values(64, surrogate="class:1", gamma=2.0)
    assert story.config.amnesia == usual
    assert sa.Story.from_knobs(DATASET="digits8", PUSH=9.0).config.amnesia.push == 9.0


def test_knobs_in_capitals_become_configurations(monkeypatch, pair):
    monkeypatch.setattr(sa.story, "load_dataset", lambda name, split: pair[split == "test"])
    s = sa.Story.from_knobs(
        DATASET="mnist", LATENT_DIM=3, BATCH_SIZE=50, N_FISHER_SAMPLES=70, EWC_LAMBDA=5.0, SEED=7,
        DEVICE="cpu",
    )  # fmt: skip
    assert s.config.baseline == sa.BaselineConfig(latent_dim=3, batch_size=50, seed=7)
    assert s.config.fisher == sa.FisherConfig(n_fisher_samples=70, seed=7)
    assert s.config.amnesia == sa.AmnesiaConfig(ewc_lambda=5.0, seed=7)
    assert s.config.judge == sa.JudgeConfig()
    with pytest.raises(TypeError, match=r"LATENT_DIMS: no such knob; there are DATASET, .*LATENT"):
        sa.Story.from_knobs(LATENT_DIMS=3)
    with pytest.raises(ValueError, match="gamma=-1 must be a number from 0"):
        sa.Story.from_knobs(GAMMA=-1)


def test_a_hidden_model_differs_in_its_label_weights_only(folder, pair):
    s = story(pair)
    hidden, before = s.hidden(3).state_dict(), s.baseline.model.state_dict()
    changed = [k for k in before if not torch.equal(hidden[k], before[k])]
    assert changed == ["encoder.0.weight", "decoder.0.weight"]


def test_a_masked_model_is_made_once_and_kept_and_masks_one_class(folder, pair, monkeypatch):
    few = functools.partial(sa.masked_model, steps=2)
    monkeypatch.setattr(sa.story, "masked_model", few)
    s = story(pair)
    found = s.masked("3")
    assert s.masked(3) is found
    expected = few(s.baseline.model, 3, push=PUSH, seed=s.config.amnesia.seed)
    assert same(found.state_dict(), expected.state_dict())
    monkeypatch.setattr(sa.story, "masked_model", None)
    assert same(story(pair).masked(3).state_dict(), expected.state_dict())
    with pytest.raises(ValueError, match=r"forget_class=\(2, 3\): a model masks one class"):
        s.masked((2, 3))


def test_how_far_a_mask_goes_is_known_for_the_digits_of_the_default_baseline(pair):
    for seed in (42, 7):
        assert sa.Story(baseline=sa.BaselineConfig(seed=seed))._mask_push(3) == MNIST_PUSH[3]
    given = sa.Story(baseline=sa.CVAE())
    for other in (story(pair), given, sa.Story(baseline=sa.BaselineConfig(latent_dim=3))):
        assert other._mask_push(3) == PUSH


def test_what_a_given_baseline_does_not_say_is_said(folder, pair, monkeypatch):
    given = sa.Story(pair, baseline=sa.CVAE("mlp", 3).eval())
    asked = []
    monkeypatch.setattr(given, "_trained", lambda stem, config: asked.append(config) or given)
    monkeypatch.setattr(given, "_once", lambda key, make: make())
    with pytest.warns(UserWarning, match="known: vae_without_3 is trained by BaselineConfig"):
        given.retrained(3)
    assert asked == [sa.BaselineConfig(latent_dim=3, exclude=(3,))]


def test_a_forgotten_model_is_not_given_beside_another_baseline(folder, pair):
    s = story(pair)
    s.forgotten(3)
    with torch.no_grad():
        next(s.baseline.model.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"story.baseline.model was changed in place"):
        s.forgotten(3)


def test_a_model_retrained_elsewhere_and_kept_is_the_storys(folder, pair, monkeypatch):
    s = story(pair)
    trained = sa.train_baseline(*pair, replace(BASE, exclude=(3,)))
    s.keep_retrained(3, trained)
    monkeypatch.setattr(sa.story, "train_baseline", None)
    assert same(s.retrained(3).to_state(), trained.to_state())


def test_an_interrupted_baseline_is_finished_from_its_part(folder, pair, monkeypatch):
    base = replace(BASE, epochs=3)
    whole = sa.train_baseline(*pair, base).to_state()

    def interrupted(items, what):
        yield next(iter(items))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "progress", interrupted)
        with pytest.raises(KeyboardInterrupt):
            story(pair, baseline=base).baseline  # noqa: B018
    assert [name.endswith(".part.pt") for name in names(folder)] == [True]
    assert same(story(pair, baseline=base).baseline.to_state(), whole)
    assert [name.endswith(".part.pt") for name in names(folder)] == [False]


def test_a_model_is_no_fisher_and_a_fisher_no_model(folder, pair):
    s = story(pair)
    s.fishers  # noqa: B018
    paths = {p.name.split("-")[0]: p for p in folder.iterdir()}
    (model, its), (fishers, theirs) = (load(paths[k]) for k in ("vae_baseline", "fisher"))
    save(paths["fisher"], model, theirs)
    with pytest.raises(sa.CheckpointError, match="does not hold a ClassFishers"):
        story(pair).fishers  # noqa: B018
    save(paths["vae_baseline"], fishers, its)
    with pytest.raises(sa.CheckpointError, match="does not hold a TrainedCVAE"):
        story(pair).baseline  # noqa: B018


def test_corrupt_checkpoint_is_named_and_not_overwritten(folder, pair):
    path = story(pair)._training_recipe("vae_baseline", BASE).path
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(sa.CheckpointError, match=path.name):
        story(pair).baseline  # noqa: B018
    assert path.read_bytes() == b"not a checkpoint"


def test_the_default_type_of_torch_does_not_matter(folder, pair):
    """A good file is not called bad, and what is made is the same."""
    made = story(pair).forgotten(3).to_state()  # kept with the seconds that it took
    torch.set_default_dtype(torch.float64)
    try:
        assert same(story(pair).forgotten(3).to_state(), made)
    finally:
        torch.set_default_dtype(torch.float32)


# Any order of what a day may bring: whatever is asked for equals what a clean folder gives.
# `make stress` tries two hundred sequences.

ASKED = {
    "baseline": lambda s: s.baseline.to_state(),
    "fishers": lambda s: s.fishers.to_state(),
    "forgotten": lambda s: s.forgotten(3).model.to_state(),
    "retrained": lambda s: s.retrained(3).to_state(),
    "judge": lambda s: s.judge("tuning").to_state(),
    "hidden": lambda s: s.hidden(3).to_state(),
    "masked": lambda s: s.masked(3).to_state(),
}
MODULES = {"training": training, "fisher": fisher, "amnesia": amnesia}


class Day:
    """Small stories under changing data, knobs, code and files; models stand for their recipe."""

    def __init__(self, folder, monkeypatch, mnist):
        self.folder, self.patch = folder, monkeypatch
        self.data = [(mnist.take(60, seed=k), mnist.take(20, seed=9)) for k in range(3)]
        self.which, self.seed, self.lam = 0, 1, 1.0
        self.code = dict.fromkeys(MODULES, 1)
        self.replaced = {}  # path -> content that somebody put there
        self.cache = {}
        for name, maker in (
            ("train_baseline", self.train), ("train_judge", self.judge),
            ("class_fishers", self.fisher), ("forget", self.forget), ("masked_model", self.mask),
        ):  # fmt: skip
            monkeypatch.setattr(sa.story, name, maker)

    # Makers that take no time: every number depends on all that the recipe names.
    def numbers(self, *parts):
        seed = int(digest(list(parts))[:12], 16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return sa.CVAE("mlp", 1).eval()

    def train(self, train, test, config, resume=None):
        model = self.numbers("t", self.code["training"], train.images, test.images, repr(config))
        return sa.TrainedCVAE(model, {"held_out": [0.0]})

    def judge(self, train, role, config, resume=None):
        seed = int(digest([train.images, role, repr(config), self.code["training"]])[:12], 16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return sa.Judge(role).eval()

    def fisher(self, model, train, config):
        twin = self.numbers("f", self.code["fisher"], model.to_state(), train.images, repr(config))
        value = {"w": twin.decoder[0].weight.detach()[:2, :2].abs().clone()}
        return sa.ClassFishers((sa.Fisher(value, 1, {"w": 0.0}, "square"),) * 10)

    def forget(self, model, fisher, forget_class, config):
        parts = self.code["amnesia"], model.to_state(), fisher.to_state(), repr(config)
        twin = self.numbers("a", *parts, forget_class)
        return sa.AmnesiaResult(twin, forget_class, {}, "done", 0.0, 0)

    def mask(self, baseline, label, push, seed):
        return self.numbers("m", self.code["amnesia"], baseline.to_state(), label, push, seed)

    def story(self):
        return sa.Story(
            self.data[self.which],
            baseline=replace(BASE, seed=self.seed),
            fisher=FISH,
            amnesia=replace(QUICK, ewc_lambda=self.lam),
            judge=JUDGE,
        )

    def ask(self, what):
        return ASKED[what](self.story())

    def clean(self, what):
        """The same from a folder that holds nothing but the files that somebody put there."""
        key = (what, self.which, self.seed, self.lam, *self.code.values(), digest(self.replaced))
        if key not in self.cache:
            with self.patch.context() as patch:
                other = self.folder.parent / f"clean-{len(self.cache)}"
                other.mkdir()
                for name, (state, mark) in self.replaced.items():
                    save(other / name, state, mark)
                patch.setenv("SA_CHECKPOINTS", str(other))
                self.cache[key] = self.ask(what)
                shutil.rmtree(other)
        return self.cache[key]

    def change(self, draw):
        what = draw.choice(["data", "seed", "knob", "code", "parent", "delete", "nothing"])
        if what == "data":
            self.which = draw.randrange(3)
        elif what == "seed":
            self.seed = draw.randrange(1, 4)
        elif what == "knob":
            self.lam = draw.choice([1.0, 2.0])
        elif what == "code":
            name = draw.choice(list(MODULES))
            self.code[name] += 1
            self.patch.setattr(MODULES[name], "VERSION", self.code[name])
            if name == "training":
                self.replaced = {}  # what an older version made counts no more
        elif what == "parent":
            path = self.story()._training_recipe("vae_baseline", self.story().config.baseline).path
            if path.exists():
                state, mark = copy.deepcopy(load(path))
                if mark["version"] == self.code["training"]:
                    state["model"]["tensors"]["decoder.0.bias"] += draw.random()
                    save(path, state, mark)
                    self.replaced[path.name] = (state, mark)
        elif what == "delete" and (files := sorted(self.folder.glob("*.pt"))):
            gone = draw.choice(files)
            gone.unlink()
            self.replaced.pop(gone.name, None)


@pytest.mark.full
@pytest.mark.parametrize("number", range(int(os.environ.get("SA_SEQUENCES", "20"))))
def test_any_sequence_of_a_day_gives_what_a_clean_folder_would(
    tmp_path_factory, monkeypatch, mnist, number
):
    folder = tmp_path_factory.mktemp("day")
    monkeypatch.setenv("SA_CHECKPOINTS", str(folder))
    for module in MODULES.values():
        monkeypatch.setattr(module, "VERSION", 1)
    day, draw = Day(folder, monkeypatch, mnist), random.Random(number)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for _ in range(6):
            day.change(draw)
            what = draw.choice(list(ASKED))
            assert same(day.ask(what), day.clean(what)), f"sequence {number}: {what}"


# Nothing is kept under a name that is not its own


def shift(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.001)


@pytest.mark.parametrize("used", ["fishers", "forgotten"])
def test_a_baseline_changed_in_place_makes_no_child_and_says_what_to_do(folder, pair, used):
    s = story(pair)
    s.fishers if used == "fishers" else s.forgotten(3)
    shift(s.baseline.model)
    before = names(folder)
    with pytest.raises(ValueError, match=r"story\.baseline\.model was changed in place.*deepcopy"):
        s.forgotten(8)
    with pytest.raises(ValueError, match=r"story\.baseline\.model was changed in place"):
        s.hidden(8)
    assert names(folder) == before
    clean = story(pair).forgotten(8)
    shutil.rmtree(folder)
    assert same(clean.model.to_state(), story(pair).forgotten(8).model.to_state())


def test_fishers_changed_in_place_make_no_child(folder, pair):
    s = story(pair)
    s.fishers.by_class[0].diagonal["decoder.0.bias"].add_(1.0)
    with pytest.raises(ValueError, match=r"story\.fishers was changed in place"):
        s.forgotten(8)


def test_a_model_of_ones_own_networks_changed_in_place_makes_no_child(folder, pair):
    inner = sa.CVAE("mlp", 3)
    s = story(pair, baseline=sa.CVAE("mlp", 3, encoder=inner.encoder, decoder=inner.decoder))
    s.fishers  # noqa: B018
    shift(s.baseline.model)
    with pytest.raises(ValueError, match=r"story\.baseline\.model was changed in place"):
        s.forgotten(8)


def test_a_given_model_may_be_trained_on_until_the_story_uses_it(folder, pair):
    model = sa.CVAE("mlp", 3)
    s = story(pair, baseline=model)
    shift(model)
    assert s.forgotten(3).forget_class == (3,)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("unseen", [False, True])
def test_data_changed_in_place_are_never_kept_as_what_they_were(folder, pair, split, unseen):
    """unseen: a change through NumPy, which torch does not count."""
    s = story(pair)
    images = getattr(s, split).images
    s.baseline  # noqa: B018
    if unseen:
        images.numpy()[:] *= 0.5
    else:
        images.mul_(0.5)
    before = names(folder)
    with pytest.raises(ValueError, match=rf"story\.{split} was changed in place"):
        s.forgotten(8)
    with pytest.raises(ValueError, match=rf"story\.{split} was changed in place"):
        s.judge("tuning")
    assert names(folder) == before


def test_data_changed_in_place_before_a_story_are_other_data(folder, pair):
    story(pair).baseline  # noqa: B018
    pair[0].images.mul_(0.5)
    story(pair).baseline  # noqa: B018
    assert len(names(folder)) == 2


def test_a_copy_for_a_method_leaves_the_story_as_it_was(folder, pair):
    s = story(pair)
    twin = s.with_own_baseline()
    state = copy.deepcopy(s.baseline.model.to_state())
    assert same(twin.baseline.model.to_state(), state)
    shift(twin.baseline.model)
    assert same(s.baseline.model.to_state(), state)
    assert s.forgotten(3).forget_class == (3,)


def test_the_report_names_classes_that_have_too_few_images(mnist):
    train, test = mnist.take(400), mnist.take(600, seed=1)
    pair = train, test
    assert story(pair).report() == train.report(test)
    chosen = torch.cat([(train.labels != 9).nonzero()[:, 0], (train.labels == 9).nonzero()[:2, 0]])
    few = train._where(chosen)
    without = test._where(test.labels != 8)
    text = story((few, without), baseline=replace(BASE, latent_dim=20)).report()
    lines = text.removeprefix(few.report(without)).split(", for ")
    assert lines[0] == "\ncannot be judged"
    assert "more training images than latent_dim=20 and 10 test images: " in lines[1]
    assert "9 (2 training images, " in lines[1]
    assert "8 (42 training images, 0 test images)" in lines[1]


def test_what_the_baseline_never_saw_no_retrained_model_sees(folder, pair):
    config = replace(BASE, exclude=(5,))
    recipe = story(pair, baseline=config).retrained_recipe(3)
    assert recipe.configs == (replace(BASE, exclude=(3, 5)),)


def test_judges_that_were_changed_in_place_are_not_handed_out_again(folder, pair):
    here = story(pair)
    judge = here.judges["open_set"]
    before = digest(dict(judge.state_dict()))
    with torch.no_grad():
        next(judge.parameters()).zero_()
    assert digest(dict(here.judges["open_set"].state_dict())) == before
    assert here.judges["open_set"] is here.judge("open_set")
    assert here.with_own_baseline().judges["open_set"] is here.judge("open_set")
