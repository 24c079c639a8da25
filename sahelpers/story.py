"""The chain from data to a forgotten class: every link is loaded, or made and kept.

A `Story` holds the data, the configurations and what is made from them, so that a recipe and its
result cannot disagree.  The notebooks, the dashboards, the study and the benchmarks all get their
models from one, so what one of them has made the others find.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import NoneType
from typing import Any, TypeVar

import torch
from torch import nn

from . import amnesia, fisher, training
from .amnesia import AmnesiaResult, forget
from .checks import check_device, check_is, composed, shown
from .config import AmnesiaConfig, BaselineConfig, Config, FisherConfig, JudgeConfig, check_classes
from .data import FEWEST, MNIST_DIGEST, LabelledImages, check_same_classes, load_dataset
from .fisher import ClassFishers, class_fishers
from .judges import FORMER_ROLES, SCORING, Judge
from .masked import MNIST_PUSH, PUSH, mask_config, masked_model
from .models import CVAE, check_model, default_device, ordinary_torch, reset_label
from .store.files import Recipe, Stateful, digest, load_or_make, part_path
from .training import TrainedCVAE, too_few_images, train_baseline, train_judge

Classes = int | str | Iterable[int | str]  # numbers, or the names that the data have
Pair = tuple[LabelledImages, LabelledImages]  # train and test
T = TypeVar("T")
S = TypeVar("S", bound=Stateful)


@dataclass(frozen=True)
class Configs:
    """The four configurations of a story.

    Attributes:
        baseline: Of the baseline and of the models that are retrained without a class.
        fisher: Of the Fisher per class.
        amnesia: Of forgetting.
        judge: Of the judges.
    """

    baseline: BaselineConfig
    fisher: FisherConfig
    amnesia: AmnesiaConfig
    judge: JudgeConfig


class Story:
    """Data, configurations, and the models made from them, each when it is first asked for.

    What takes time to make is kept as a file in checkpoints/, whose name stands for all that it
    depends on: configuration, data and the model that was given.  With the default data and
    configurations the name is plain, such as `vae_baseline.pt`; others carry a fingerprint, and so
    do retrained and masked models.  A file made from another file that was replaced since is made
    anew.  What is made from networks of your own is kept in this story's memory, and in no file.

    Args:
        dataset: The name of one of `load_dataset`'s data sets, or a pair (train, test) of
            LabelledImages.
        baseline: The baseline's configuration; or a trained model to begin with, which is moved to
            the device and set to evaluation mode.
        fisher: The configuration of the Fisher; the default one when left out.
        amnesia: The configuration of forgetting; the default for images of this size when left out
            (`AmnesiaConfig.for_values`).  A story forgets with drawn images, so that
            `AmnesiaConfig.with_kept_images` is of no use to it.  The surrogate "class:ring" is what
            the baseline draws for the class of that name.
        judge: The configuration of the judges; the default one when left out.
        device: Where data and models live; "auto" takes the best that is there.

    Attributes:
        config: The four configurations, `Configs`.
        dataset: The data set's name; None if the data were given.
        train: The images that are trained on.
        test: The images that are only measured on.
        device: Where data and models live.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: The model or the test images do not fit to the images to train on, images or
            weights are no float32, or there is no such data set, no such class for the surrogate,
            or no such device on this machine.
    """

    def __init__(
        self,
        dataset: str | Pair = "mnist",
        *,
        baseline: BaselineConfig | CVAE | None = None,
        fisher: FisherConfig | None = None,
        amnesia: AmnesiaConfig | None = None,
        judge: JudgeConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        check_is(baseline, (BaselineConfig, CVAE, NoneType), "baseline", CVAE.hint)
        check_is(fisher, (FisherConfig, NoneType), "fisher")
        check_is(amnesia, (AmnesiaConfig, NoneType), "amnesia")
        check_is(judge, (JudgeConfig, NoneType), "judge")
        self.device = default_device() if device == "auto" else check_device(device, "auto")
        self.dataset = dataset if isinstance(dataset, str) else None
        train, test = _images_of(dataset)
        self._given = baseline if isinstance(baseline, CVAE) else None
        if isinstance(baseline, CVAE):
            check_model(baseline, "baseline")
            if baseline.num_classes != train.num_classes:
                what = shown(dataset) if isinstance(dataset, str) else "your data"
                raise ValueError(
                    f"baseline has {baseline.num_classes} classes, {what} {train.num_classes}: "
                    "give the images that it was made for, Story((train, test), baseline=model)"
                )
            baseline.to(self.device).eval()
            arch = baseline.arch if baseline.is_built_in else BaselineConfig().arch
            baseline = BaselineConfig(arch=arch, latent_dim=baseline.latent_dim)
        _check_single(train, test, self._given)
        amnesia = amnesia or AmnesiaConfig.for_values(math.prod(train.image_shape))
        amnesia = replace(amnesia, surrogate=_by_number(amnesia.surrogate, train))
        self.config = Configs(
            baseline=baseline or BaselineConfig(),
            fisher=fisher or FisherConfig(),
            amnesia=amnesia,
            judge=judge or JudgeConfig(),
        )
        check_classes(self.config.baseline.exclude, train.num_classes, allow_empty=True)
        there = set(train.labels.unique().tolist())
        if absent := [name for c, name in enumerate(train.class_names) if c not in there]:
            raise ValueError(
                f"train has no image of the classes {shown(tuple(absent))}: a story needs some of "
                "every class that class_names has; give images of these, or LabelledImages with "
                "the other names alone"
            )
        for name, other in {"test": test, "baseline": self._given}.items():
            if other is not None and other.image_shape != train.image_shape:
                shapes = f"{other.image_shape}, those of train {train.image_shape}"
                raise ValueError(f"images of {name} have the shape {shapes}: give one shape")
        # New objects, which take their digest anew: NumPy may have changed the pixels since.
        self.train, self.test = (replace(part).to(self.device) for part in (train, test))
        # What was made: the object, and the digest of its weights then.
        self._made: dict[tuple[Any, ...], tuple[Any, str]] = {}
        self._digests: dict[str, str] = {}  # of data, baseline and Fisher, when first used

    def with_own_baseline(self) -> "Story":
        """Make the same story with a copy of the baseline, for a caller who may change it in place.

        Returns:
            A story with the same data, configurations, judges and Fishers, and a copy of the
            baseline that no other story shares.
        """
        twin = copy.copy(self)
        baseline = TrainedCVAE(copy.deepcopy(self.baseline.model), self.baseline.history)
        judges = {key: made for key, made in self._made.items() if key[0] == "judge"}
        vars(twin).update(baseline=baseline, _made=judges, _digests=dict(self._digests))
        return twin

    @property
    def given(self) -> list[str]:
        """The arguments that were given data or a model: "dataset", "baseline", both or neither."""
        given = []
        if self.dataset is None:
            given.append("dataset")
        if self._given is not None:
            given.append("baseline")
        return given

    def report(self) -> str:
        """Describe the data as far as a reader should know them before training; nothing is made.

        Returns:
            What `LabelledImages.report` says of train and test, and which classes cannot be judged
            because there are too few images of them.  Whether a class with enough images can be
            judged, `sa.can_be_judged` asks the baseline and the judges.
        """
        latent_dim = self.config.baseline.latent_dim
        few = []
        for c, name in enumerate(self.train.class_names):
            if too_few_images(c, latent_dim, test=self.test, train=self.train):
                n, n_test = len(self.train.only(c)), len(self.test.only(c))
                few.append(f"{name} ({n} training images, {n_test} test images)")
        lines = [self.train.report(self.test)]
        if few:
            lines.append(
                f"cannot be judged, for a class needs more training images than latent_dim="
                f"{latent_dim} and {FEWEST} test images: {', '.join(few)}"
            )
        return "\n".join(lines)

    @classmethod
    def from_knobs(cls, **knobs: Any) -> "Story":
        """Make the story of a notebook's parameter cell: knobs in capitals, each written once.

        Args:
            **knobs: DATASET, DEVICE, and the fields of BaselineConfig, FisherConfig and
                AmnesiaConfig, such as LATENT_DIM or EWC_LAMBDA.  SEED goes to all three of them,
                BATCH_SIZE to the baseline alone.

        Returns:
            The story.

        Raises:
            TypeError: There is no such knob.
            ValueError: A value is out of its range.
        """
        left = dict(knobs)  # those that nobody took yet
        arguments: dict[str, Any] = {}
        for name in ("DATASET", "DEVICE"):
            if name in left:
                arguments[name.lower()] = left.pop(name)
        shared: dict[str, Any] = {}
        if "SEED" in left:
            shared["seed"] = left.pop("SEED")
        allowed = ["DATASET", "DEVICE", "SEED"]
        given: dict[str, dict[str, Any]] = {}  # role -> fields of its configuration
        kinds = {"baseline": BaselineConfig, "fisher": FisherConfig, "amnesia": AmnesiaConfig}
        for role, kind in kinds.items():
            names = {f.name.upper() for f in fields(kind)} - {"EXCLUDE", "SEED"}
            if role == "amnesia":
                names.discard("BATCH_SIZE")
            allowed += sorted(names)
            mine = {name.lower(): left.pop(name) for name in list(left) if name in names}
            given[role] = {**mine, **shared}
        if left:
            raise TypeError(f"{', '.join(left)}: no such knob; there are {', '.join(allowed)}")
        made = {role: kind(**given[role]) for role, kind in kinds.items()}
        story = cls(**arguments, **made)
        # What is not given fits the size of the images, which the story knows only now.
        values = math.prod(story.train.image_shape)
        amnesia = AmnesiaConfig.for_values(values, **given["amnesia"])
        amnesia = replace(amnesia, surrogate=story.config.amnesia.surrogate)
        story.config = replace(story.config, amnesia=amnesia)
        return story

    @cached_property
    def baseline(self) -> TrainedCVAE:
        """The trained model and its curves; about a minute on two cores if it has to be made.

        An interrupted training goes on from its last pass, to the same bits.
        """
        if self._given is not None:
            trained = TrainedCVAE(self._given, {})
        else:
            trained = self._trained("vae_baseline", self.config.baseline)
        self._unchanged("baseline.model", _digest_of_model(trained.model))
        return trained

    def retrained(self, forget_class: Classes, seed: int | None = None) -> TrainedCVAE:
        """Train a model without some classes, by the baseline's recipe, or load it.

        How a model that was given as the baseline had been trained, it does not say.  Then the
        recipe is `BaselineConfig()` with its network and latent dimensions, and a warning says so.
        For another one ask a story that has it, such as
        `Story((train, test), baseline=BaselineConfig(epochs=30)).retrained(3)`.

        Args:
            forget_class: One class or several that it never sees, by number or name.
            seed: Another seed than the baseline's.

        Returns:
            The model and its curves.

        Raises:
            ValueError: There is no such class, or the baseline has networks of your own, of which
                no recipe is known.
        """
        stem, config = self._retrained(forget_class, seed)
        if self._given is not None:
            warnings.warn(
                f"How the given baseline was trained is not known: {stem} is trained by {config}.",
                stacklevel=2,
            )
        return self._once((stem, config), lambda: self._trained(stem, config))

    def keep_retrained(self, forget_class: Classes, trained: TrainedCVAE) -> TrainedCVAE:
        """Keep a model that was retrained elsewhere, by this story's recipe.

        Args:
            forget_class: One class or several that it never saw, by number or name.
            trained: The model and its curves.

        Returns:
            What is kept: the same, or what was kept before.
        """
        recipe = self.retrained_recipe(forget_class)
        return self._load_or_make(recipe, lambda: trained, TrainedCVAE)

    def retrained_recipe(self, forget_class: Classes) -> Recipe:
        """Say where the model retrained without some classes is kept, and what it depends on.

        Args:
            forget_class: One class or several that it never sees, by number or name.

        Returns:
            The recipe, whose `path` is the file.

        Raises:
            ValueError: As for `retrained`.
        """
        return self._training_recipe(*self._retrained(forget_class, None))

    @property
    def judges(self) -> dict[str, Judge]:
        """The judges that score, by role."""
        return {role: self.judge(role) for role in SCORING}

    @property
    def guide(self) -> Judge:
        """The judge that guides attacks and never scores."""
        return self.judge("guide")

    def judge(self, role: str) -> Judge:
        """Train the judge of a role, or load it; 20 to 40 seconds on two cores if it is trained.

        Args:
            role: "open_set", "closed_set", "guide", "wary" or "tuning".

        Returns:
            The judge, in evaluation mode.

        Raises:
            ValueError: There is no such role.
        """
        config = self.config.judge
        data = {"train": self._data["train"]}
        former = {today: f"judge_{before}" for before, today in FORMER_ROLES.items()}
        recipe = Recipe(
            f"judge_{role}",
            training.VERSION,
            (config,),
            data,
            usual=self.is_mnist,
            former_stem=former.get(role, ""),
        )

        def make() -> Judge:
            return train_judge(self.train, role, config, resume=part_path(recipe.path))

        def link() -> Judge:
            return self._load_or_make(recipe, make, Judge).to(self.device)

        return self._once(("judge", role), link)

    @cached_property
    def fishers(self) -> ClassFishers:
        """One Fisher per class of the baseline; about a second if they have to be made."""
        model, config = self.baseline.model, self.config.fisher

        def recipe() -> Recipe:
            parents = {"baseline": self._baseline_digest}
            return self._recipe("fisher", fisher.VERSION, (config,), parents)

        found = self._from_baseline(
            recipe, lambda: class_fishers(model, self.train, config), ClassFishers
        )
        self._unchanged("fishers", digest(found.to_state()))
        return found

    def forgotten(self, forget_class: Classes) -> AmnesiaResult:
        """Make the baseline forget some classes, or load the result; seconds if it is made.

        Args:
            forget_class: One class or several, by number or name.

        Returns:
            The model that has forgotten them, and how it got there.

        Raises:
            ValueError: There is no such class, or none would be kept.
        """
        gone = self.train.class_numbers(forget_class)
        self._baseline_digest  # noqa: B018  raises where the baseline was changed in place

        def make() -> AmnesiaResult:
            fisher = self.fishers.without(gone)
            return forget(self.baseline.model, fisher, gone, self.config.amnesia)

        def link() -> AmnesiaResult:
            result = self._from_baseline(lambda: self.forgotten_recipe(gone), make, AmnesiaResult)
            result.model.to(self.device)
            return result

        return self._once(("forgotten", gone), link)

    def hidden(self, forget_class: Classes) -> CVAE:
        """Hide some classes of the baseline behind their labels, as `reset_label` does.

        All that the baseline knew of them is still there.

        Args:
            forget_class: One class or several, by number or name.

        Returns:
            The baseline with the label weights of these classes replaced by the others' mean.

        Raises:
            ValueError: There is no such class, none would be kept, or networks of your own do not
                say where the label enters.
        """
        gone = self.train.class_numbers(forget_class)

        def make() -> CVAE:
            self._check_unchanged()
            return reset_label(self.baseline.model, gone)

        return self._once(("hidden", gone), make)

    def masked(self, forget_class: int | str) -> CVAE:
        """Mask a class of the baseline, as `masked_model` does, or load the model; seconds if made.

        All layers but the decoder's last one know the class, and training the model further with
        other classes brings it back.

        Args:
            forget_class: The class, by number or name.

        Returns:
            The masked model.

        Raises:
            ValueError: There is no such class, or several are given.
        """
        gone = self.train.class_numbers(forget_class)
        if len(gone) != 1:
            raise ValueError(f"forget_class={shown(gone)}: a model masks one class, give one")
        (label,) = gone
        config = mask_config(self._mask_push(label), self.config.amnesia.seed)

        def recipe() -> Recipe:
            parents = {"baseline": self._baseline_digest}
            # objective and attacker are those of forgetting, and so is the version
            return self._recipe(f"vae_masked_{label}", amnesia.VERSION, (config,), parents)

        def make() -> TrainedCVAE:
            baseline = self.baseline.model
            model = masked_model(baseline, label, push=config.push, seed=config.seed)
            return TrainedCVAE(model, {})

        def link() -> CVAE:
            return self._from_baseline(recipe, make, TrainedCVAE).model.to(self.device)

        return self._once(("masked", label), link)

    def forgotten_recipe(self, forget_class: Classes) -> Recipe:
        """Say where the result of forgetting some classes is kept, and what it depends on.

        Baseline and Fishers are made for it, if they are not there yet.

        Args:
            forget_class: One class or several, by number or name.

        Returns:
            The recipe, whose `path` is the file.

        Raises:
            ValueError: There is no such class, or none would be left.
        """
        gone = self.train.class_numbers(forget_class)
        parents = {"baseline": self._baseline_digest, "Fisher": self._fisher_digest}
        configs = (self.config.fisher, self.config.amnesia)
        stem = f"vae_forget_{'-'.join(map(str, gone))}"
        return self._recipe(stem, amnesia.VERSION, configs, parents)

    @property
    def is_mnist(self) -> bool:
        """Whether the data are the default ones, all of MNIST."""
        return self._data == MNIST_DIGEST

    @property
    def _baseline_digest(self) -> str:
        model = self.baseline.model
        return self._unchanged("baseline.model", _digest_of_model(model))

    @property
    def _fisher_digest(self) -> str:
        return self._unchanged("fishers", digest(self.fishers.to_state()))

    @property
    def _data(self) -> dict[str, str]:
        data = {"train": self.train, "test": self.test}
        return {name: self._unchanged(name, images.digest) for name, images in data.items()}

    def _unchanged(self, name: str, found: str) -> str:
        """The digest of something, which must be the one that was found at first.

        name: What it is of, for the message.
        """
        if self._digests.setdefault(name, found) != found:
            raise ValueError(
                f"story.{name} was changed in place since this story first used it, and what is "
                "made of it would be kept under a wrong name: change a copy (copy.deepcopy) and "
                "begin another story with it, Story((train, test), baseline=model)"
            )
        return found

    def _check_unchanged(self) -> None:
        """ValueError if data, baseline or Fisher were changed in place; all bytes are read."""
        for name, images in {"train": self.train, "test": self.test}.items():
            self._unchanged(name, replace(images).digest)  # of a new object, which knows none
        if "baseline" in vars(self):
            self._baseline_digest  # noqa: B018
        if "fishers" in vars(self):
            self._fisher_digest  # noqa: B018

    @ordinary_torch()
    def _load_or_make(self, recipe: Recipe, make: Callable[[], S], kind: type[S]) -> S:
        """`load_or_make`, but nothing is made of what was changed in place."""

        def make_of_unchanged() -> S:
            self._check_unchanged()
            return make()

        return load_or_make(recipe, make_of_unchanged, kind)

    def _from_baseline(
        self, recipe: Callable[[], Recipe], make: Callable[[], S], kind: type[S]
    ) -> S:
        """What is kept of something made from the baseline, or else is made.

        No file can say that it was made from networks of your own: two of them may have the same
        weights and compute different things.
        """
        if not self.baseline.model.is_built_in:
            self._check_unchanged()
            return make()
        return self._load_or_make(recipe(), make, kind)

    def _recipe(
        self, stem: str, version: int, configs: tuple[Config, ...], parents: dict[str, str]
    ) -> Recipe:
        """The recipe of something that is made from the baseline.

        A baseline that was trained here is described by its configuration and data.  Of a model
        that was given nobody knows what it was made from, so that its digest stands for it.
        """
        if self._given is not None:
            data = {"train": self._data["train"], "model": self._baseline_digest}
            return Recipe(stem, version, configs, data, parents)
        configs = self.config.baseline, *configs
        return Recipe(stem, version, configs, self._data, parents, usual=self.is_mnist)

    def _mask_push(self, label: int) -> float:
        """How far a masked model is pushed, in nats: what was found for the digits of MNIST and the
        default baseline, whatever its seed, and as far as `masked_model` goes by itself for others.
        """
        recipe = replace(self.config.baseline, seed=BaselineConfig().seed)
        usual = self._given is None and self.is_mnist and recipe == BaselineConfig()
        return MNIST_PUSH[label] if usual else PUSH

    def _retrained(self, forget_class: Classes, seed: int | None) -> tuple[str, BaselineConfig]:
        """Stem and configuration of the model that is retrained without these classes."""
        gone = self.train.class_numbers(forget_class)
        if self._given is not None and not self._given.is_built_in:
            raise ValueError(
                "this story's networks are your own: train one without the class by "
                f"train_baseline(train, test, BaselineConfig(exclude={gone}), model=...)"
            )
        base = self.config.baseline
        never_seen = (*base.exclude, *gone)  # what the baseline did not see, this one does not
        config = replace(base, exclude=never_seen, seed=base.seed if seed is None else seed)
        return f"vae_without_{'-'.join(map(str, gone))}", config

    def _training_recipe(self, stem: str, config: BaselineConfig) -> Recipe:
        """The recipe of a model that is trained from nothing."""
        return Recipe(stem, training.VERSION, (config,), self._data, usual=self.is_mnist)

    def _trained(self, stem: str, config: BaselineConfig) -> TrainedCVAE:
        """What is kept, or else trained; an interrupted training goes on from its part file."""
        recipe = self._training_recipe(stem, config)

        def make() -> TrainedCVAE:
            return train_baseline(self.train, self.test, config, resume=part_path(recipe.path))

        trained = self._load_or_make(recipe, make, TrainedCVAE)
        trained.model.to(self.device)
        return trained

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What this story has made under the key already, or else is made now.

        Weights that somebody has changed in place are not handed out again: it is made anew.
        """
        if key in self._made:
            found, before = self._made[key]
            if _digest_of_weights(found) == before:
                made: T = found
                return made
        made = make()
        self._made[key] = made, _digest_of_weights(made)
        return made


