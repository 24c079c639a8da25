"""The knobs: frozen dataclasses that refuse a wrong value when they are made.

Every field carries its range and one line of help, so that validation, documentation and the
notebooks' sliders all read the same table.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .checks import check_number, check_whole, composed, is_whole, shown

_ROOT = Path(__file__).resolve().parents[1]
# Else installed as a package, without the repository, and perhaps beside another's notebooks/.
IN_CHECKOUT = all((_ROOT / part).exists() for part in ("pyproject.toml", "notebooks", "study"))
_CACHE = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
# The folder that data and checkpoints lie in: the clone, or a cache where there is none.
CHECKOUT = _ROOT if IN_CHECKOUT else Path(_CACHE, "sahelpers")
ARCHITECTURES = ("mlp", "conv")
DATASETS = ("mnist", "fashion_mnist", "kmnist", "qmnist")
FORMS = ("decoder", "elbo")  # of the losses of images; `objective._loss` has the formulas
FORGET_FORMS = (*FORMS, "l1")
SURROGATES = ("gray", "noise", "blank", "mixture")  # and "class:k"
MAX_CLASSES = 1000


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: tuple[str, ...] | None = None,
    span: tuple[float, float] | None = None,
    help: str = "",
) -> Any:
    """Make a field of a configuration, which knows its range and its help.

    Args:
        default: The default value; its type is the field's.
        low: The smallest number that is allowed; None for no range.
        high: The largest number that is allowed.
        choices: The words that are allowed, in place of a range.
        span: The part of a wide range that a slider covers, both ends included.
        help: What the field is for, in a few words.

    Returns:
        A field of a dataclass.
    """
    meta = {"low": low, "high": high, "choices": choices, "span": span, "help": help}
    return field(default=default, metadata=meta)


class Config:
    """Base of the configurations: when one is made, every field is checked against its `knob`.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value, meta = getattr(self, f.name), f.metadata
            wrong = f"{f.name}={shown(value)}"
            low, choices = meta.get("low"), meta.get("choices")
            if isinstance(value, str):  # NumPy's text becomes Python's
                object.__setattr__(self, f.name, str(value))
            if choices is not None:
                if value not in choices:
                    raise ValueError(f"{wrong} is not one of {', '.join(choices)}")
            elif low is not None:
                # NumPy's numbers become Python's and 30 becomes 30.0, for one fingerprint
                checked: float
                if isinstance(f.default, int):
                    checked = check_whole(value, f.name, low, meta["high"])
                else:
                    check_number(value, f.name, low, meta["high"])
                    checked = float(value)
                object.__setattr__(self, f.name, checked)
            elif isinstance(f.default, str) and not isinstance(value, str):
                raise ValueError(f"{wrong} must be text: {meta['help']}")


def user_folder(variable: str, default: str) -> Path:
    """Find the folder that an environment variable names.

    `~` is expanded, and a relative path counts from CHECKOUT, so that a kernel that works in
    notebooks/ and a shell elsewhere mean the same folder.

    Args:
        variable: The name of the environment variable.
        default: The folder when it is not set, relative to CHECKOUT.

    Returns:
        The folder, whether or not it is there.
    """
    return CHECKOUT / os.path.expanduser(os.environ.get(variable) or default)


def fingerprint(*configs: Config) -> str:
    """Name some configurations by a few digits, which change as soon as one field does.

    Args:
        *configs: The configurations, in this order.

    Returns:
        Eight hexadecimal digits.
    """
    parts = [{type(c).__name__: asdict(c)} for c in configs]  # type: ignore[call-overload]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def check_classes(
    forget_class: int | str | Iterable[int | str],
    num_classes: int = 10,
    *,
    names: Sequence[str] = (),
    allow_empty: bool = False,
) -> tuple[int, ...]:
    """Sort class numbers and leave out repeats, after a look at each.

    Args:
        forget_class: One whole number or several, each from 0 to num_classes - 1, or names.
        num_classes: Number of classes.
        names: What the classes are called, in the order of their numbers.  When left out, only
            numbers are classes; `LabelledImages.class_numbers` gives the names of its data.
        allow_empty: Whether there may be none.

    Returns:
        The class numbers as a sorted tuple without repeats.

    Raises:
        ValueError: One is not a class, there is none although one is needed, or no class would be
            kept; the message names the value.
    """
    check_whole(num_classes, "num_classes")
    allowed = f"whole numbers from 0 to {num_classes - 1}"
    numbers = {composed(name): number for number, name in enumerate(names)}
    is_text = isinstance(forget_class, str | bytes | bytearray)
    is_scalar = getattr(forget_class, "ndim", None) == 0  # an array or tensor of one number
    found: list[Any] = [forget_class]
    if isinstance(forget_class, Iterable) and not is_text and not is_scalar:
        found = list(forget_class)
    elif not is_whole(forget_class):
        allowed += ", or a tuple of them"
    found = [numbers.get(composed(c), c) if isinstance(c, str) else c for c in found]
    for c in found:
        if not is_whole(c) or not 0 <= int(c) < num_classes:
            if names:
                allowed += f", or names: {shown(tuple(names))}"
            elif isinstance(c, str):  # a name, where only data know the names
                allowed = f"the number that data.class_numbers(...) gives, {allowed}"
            raise ValueError(f"class {shown(c)} is not a class: use {allowed}")
    result = tuple(sorted({int(c) for c in found}))
    if not result and not allow_empty:
        raise ValueError(f"no class given (got {forget_class!r}): name at least one, {allowed}")
    if len(result) == num_classes:
        raise ValueError(f"classes {result} are all there are: at least one must be kept")
    return result


