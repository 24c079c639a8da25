"""The chain from data to a forgotten class: every link is loaded, or made and kept.

A `Story` holds the data, the configurations and what is made from them, so that a recipe and its
result cannot disagree.  The notebooks, the report, the dashboards, the study and the benchmarks all
get their models from one, so what one of them has made the others find.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch

from . import amnesia, fisher, training
from .amnesia import AmnesiaResult, forget
from .checks import check_is, door
from .config import AmnesiaConfig, BaselineConfig, Config, FisherConfig, JudgeConfig, check_classes
from .data import MNIST_DIGEST, LabelledImages, load_dataset
from .fisher import ClassFishers, class_fishers
from .judges import SCORING, Judge
from .models import CVAE, OWN, check_model, default_device
from .recovery import reset_label
from .store.files import Recipe, digest, load_or_make, part_path
from .training import TrainedCVAE, train_baseline, train_judge

Classes = int | Iterable[int]
T = TypeVar("T")


@dataclass(frozen=True)
class Configs:
    """The four configurations of a story."""

    baseline: BaselineConfig
    fisher: FisherConfig
    amnesia: AmnesiaConfig
    judge: JudgeConfig


class Story:
    """Data, configurations, and the models made from them, each when it is first asked for.

    dataset: the name of one of `load_dataset`'s, or a pair (train, test) of LabelledImages.
    baseline: its configuration, or a model that is there already: nothing is trained for it; it is
    moved to the device and set to evaluation mode.
    fisher, amnesia, judge: configurations; the default ones when left out.
    device: where data and models live; "auto" takes the best that is there.

    What takes time is kept in checkpoints/ under the name of all that it depends on: configuration,
    data and the model that was given.  The default data and configurations have plain names,
    `vae_baseline.pt`; others carry a fingerprint.  A file whose parent was replaced is made anew.
    """

    @door
    def __init__(
        self,
        dataset: str | tuple[LabelledImages, LabelledImages] = "mnist",
        *,
        baseline: BaselineConfig | CVAE | None = None,
        fisher: FisherConfig | None = None,
        amnesia: AmnesiaConfig | None = None,
        judge: JudgeConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = default_device() if device == "auto" else torch.device(device)
        self._given: CVAE | None = None
        if isinstance(baseline, CVAE):
            self._given = baseline.to(self.device).eval()
            known = "mlp" if baseline.arch == OWN else baseline.arch
            baseline = BaselineConfig(arch=known, latent_dim=baseline.latent_dim)
        self.config = Configs(
            baseline=baseline or BaselineConfig(),
            fisher=fisher or FisherConfig(),
            amnesia=amnesia or AmnesiaConfig(),
            judge=judge or JudgeConfig(),
        )
        self.dataset = dataset if isinstance(dataset, str) else None
        if isinstance(dataset, str):
            train, test = (load_dataset(dataset, split) for split in ("train", "test"))
        else:
            train, test = dataset
            check_is(train, LabelledImages, "dataset[0]")
            check_is(test, LabelledImages, "dataset[1]")
        self.train, self.test = train.to(self.device), test.to(self.device)
        check_classes(self.config.baseline.exclude, train.num_classes, allow_empty=True)
        if self._given is not None:
            check_model(self._given, "baseline", train.num_classes)
        for name, other in {"test": test, "baseline": self._given}.items():
            if other is not None and other.image_shape != train.image_shape:
                shapes = f"{other.image_shape}, those of train {train.image_shape}"
                raise ValueError(f"images of {name} have the shape {shapes}: give one shape")
        self._made: dict[tuple[Any, ...], Any] = {}

    @property
    def own(self) -> list[str]:
        """What was given in place of a name and a configuration: dataset, baseline."""
        given = {"dataset": self.dataset is None, "baseline": self._given is not None}
        return [name for name, true in given.items() if true]

    @classmethod
    def from_knobs(cls, **knobs: Any) -> "Story":
        """The story of a notebook's parameter cell: knobs in capitals, each written once.

        DATASET, DEVICE, and the fields of BaselineConfig, FisherConfig and AmnesiaConfig, such as
        LATENT_DIM or EWC_LAMBDA.  SEED is all three's; BATCH_SIZE is the baseline's.
        Raises TypeError for a capital that is none of them.
        """
        left = dict(knobs)
        shared = {"seed": left.pop("SEED")} if "SEED" in left else {}
        where = {name.lower(): left.pop(name) for name in ("DATASET", "DEVICE") if name in left}
        kinds = {"baseline": BaselineConfig, "fisher": FisherConfig, "amnesia": AmnesiaConfig}
        made: dict[str, Any] = {}
        allowed = ["DATASET", "DEVICE", "SEED"]
        for role, kind in kinds.items():
            names = {f.name.upper() for f in fields(kind) if f.name not in ("exclude", "seed")}
            names -= {"BATCH_SIZE"} if role == "amnesia" else set()
            allowed += sorted(names)
            own = {name.lower(): left.pop(name) for name in list(left) if name in names}
            made[role] = kind(**own, **shared)
        if left:
            raise TypeError(f"{', '.join(left)}: no such knob; there are {', '.join(allowed)}")
        return cls(**where, **made)

    @cached_property
    def baseline(self) -> TrainedCVAE:
        """The trained model and its curves; about a minute on two cores if it has to be made.

        An interrupted training goes on from its last pass, to the same bits.
        """
        if self._given is not None:
            return TrainedCVAE(self._given, {})
        return self._trained("vae_baseline", self.config.baseline)

    def control(self, forget_class: Classes, seed: int | None = None) -> TrainedCVAE:
        """A model retrained without these classes, by the baseline's recipe.

        seed: another than the baseline's.
        """
        stem, config = self._control(forget_class, seed)
        return self._once((stem, config), lambda: self._trained(stem, config))

    def keep_control(self, forget_class: Classes, trained: TrainedCVAE) -> TrainedCVAE:
        """Keep a model that was retrained elsewhere, by this story's recipe, as its control."""
        return load_or_make(self.control_recipe(forget_class), lambda: trained, TrainedCVAE)

    def control_recipe(self, forget_class: Classes) -> Recipe:
        """Where the control is kept."""
        return self._training_recipe(*self._control(forget_class, None))

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges that score, by role."""
        return {role: self.judge(role) for role in SCORING}

    @property
    def guide(self) -> Judge:
        """The judge that guides attacks and never scores."""
        return self.judge("guide")

    def judge(self, role: str) -> Judge:
        """The judge of a role; 20 to 40 seconds on two cores if it has to be made."""
        config, data = self.config.judge, {"train": self.train.digest}
        recipe = Recipe(f"judge_{role}", training.VERSION, (config,), data, usual=self._usual)
        part = part_path(recipe.path)
        return self._once(
            ("judge", role),
            lambda: load_or_make(
                recipe, lambda: train_judge(self.train, role, config, resume=part), Judge
            ).to(self.device),
        )

    @cached_property
    def fishers(self) -> ClassFishers:
        """One Fisher per class of the baseline; about a second if they have to be made."""
        model, config = self.baseline.model, self.config.fisher
        if model.arch == OWN:  # two networks may have the same weights
            return class_fishers(model, self.train, config)
        parents = {"baseline": self._baseline_digest}
        recipe = self._recipe("fisher", fisher.VERSION, (config,), parents)
        return load_or_make(recipe, lambda: class_fishers(model, self.train, config), ClassFishers)

    def forgotten(self, forget_class: Classes) -> AmnesiaResult:
        """The baseline after forgetting these classes; seconds if it has to be made."""
        gone, config = check_classes(forget_class, self.train.num_classes), self.config.amnesia

        def make() -> AmnesiaResult:
            return forget(self.baseline.model, self.fishers.without(gone), gone, config)

        def link() -> AmnesiaResult:
            if self.baseline.model.arch == OWN:
                return make()  # no file holds such networks
            result = load_or_make(self.forgotten_recipe(gone), make, AmnesiaResult)
            result.model.to(self.device)
            return result

        return self._once(("forgotten", gone), link)

    def hidden(self, forget_class: Classes) -> CVAE:
        """The baseline with these classes' label weights replaced by the mean of the others': all
        that it knew is still behind them."""
        gone = check_classes(forget_class, self.train.num_classes)
        return self._once(("hidden", gone), lambda: reset_label(self.baseline.model, gone))

    def forgotten_recipe(self, forget_class: Classes) -> Recipe:
        """Where the result of forgetting is kept."""
        gone = check_classes(forget_class, self.train.num_classes)
        parents = {"baseline": self._baseline_digest, "Fisher": self._fisher_digest}
        configs = (self.config.fisher, self.config.amnesia)
        stem = f"vae_forget_{'-'.join(map(str, gone))}"
        return self._recipe(stem, amnesia.VERSION, configs, parents)

    @property
    def _usual(self) -> bool:
        """Whether the data are the default ones."""
        return self._data == MNIST_DIGEST

    @cached_property
    def _baseline_digest(self) -> str:
        return digest(self.baseline.model.to_state())

    @cached_property
    def _fisher_digest(self) -> str:
        return digest(self.fishers.to_state())

    @property
    def _data(self) -> dict[str, str]:
        return {"train": self.train.digest, "test": self.test.digest}

    def _recipe(
        self, stem: str, version: int, configs: tuple[Config, ...], parents: dict[str, str]
    ) -> Recipe:
        """Of what is made from the baseline.  Of a model that was given, only its digest is known;
        what else went into it is not."""
        if self._given is not None:
            data = {"train": self.train.digest, "model": self._baseline_digest}
            return Recipe(stem, version, configs, data, parents)
        configs = self.config.baseline, *configs
        return Recipe(stem, version, configs, self._data, parents, usual=self._usual)

    def _control(self, forget_class: Classes, seed: int | None) -> tuple[str, BaselineConfig]:
        gone = check_classes(forget_class, self.train.num_classes)
        if self._given is not None and self._given.arch == OWN:
            raise ValueError(
                "this story's networks are your own: train a control of them by "
                f"train_baseline(train, test, BaselineConfig(exclude={gone}), model=...)"
            )
        base = self.config.baseline
        config = replace(base, exclude=gone, seed=base.seed if seed is None else seed)
        return f"vae_without_{'-'.join(map(str, gone))}", config

    def _training_recipe(self, stem: str, config: BaselineConfig) -> Recipe:
        return Recipe(stem, training.VERSION, (config,), self._data, usual=self._usual)

    def _trained(self, stem: str, config: BaselineConfig) -> TrainedCVAE:
        """What is kept, or else trained; an interrupted training goes on from its part file."""
        recipe = self._training_recipe(stem, config)
        part = part_path(recipe.path)
        found = load_or_make(
            recipe, lambda: train_baseline(self.train, self.test, config, resume=part), TrainedCVAE
        )
        found.model.to(self.device)
        return found

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made
