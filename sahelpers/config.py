"""The knobs: frozen dataclasses that refuse a wrong value when they are made.

Every field carries its range and one line of help, so that validation, documentation and the
notebooks' sliders all read the same table.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .checks import check_whole, is_whole, shown

_ROOT = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (_ROOT / "notebooks").is_dir()  # else installed as a package, without the repository
_CACHE = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
CHECKOUT = _ROOT if IN_CHECKOUT else Path(_CACHE, "sahelpers")  # the home of what is made
ARCHITECTURES = ("mlp", "conv")
DATASETS = ("mnist", "fashion_mnist", "kmnist", "qmnist")
FORMS = ("decoder", "elbo")
FORGET_FORMS = (*FORMS, "l1")
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
    """A dataclass field with its allowed range (both ends included) or its allowed words.

    span: the part of a wide range that a slider covers.
    """
    meta = {"low": low, "high": high, "choices": choices, "span": span, "help": help}
    return field(default=default, metadata=meta)


class Config:
    """Base of the configurations: checks every field against its `knob`.

    Raises ValueError naming the field, the value and what is allowed.
    """

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value, meta = getattr(self, f.name), f.metadata
            wrong = f"{f.name}={shown(value)}"
            low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
            if choices is not None:
                if value not in choices:
                    raise ValueError(f"{wrong} is not one of {', '.join(choices)}")
            elif low is not None:
                whole = isinstance(f.default, int)
                kind = int if whole else (int, float)
                ok = isinstance(value, kind) and not isinstance(value, bool)
                if not (ok and low <= value <= high):  # NaN is in no range
                    noun = "a whole number" if whole else "a number"
                    raise ValueError(f"{wrong} must be {noun} from {low:g} to {high:g}")
                if not whole:
                    object.__setattr__(self, f.name, float(value))  # 30 is 30.0: one fingerprint
            elif isinstance(f.default, str) and not isinstance(value, str):
                raise ValueError(f"{wrong} must be text: {meta['help']}")


def user_folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else `default`.

    `~` is expanded, and a relative path counts from CHECKOUT: a kernel that works in notebooks/ and
    a shell elsewhere mean the same folder.
    """
    return CHECKOUT / os.path.expanduser(os.environ.get(variable) or default)


def fingerprint(*configs: Config) -> str:
    """Eight hexadecimal digits that change when any field of any of the configurations does."""
    parts = [{type(c).__name__: asdict(c)} for c in configs]  # type: ignore[call-overload]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def check_classes(
    forget_class: int | Iterable[int], num_classes: int = 10, *, allow_empty: bool = False
) -> tuple[int, ...]:
    """The class numbers as a sorted tuple without repeats.

    forget_class: one whole number or several, each from 0 to num_classes - 1.
    Raises ValueError naming the value when one is not a class, when there is none (unless
    allow_empty) or when none would be kept.
    """
    check_whole(num_classes, "num_classes")
    allowed = f"whole numbers from 0 to {num_classes - 1}"
    many = isinstance(forget_class, Iterable) and not isinstance(forget_class, str)
    found: list[Any] = [forget_class]
    if many and getattr(forget_class, "ndim", True):
        found = list(forget_class)  # type: ignore[arg-type]
    elif not is_whole(forget_class):
        allowed += ", or a tuple of them"
    for c in found:
        if not is_whole(c) or not 0 <= int(c) < num_classes:
            raise ValueError(f"class {shown(c)} is not a class: use {allowed}")
    result = tuple(sorted({int(c) for c in found}))
    if not result and not allow_empty:
        raise ValueError(f"no class given (got {forget_class!r}): name at least one, {allowed}")
    if len(result) == num_classes:
        raise ValueError(f"classes {result} are all there are: at least one must be kept")
    return result


def kept_classes(forget_class: int | Iterable[int], num_classes: int = 10) -> tuple[int, ...]:
    """All other classes, sorted.  Raises as `check_classes`, which no class to forget passes."""
    gone = check_classes(forget_class, num_classes, allow_empty=True)
    return tuple(c for c in range(num_classes) if c not in gone)