def kept_classes(forget_class: int | Iterable[int], num_classes: int = 10) -> tuple[int, ...]:
    """List all other classes.

    Args:
        forget_class: One class number or several; an empty tuple leaves all classes.
        num_classes: Number of classes.

    Returns:
        The numbers of the other classes as a sorted tuple.

    Raises:
        ValueError: One is not a class, or no class would be kept.
    """
    gone = check_classes(forget_class, num_classes, allow_empty=True)
    return tuple(c for c in range(num_classes) if c not in gone)


@dataclass(frozen=True)
class BaselineConfig(Config):
    """The conditional VAE and its training.

    In the source every field has its range and a few words of help; docs/knobs.md explains them.
    `exclude` leaves classes out, as a retrained model needs it.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    arch: str = knob("mlp", choices=ARCHITECTURES, help="network type")
    latent_dim: int = knob(20, 1, 512, help="dimensions of z")
    epochs: int = knob(20, 1, 10_000, help="passes over the training images")
    batch_size: int = knob(128, 1, 60_000, help="images per step")
    lr: float = knob(2e-3, 1e-7, 1.0, help="peak learning rate of Adam")
    seed: int = knob(42, 0, 2**31 - 1, help="initial weights, order of the images, noise")
    exclude: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checked = check_classes(self.exclude, MAX_CLASSES, allow_empty=True)
        object.__setattr__(self, "exclude", checked)


@dataclass(frozen=True)
class JudgeConfig(Config):
    """The training of a judge, whatever its role, which is an argument of `train_judge`.

    In the source every field has its range and a few words of help.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    epochs: int = knob(4, 1, 1000, help="passes over the training images")
    batch_size: int = knob(128, 1, 60_000, help="images per step")
    lr: float = knob(3e-3, 1e-7, 1.0, help="peak learning rate of Adam")
    seed: int = knob(7, 0, 2**31 - 1, help="initial weights, order, shifts")


FISHER_SOURCES = ("data", "model_mean", "model_sample")
FISHER_ESTIMATORS = ("square", "product", "decoder")