def _digest_of_model(model: CVAE) -> str:
    """The digest of a model's weights, and of how it was built where that can be said."""
    return digest(model.to_state() if model.is_built_in else dict(model.state_dict()))


def _digest_of_weights(made: Any) -> str:
    """The digest of the weights of a model or a judge, or of a result that holds a model."""
    model = made if isinstance(made, nn.Module) else made.model
    return digest(dict(model.state_dict()))


def _check_single(train: LabelledImages, test: LabelledImages, baseline: CVAE | None) -> None:
    """ValueError if images or weights are no float32, in which a story makes all its models."""
    for name, data in {"train": train, "test": test}.items():
        if data.images.dtype != torch.float32:
            raise ValueError(
                f"images of {name} are of type {data.images.dtype}, not torch.float32: convert "
                "them, by images.float()"
            )
    if baseline is None:
        return
    for name, weights in baseline.named_parameters():
        if weights.dtype != torch.float32:
            raise ValueError(
                f"baseline has weights of type {weights.dtype} ({name}), not torch.float32: "
                "convert them, by baseline.float()"
            )


def _by_number(surrogate: str, train: LabelledImages) -> str:
    """The surrogate, with the number of a class in place of its name.

    Raises ValueError when there is no such class, and when it may be either of two.
    """
    _, _, text = surrogate.partition(":")
    name, names = composed(text), train.class_names
    if not text:
        return surrogate  # no class
    is_number = text in map(str, range(len(names)))
    if name in names:
        number = f"class:{names.index(name)}"
        if is_number and number != surrogate:  # read again, the number would be taken for a name
            raise ValueError(
                f"surrogate={shown(surrogate)}: {shown(text)} is the name of class "
                f"{names.index(name)} and the number of class {shown(names[int(text)])}: give the "
                "classes other names, or forget by a function (n, generator) -> images"
            )
        return number
    if not is_number:
        raise ValueError(
            f"surrogate={shown(surrogate)}: {shown(text)} is no class: give a number from 0 to "
            f"{len(names) - 1}, or a name: {shown(names)}"
        )
    return surrogate


def _images_of(dataset: str | Pair) -> Pair:
    """Train and test images of a name or of a pair."""
    if isinstance(dataset, str):
        return load_dataset(dataset, "train"), load_dataset(dataset, "test")
    if isinstance(dataset, LabelledImages):
        raise TypeError(
            "dataset is a single set of images: give two, to train on and to test with, such as "
            "Story(images.split())"
        )
    if not (isinstance(dataset, tuple | list) and len(dataset) == 2):
        raise TypeError(
            f"dataset is of type {type(dataset).__name__}: give a name such as 'mnist', or a pair "
            "(train, test) of LabelledImages, which images.split() makes; "
            "LabelledImages.from_folder(path) reads pictures"
        )
    train, test = dataset
    check_is(train, LabelledImages, "dataset[0]")
    check_is(test, LabelledImages, "dataset[1]")
    check_same_classes(train, test)
    return train, test