@dataclass(frozen=True)
class BaselineConfig(Config):
    """The conditional VAE and its training; `exclude` leaves classes out (a retrained control)."""

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
    """Training of a judge; the role is named beside it."""

    epochs: int = knob(4, 1, 1000, help="passes over the training images")
    batch_size: int = knob(128, 1, 60_000, help="images per step")
    lr: float = knob(3e-3, 1e-7, 1.0, help="peak learning rate of Adam")
    seed: int = knob(7, 0, 2**31 - 1, help="initial weights, order, shifts")


FISHER_SOURCES = ("data", "model_mean", "model_sample")
FISHER_ESTIMATORS = ("square", "product", "decoder")


@dataclass(frozen=True)
class FisherConfig(Config):
    """The diagonal Fisher estimate; the names are explained in `sahelpers.fisher`."""

    n_fisher_samples: int = knob(6000, 1, 10_000_000, help="images, spread evenly over the classes")
    source: str = knob("data", choices=FISHER_SOURCES, help="where the images come from")
    estimator: str = knob("square", choices=FISHER_ESTIMATORS, help="what is averaged")
    draws: int = knob(1, 1, 1000, help="draws of z per image")
    seed: int = knob(42, 0, 2**31 - 1, help="choice of images, noise")


@dataclass(frozen=True)
class AmnesiaConfig(Config):
    """The forgetting objective, term by term, and its budget.  Losses are in nats per image."""

    surrogate: str = knob("gray", help="gray, noise, blank, mixture or class:k")
    gray_value: float = knob(0.5, 0.0, 1.0, help="level of the gray surrogate")
    z_reach: float = knob(1.0, 1.0, 100.0, help="forget at z up to so many times as far out")
    y_reach: float = knob(1.0, 0.0, 1.0, help="forget at labels so far on the way to mixtures")
    forget_form: str = knob("decoder", choices=FORGET_FORMS, help="side that the forget term moves")
    replay_form: str = knob("decoder", choices=FORMS, help="which side the replay term trains")
    neg_loss_weight: float = knob(0.003, 0.0, 1e6, span=(0.001, 10), help="weight of forgetting")
    gamma: float = knob(1.0, 0.0, 1e6, span=(0.1, 100), help="weight of the replay term")
    ewc_lambda: float = knob(1500.0, 0.0, 1e12, span=(1, 1e8), help="weight of consolidation")
    w_attack: float = knob(0.2, 0.0, 1e6, span=(0.001, 10), help="weight of the loop's attacker")
    push: float = knob(40.0, 0.0, 1e4, help="nats by which the attacker's images shall cost more")
    w_contrast: float = knob(0.0, 0.0, 1e6, span=(1, 1000), help="distance of c_f to the surrogate")
    w_ink: float = knob(0.0, 0.0, 1e6, span=(1, 1000), help="distance in ink to the surrogate")
    w_tv: float = knob(0.0, 0.0, 1e6, span=(1, 1000), help="total variation of c_f's images")
    w_orient: float = knob(0.0, 0.0, 1e6, span=(1, 1000), help="c_f's orientation entropy")
    epochs_unl: int = knob(30, 1, 100_000, span=(1, 100), help="passes over the replay, at most")
    replay_samples: int = knob(10_000, 1, 1_000_000, help="images drawn for replay, a pass")
    batch_size: int = knob(128, 1, 60_000, help="images per step, for each of the two terms")
    lr_unl: float = knob(1e-2, 1e-7, 1.0, help="peak learning rate of Adam")
    tolerance: float = knob(0.04, 0.0, 1.0, help="begin to end this close to the surrogate")
    cooldown: int = knob(150, 0, 100_000, help="steps in which the rate falls to zero at the end")
    seed: int = knob(42, 0, 2**31 - 1, help="latents, labels, noise")

    def max_steps(self, real_images: int = 0) -> int:
        """Steps of the whole budget; so many real images are replayed beside the drawn ones."""
        return self.epochs_unl * -(-(self.replay_samples + real_images) // self.batch_size)

    @classmethod
    def cheaper(cls, **changes: Any) -> "AmnesiaConfig":
        """Without the attacker in the loop: the label forgets, and memory remains (RESULTS.md)."""
        return cls(**{"w_attack": 0.0, **changes})

    @classmethod
    def conv(cls, **changes: Any) -> "AmnesiaConfig":
        """For the convolutional network, whose controls pay half the nats: see docs/protocol.md."""
        weights = {"push": 30.0, "w_attack": 0.37, "neg_loss_weight": 0.02, "gamma": 3.0}
        return cls(**{**weights, "cooldown": 500, **changes})

    @classmethod
    def paper(cls, **changes: Any) -> "AmnesiaConfig":
        """The official recipe: noise, ELBO on both sides, 10,000 steps of 256 + 256 at 1e-4.

        To be used with the Fisher of all classes, from images that the model draws.
        """
        official: dict[str, Any] = {"surrogate": "noise", "forget_form": "elbo"}
        official |= {"replay_form": "elbo", "neg_loss_weight": 1.0, "ewc_lambda": 7812.5}
        official |= {"batch_size": 256, "replay_samples": 25_600, "epochs_unl": 100, "lr_unl": 1e-4}
        return cls(**{**official, **_FIXED_LENGTH, **changes})

    @classmethod
    def reference(cls, **changes: Any) -> "AmnesiaConfig":
        """The reference notebook's: gray by mean absolute difference, 30 passes at 5e-4.

        To be used with real_images, which are replayed beside 10,000 drawn ones.  Its weight of
        consolidation is kept as it is written, 500; with the notebook's own Fisher (of batch means)
        and divisions it acts like 0.6 here.
        """
        notebook: dict[str, Any] = {"forget_form": "l1", "replay_form": "elbo"}
        notebook |= {"neg_loss_weight": 5.0, "ewc_lambda": 500.0, "lr_unl": 5e-4}
        return cls(**{**notebook, **_FIXED_LENGTH, **changes})


# at the label itself and where samplers go, nobody attacks; no early stop, a constant rate
_FIXED_LENGTH = {"z_reach": 1.0, "y_reach": 0.0, "w_attack": 0.0, "tolerance": 0.0, "cooldown": 0}


@dataclass(frozen=True)
class ProbeConfig(Config):
    """The inversion probes; the defaults are the blind probe's, `prototype()` the other's."""

    n_restarts: int = knob(12, 1, 100_000, span=(1, 100), help="starts, optimised as one batch")
    steps: int = knob(2500, 1, 1_000_000, span=(10, 5000), help="steps of Adam")
    lr_z: float = knob(0.06, 1e-6, 10.0, help="learning rate of z")
    lr_y: float = knob(0.1, 0.0, 10.0, help="learning rate of the label logits")
    ink_target: float = knob(0.22, 0.0, 1.0, help="mean gray level asked for")
    w_contrast: float = knob(1.5, 0.0, 1e6, span=(0.01, 100), help="reward of contrast")
    w_ink: float = knob(4.0, 0.0, 1e6, span=(0.01, 100), help="weight of the ink target")
    w_tv: float = knob(0.04, 0.0, 1e6, span=(0.001, 10), help="weight of total variation")
    w_orient: float = knob(1.0, 0.0, 1e6, span=(0.01, 100), help="reward of many directions")
    w_z: float = knob(1e-3, 0.0, 1e6, span=(1e-4, 1), help="weight of mean z^2")
    w_y: float = knob(2e-3, 0.0, 1e6, span=(1e-4, 1), help="weight of the label's distance to c_f")
    alpha_tv: float = knob(0.02, 0.0, 1e6, span=(1e-3, 1), help="total variation, prototype")
    l2z: float = knob(1e-3, 0.0, 1e6, span=(1e-4, 1), help="mean z^2, prototype and guided")
    seed: int = knob(42, 0, 2**31 - 1, help="starting points")

    @classmethod
    def prototype(cls, **changes: Any) -> "ProbeConfig":
        """The prototype probe's preset: 6 restarts of 800 steps."""
        return cls(**{"n_restarts": 6, "steps": 800, **changes})