@dataclass(frozen=True)
class FisherConfig(Config):
    """The estimate of the diagonal Fisher; `diagonal_fisher` explains source and estimator.

    In the source every field has its range and a few words of help; docs/knobs.md explains them.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    n_fisher_samples: int = knob(6000, 1, 10_000_000, help="images, spread evenly over the classes")
    source: str = knob("data", choices=FISHER_SOURCES, help="where the images come from")
    estimator: str = knob("square", choices=FISHER_ESTIMATORS, help="what is averaged")
    draws: int = knob(1, 1, 1000, help="draws of z per image")
    seed: int = knob(42, 0, 2**31 - 1, help="choice of images, noise")


# What two recipes of others have in common: they forget only at the label itself and at latents
# that a sampler draws, without an attacker, for a fixed number of steps at a constant rate.
_FIXED_LENGTH: dict[str, Any] = {
    "z_reach": 1.0,
    "y_reach": 0.0,
    "gamma": 1.0,
    "w_attack": 0.0,
    "push": 40.0,  # without an attacker this and the next four change nothing
    "z_fits": 0,
    "kept_budget": 0.0,
    "heal_every": 0,
    "heal_batch": 0,
    "forget_batch": 0,
    "tolerance": 0.0,
    "cooldown": 0,
}


@dataclass(frozen=True)
class AmnesiaConfig(Config):
    """The objective of forgetting, term by term, and how many steps it takes.

    Losses are in nats per image.  In the source every field has its range and a few words of help;
    docs/knobs.md explains them, and `sahelpers.objective` has the formula.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    surrogate: str = knob("gray", help="gray, noise, blank, mixture or class:k")
    gray_value: float = knob(0.5, 0.0, 1.0, help="level of the gray surrogate")
    z_reach: float = knob(1.0, 1.0, 100.0, help="forget at z up to so many times as far out")
    y_reach: float = knob(1.0, 0.0, 1.0, help="forget at labels so far on the way to mixtures")
    forget_form: str = knob("decoder", choices=FORGET_FORMS, help="side that the forget term moves")
    replay_form: str = knob("decoder", choices=FORMS, help="which side the replay term trains")
    neg_loss_weight: float = knob(0.006, 0.0, 1e6, span=(0.001, 10), help="weight of forgetting")
    gamma: float = knob(2.0, 0.0, 1e6, span=(0.1, 100), help="weight of the replay term")
    ewc_lambda: float = knob(150.0, 0.0, 1e12, span=(1, 1e8), help="weight of consolidation")
    w_attack: float = knob(
        0.12, 0.0, 1e6, span=(0.001, 10), help="weight of the loop's attacker, at most"
    )
    kept_budget: float = knob(
        0.9, 0.0, 1e4, span=(0.1, 10), help="nats that kept images may pay: the weight follows"
    )
    push: float = knob(70.0, 0.0, 1e4, help="nats by which the attacker's images shall cost more")
    z_fits: int = knob(8, 0, 16, help="of the attacker's 16 fits, those that keep their label")
    heal_every: int = knob(60, 0, 100_000, help="steps between copies of the shadow; 0 for none")
    heal_rate: float = knob(8e-3, 1e-7, 1.0, help="learning rate of the shadow's training")
    heal_batch: int = knob(
        64, 0, 60_000, help="of a step's kept images, those that train it; 0 for all"
    )
    w_contrast: float = knob(
        0.0, 0.0, 1e6, span=(1, 1000), help="pulls the forgotten class's pixels to the surrogate"
    )
    w_ink: float = knob(
        0.0, 0.0, 1e6, span=(1, 1000), help="makes the forgotten class as bright as the surrogate"
    )
    w_tv: float = knob(
        0.0, 0.0, 1e6, span=(1, 1000), help="smooths the images drawn of the forgotten class"
    )
    w_orient: float = knob(
        0.0, 0.0, 1e6, span=(1, 1000), help="keeps strokes of the forgotten class in few directions"
    )
    epochs_unl: int = knob(10, 1, 100_000, span=(1, 100), help="passes over the replay, at most")
    replay_samples: int = knob(60_000, 1, 1_000_000, help="images drawn for replay, a pass")
    batch_size: int = knob(256, 1, 60_000, help="kept images per step")
    forget_batch: int = knob(
        32, 0, 60_000, help="images to forget per step; 0 for as many as are kept"
    )
    lr_unl: float = knob(1e-2, 1e-7, 1.0, help="peak learning rate of Adam")
    tolerance: float = knob(0.04, 0.0, 1.0, help="begin to end this close to the surrogate")
    cooldown: int = knob(1500, 0, 100_000, help="steps in which the rate falls to zero at the end")
    seed: int = knob(42, 0, 2**31 - 1, help="latents, labels, noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, _, name = self.surrogate.partition(":")
        if self.surrogate not in SURROGATES and not (kind == "class" and name):
            allowed = f"{', '.join(SURROGATES)} or class:k, where k is a class that is kept"
            raise ValueError(f"surrogate={shown(self.surrogate)} is not one of {allowed}")

    def max_steps(self, real_images: int = 0) -> int:
        """Count the steps of the whole budget.

        Args:
            real_images: Number of real images that are replayed beside the drawn ones.

        Returns:
            The number of passes times the steps of a pass.
        """
        steps = -(-(self.replay_samples + real_images) // self.batch_size)  # rounded up
        return self.epochs_unl * steps

    @classmethod
    def for_values(cls, values: int, **changes: Any) -> "AmnesiaConfig":
        """Make the default for images of another size than MNIST's.

        An image with fewer values has fewer nats to give, so that `push` and `kept_budget` are
        taken in proportion.

        Args:
            values: Numbers in an image, such as 3 * 32 * 32; MNIST's have 784.
            **changes: Fields with other values.

        Returns:
            The configuration.

        Raises:
            ValueError: values is no whole number from 1 on.
        """
        usual, share = cls(), check_whole(values, "values", 1) / 784
        scaled = {"push": usual.push * share, "kept_budget": usual.kept_budget * share}
        return cls(**{**scaled, **changes})

    @classmethod
    def with_kept_images(
        cls, images: int = 54_000, values: int = 784, **changes: Any
    ) -> "AmnesiaConfig":
        """Make the default for whoever still has the real images of the kept classes.

        `forget` takes it where `real_images` are given and no configuration is.  It is of no use
        without them: a story, which forgets with drawn images, would take 48 steps by it.  They are
        replayed in the place of drawn ones (beside 1,000 of those).  By their negative ELBO the
        encoder moves along with the decoder, and the attacker has a fixed weight.  It is for tens
        of thousands of images: fewer are learned by heart, and other images of the kept classes pay
        for it.  A baseline that was trained for long at a low rate is disturbed by the rate of
        5e-3: `lr_unl=2e-3` suits it better.  The convolutional network needs a heavier attacker:
        `w_attack=0.25, z_fits=4` (docs/record.md has figures of all three).

        Args:
            images: How many real images are replayed.  It was chosen with the 54,000 of MNIST's
                kept classes; with fewer there are more passes, for as many steps.
            values: Numbers in an image, as for `for_values`.
            **changes: Fields with other values.

        Returns:
            The configuration.

        Raises:
            ValueError: images or values is no whole number from 1 on.
        """
        passes, steps = 12, 2580
        images = check_whole(images, "images", 1)
        chosen: dict[str, Any] = {
            "replay_form": "elbo",
            "neg_loss_weight": 0.02,
            "w_attack": 0.05,
            "kept_budget": 0.0,
            "epochs_unl": passes,
            "replay_samples": 1000,
            "lr_unl": 5e-3,
            "cooldown": 700,
        }
        config = cls.for_values(values, **{**chosen, **changes})
        if "epochs_unl" in changes:
            return config
        a_pass = -(-(images + config.replay_samples) // config.batch_size)  # rounded up
        return replace(config, epochs_unl=max(passes, -(-steps // a_pass)))

    @classmethod
    def version4(cls, **changes: Any) -> "AmnesiaConfig":
        """Make version 4 of the default, whose attacker has a fixed weight.

        Memory of some digits remains, and some kept digits pay more than they should (RESULTS.md).
        Like `version3` it keeps its values.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        chosen: dict[str, Any] = {
            "gamma": 2.0,
            "ewc_lambda": 150.0,
            "w_attack": 0.06,
            "push": 70.0,
            "z_fits": 8,
            "heal_every": 60,
            "heal_rate": 8e-3,
            "cooldown": 450,
        }
        return cls.version3(**{**chosen, **changes})

    @classmethod
    def version3(cls, **changes: Any) -> "AmnesiaConfig":
        """Make version 3 of the default, whose attacker meets the model as it is.

        What it suppresses comes back when the model is trained further (RESULTS.md).  It keeps its
        values, whatever becomes of the default, so that later work can be compared with it.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        chosen: dict[str, Any] = {
            "surrogate": "gray",
            "gray_value": 0.5,
            "z_reach": 1.0,
            "y_reach": 1.0,
            "forget_form": "decoder",
            "replay_form": "decoder",
            "neg_loss_weight": 0.003,
            "gamma": 1.0,
            "ewc_lambda": 1500.0,
            "w_attack": 0.2,
            "kept_budget": 0.0,
            "push": 40.0,
            "z_fits": 0,
            "heal_every": 0,
            "heal_batch": 0,
            "w_contrast": 0.0,
            "w_ink": 0.0,
            "w_tv": 0.0,
            "w_orient": 0.0,
            "epochs_unl": 30,
            "replay_samples": 10_000,
            "batch_size": 128,
            "forget_batch": 0,
            "lr_unl": 1e-2,
            "tolerance": 0.04,
            "cooldown": 150,
        }
        return cls(**{**chosen, **changes})

    @classmethod
    def cheaper(cls, **changes: Any) -> "AmnesiaConfig":
        """Make version 3 of the default without its attacker in the loop, which is cheaper.

        The class is no longer drawn under its label, but attacks still find memory of it
        (RESULTS.md).

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        return cls.version3(**{"w_attack": 0.0, **changes})

    @classmethod
    def conv(cls, **changes: Any) -> "AmnesiaConfig":
        """Make the configuration for the convolutional network.

        results/archive/protocol_3.md says how it was chosen.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        chosen: dict[str, Any] = {
            "push": 30.0,
            "w_attack": 0.37,
            "neg_loss_weight": 0.02,
            "gamma": 3.0,
            "cooldown": 500,
        }
        return cls.version3(**{**chosen, **changes})

    @classmethod
    def paper(cls, **changes: Any) -> "AmnesiaConfig":
        """Make the recipe of the official code (Heng & Soh 2023).

        The surrogate is noise, both terms have the ELBO form, and there are 10,000 steps of
        256 + 256 images at a learning rate of 1e-4.  It is to be used with the Fisher of all
        classes, from images that the model draws.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        official: dict[str, Any] = {
            "surrogate": "noise",
            "forget_form": "elbo",
            "replay_form": "elbo",
            "neg_loss_weight": 1.0,
            "ewc_lambda": 7812.5,
            "batch_size": 256,
            "replay_samples": 25_600,
            "epochs_unl": 100,
            "lr_unl": 1e-4,
        }
        return cls(**{**official, **_FIXED_LENGTH, **changes})

    @classmethod
    def reference(cls, **changes: Any) -> "AmnesiaConfig":
        """Make the recipe of the reference notebook.

        The class is pulled to gray by the mean absolute difference, in 30 passes at a learning rate
        of 5e-4.  It is to be used with `real_images`, which are replayed beside 10,000 drawn ones.
        The weight of consolidation is kept as it is written there, 500; with the notebook's own
        Fisher (of batch means) and divisions it acts like 0.6 here.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        notebook: dict[str, Any] = {
            "forget_form": "l1",
            "replay_form": "elbo",
            "neg_loss_weight": 5.0,
            "ewc_lambda": 500.0,
            "batch_size": 128,
            "replay_samples": 10_000,
            "epochs_unl": 30,
            "lr_unl": 5e-4,
        }
        return cls(**{**notebook, **_FIXED_LENGTH, **changes})


@dataclass(frozen=True)
class ProbeConfig(Config):
    """The searches of the inversion probes and of the guided attack.

    The defaults are the blind probe's; `prototype()` makes those of the prototype probe.  In the
    source every field has its range and a few words of help; docs/knobs.md explains them.

    Raises:
        ValueError: A value is not allowed; the message names the field, the value and what is.
    """

    n_restarts: int = knob(12, 1, 100_000, span=(1, 100), help="starts, optimised as one batch")
    steps: int = knob(2500, 1, 1_000_000, span=(10, 5000), help="steps of Adam")
    lr_z: float = knob(0.06, 1e-6, 10.0, help="learning rate of z")
    lr_y: float = knob(0.1, 0.0, 10.0, help="learning rate of the label logits")
    ink_target: float = knob(0.22, 0.0, 1.0, help="mean gray level asked for")
    w_contrast: float = knob(1.5, 0.0, 1e6, span=(0.01, 100), help="reward of pixels far from gray")
    w_ink: float = knob(4.0, 0.0, 1e6, span=(0.01, 100), help="weight of the ink target")
    w_tv: float = knob(
        0.04, 0.0, 1e6, span=(0.001, 10), help="blind probe: weight of total variation"
    )
    w_orient: float = knob(1.0, 0.0, 1e6, span=(0.01, 100), help="reward of edges at all angles")
    w_z: float = knob(1e-3, 0.0, 1e6, span=(1e-4, 1), help="blind probe: weight of mean z^2")
    w_y: float = knob(2e-3, 0.0, 1e6, span=(1e-4, 1), help="keeps the label near the class's own")
    alpha_tv: float = knob(
        0.02, 0.0, 1e6, span=(1e-3, 1), help="prototype probe: weight of total variation"
    )
    l2z: float = knob(1e-3, 0.0, 1e6, span=(1e-4, 1), help="prototype probe: weight of mean z^2")
    seed: int = knob(42, 0, 2**31 - 1, help="starting points")

    @classmethod
    def prototype(cls, **changes: Any) -> "ProbeConfig":
        """Make the configuration of the prototype probe: 6 restarts of 800 steps.

        Args:
            **changes: Fields with other values.

        Returns:
            The configuration.
        """
        return cls(**{"n_restarts": 6, "steps": 800, **changes})
