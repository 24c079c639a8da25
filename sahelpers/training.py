"""One fitting loop, and what is fitted with it: the baseline, the retrained control, the judges."""

import copy
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler

from .checks import check_finite, check_images, check_is, check_tensor, door
from .config import BaselineConfig, JudgeConfig, fingerprint
from .data import LabelledImages
from .elbo import elbo_terms, measure_elbo
from .judges import Judge
from .models import CVAE, check_model, draw_normal, seeded
from .progress import progress
from .store.files import CheckpointError, load, save

History = dict[str, list[float]]

VERSION = 1  # of the recipes below; raised with anything that changes what they train
KINDS = ("weight", "bias")
OFFICIAL = {"fc1": "encoder.0", "fc2": "encoder.2"}  # fc31 and fc32 are the halves of encoder.4
OFFICIAL |= {"fc4": "decoder.0", "fc5": "decoder.2", "fc6": "decoder.4"}


@dataclass(frozen=True)
class TrainedCVAE:
    """A trained model with its curves: one value per epoch, nats per image."""

    model: CVAE
    history: History

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"model": self.model.to_state(), "history": self.history}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TrainedCVAE":
        """The inverse of `to_state`."""
        return cls(CVAE.from_state(state["model"]), read_history(state))


def read_history(state: Mapping[str, Any]) -> History:
    """The curves in a checkpoint; raises what wrong ones bring about."""
    return {str(name): [float(v) for v in curve] for name, curve in state["history"].items()}


class Resume:
    """All that a training run knows between two passes, kept in a part file, from which an
    interrupted one goes on to the same bits.

    path: None keeps nothing.  mark: what the run is, in words: configuration, data.  A part file of
    another run, or a damaged one, is not used, with a warning: nothing here ends a training.
    """

    def __init__(
        self,
        path: Path | None,
        mark: str,
        generator: torch.Generator,
        **parts: nn.Module | torch.optim.Optimizer | lr_scheduler.LRScheduler,
    ) -> None:
        self.path, self.mark, self.generator, self.parts = path, mark, generator, parts

    def load(self) -> History:
        """Put back the state of the last complete pass; returns the curves so far, or none."""
        if self.path is None or not self.path.exists():
            return {}
        fresh = {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}
        try:
            state, found = load(self.path)
            if found != {"run": self.mark}:
                raise CheckpointError(f"{self.path} was left by another run")
            history = read_history(state)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.generator.set_state(state["generator"])
        except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            for name, part in self.parts.items():
                part.load_state_dict(fresh[name])
            warnings.warn(f"Training starts afresh: {error}", stacklevel=3)
            return {}
        return history

    def save(self, history: History) -> None:
        """Keep the state after a pass."""
        if self.path is None:
            return
        state: dict[str, Any] = {k: dict(part.state_dict()) for k, part in self.parts.items()}
        state |= {"generator": self.generator.get_state(), "history": history}
        try:
            save(self.path, state, {"run": self.mark}, durable=False)
        except CheckpointError as error:
            warnings.warn(f"Training goes on, but could not be resumed: {error}", stacklevel=3)
            self.path = None


def fit(
    module: nn.Module,
    loss_terms: Callable[[Tensor, Tensor], dict[str, Tensor]],
    data: LabelledImages,
    config: BaselineConfig | JudgeConfig,
    generator: torch.Generator,
    what: str,
    *,
    after_epoch: Callable[[], dict[str, float]] = dict,
    resume: Path | None = None,
    mark: str = "",
    anneal: bool = True,
) -> History:
    """Minimise the sum of loss_terms(images, labels) over shuffled batches of data held in memory.

    config: passes, batch size and peak rate of Adam, which is warmed up over a tenth of the steps
    and annealed to zero (one cycle); this reaches a better bound in 20 passes than a constant rate
    in 40.  anneal: False for such a rate.  Ends in evaluation mode.
    Returns the mean of every term per epoch, and what after_epoch measured.
    resume, mark: for `Resume`; configuration and data are added to the mark.
    """
    if not len(data):
        raise ValueError("no image is left to train on: give some, of a class that is not excluded")
    device = next(module.parameters()).device
    images, labels = data.images.to(device), data.labels.to(device)
    batch_size = min(config.batch_size, len(data))
    steps = len(data) // batch_size
    optimizer = torch.optim.Adam(module.parameters(), lr=config.lr, fused=True)
    total = max(10, config.epochs * steps)  # the cycle needs a few steps to have two halves
    warm = max(0.1, 2 / total)
    cycle = partial(lr_scheduler.OneCycleLR, max_lr=config.lr, total_steps=total, pct_start=warm)
    schedule = cycle(optimizer) if anneal else lr_scheduler.ConstantLR(optimizer, 1.0)
    run = f"version {VERSION}, {fingerprint(config)}, {mark}, data {data.digest if resume else ''}"
    kept = Resume(resume, run, generator, module=module, optimizer=optimizer, schedule=schedule)
    history = kept.load()
    done = len(next(iter(history.values()), []))
    what += f", from pass {done + 1}" * bool(done)
    for _ in progress(range(done, config.epochs), what):
        module.train()
        order = torch.randperm(len(data), generator=generator).to(device)
        sums: dict[str, Tensor] = {}
        for index in order[: steps * batch_size].view(steps, batch_size):
            terms = loss_terms(images[index], labels[index])
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            schedule.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        module.eval()
        measured = {name: float(total) / steps for name, total in sums.items()} | after_epoch()
        for name, number in measured.items():
            history.setdefault(name, []).append(number)
        kept.save(history)
    optimizer.zero_grad()
    return history


@door
def train_baseline(
    train: LabelledImages,
    test: LabelledImages,
    config: BaselineConfig | None = None,
    *,
    resume: Path | None = None,
    bf16: bool = False,
    model: CVAE | None = None,
) -> TrainedCVAE:
    """Train a conditional VAE, without the classes in `config.exclude`, and fit the Gaussian of z
    for every class it saw.

    test: images whose negative ELBO is recorded after every epoch; never trained on.
    resume: file of an interrupted run, as in `fit`.
    bf16: let autocast do the matrix products in bfloat16; weights, loss and Adam stay in float32.
    model: one to be trained as it is, such as a CVAE of your own networks, in place of a new one.
    The history has `reconstruction`, `kl` and `held_out` (of test), in nats per image.
    """
    config = BaselineConfig() if config is None else config
    kept = train.without(config.exclude)
    check_images(test.images, "images of test", shape=train.image_shape)
    if not len(test) or test.class_names != train.class_names:
        raise ValueError(
            f"test has {len(test)} images of the classes {test.class_names}: give at least one, "
            f"of the classes of train, {train.class_names}"
        )
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = CVAE(config.arch, config.latent_dim, train.num_classes, train.image_shape)
    new = model.to(train.images.device)
    check_model(new, "model", train.num_classes)
    generator = seeded(config.seed)

    def loss_terms(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        noise = draw_normal((len(images), new.latent_dim), new, generator)
        with torch.autocast(new.device.type, torch.bfloat16, enabled=bf16):
            reconstruction, kl = elbo_terms(new, images, labels, noise)
        return {"reconstruction": reconstruction.mean(), "kl": kl.mean()}

    left_out = f" without {config.exclude}" if config.exclude else ""
    minutes = " (about 2 minutes on two cores)" if config == BaselineConfig() else ""
    history = fit(
        new,
        loss_terms,
        kept,
        config,
        generator,
        f"train {new.arch} VAE{left_out}{minutes}",
        after_epoch=lambda: {"held_out": float(measure_elbo(new, test).mean())},
        resume=resume,
        mark=f"test {test.digest}" + ", bf16" * bf16,
    )
    fit_class_priors(new, kept, generator)
    return TrainedCVAE(new, history)


@torch.no_grad()
def fit_class_priors(model: CVAE, data: LabelledImages, generator: torch.Generator) -> None:
    """Fit the sampler of each class in data to its aggregate posterior, one draw of z per image."""
    for label in data.labels.unique().tolist():
        part = data.only(label)
        mean, log_var = model.encode(part.images.to(model.device), part.labels.to(model.device))
        noise = draw_normal(tuple(mean.shape), model, generator)
        if len(part) > model.latent_dim:
            model.set_class_prior(label, mean + noise * (0.5 * log_var).exp())


@door
def train_judge(
    train: LabelledImages,
    role: str,
    config: JudgeConfig | None = None,
    *,
    resume: Path | None = None,
) -> Judge:
    """Train the judge of a role on images shifted by up to a fourteenth of their side; one with a
    "none of these" answer also sees a quarter as many images that are no digit.
    resume: file of an interrupted run, as in `fit`.
    """
    config = JudgeConfig() if config is None else config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        judge = Judge(role, train.num_classes, train.image_shape).to(train.images.device)
    judge = judge.to(memory_format=torch.channels_last)
    generator = seeded(config.seed)
    reach = max(1, min(train.image_shape[1:]) // 14)  # pixels: two of MNIST's 28

    def loss_terms(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        images = images.roll((down, right), (2, 3))
        if judge.has_none:
            junk = none_of_these(images, labels, len(images) // 4, generator)
            images = torch.cat([images, junk])
            labels = torch.cat([labels, labels.new_full((len(junk),), judge.num_classes)])
        return {"loss": F.cross_entropy(judge(images), labels)}

    what = f"train judge '{role}' (about 40 seconds on two cores)"
    fit(judge, loss_terms, train, config, generator, what, resume=resume, mark=f"judge {role}")
    return judge


def none_of_these(images: Tensor, labels: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n images that show no class, made from a batch: (n, C, H, W) in [0, 1].

    In turn: uniform noise, smooth noise, flat gray (blank included) or colour, faint noise on it,
    two images of different classes over each other, one with its 4 by 4 patches shuffled.
    """
    c, h, w = images.shape[1], images.shape[2] // 4, images.shape[3] // 4  # of a patch
    draw = torch.rand((n, *images.shape[1:]), generator=generator).to(images)
    level = torch.rand((n, c, 1, 1), generator=generator).to(images)
    level = (1.2 * level - 0.1).clamp(0, 1)  # some exactly black, some exactly white
    smooth = F.interpolate(draw[..., ::4, ::4], size=draw.shape[2:], mode="bilinear")
    first = torch.randint(len(images), (n,), generator=generator).to(labels.device)
    second = torch.randint(len(images), (n,), generator=generator).to(labels.device)
    differ = (labels[first] != labels[second]).view(-1, 1, 1, 1)
    blend = torch.where(differ, torch.maximum(images[first], images[second]), draw)
    mixed = images[first]
    patches = mixed[..., : 4 * h, : 4 * w].unfold(2, h, h).unfold(3, w, w).reshape(n, c, 16, h, w)
    patches = patches[:, :, torch.randperm(16, generator=generator).to(labels.device)]
    patches = patches.view(n, c, 4, 4, h, w).transpose(3, 4).reshape(n, c, 4 * h, 4 * w)
    mixed[..., : 4 * h, : 4 * w] = patches
    faint = level + 0.1 * (draw - 0.5)
    kinds = torch.stack([draw, smooth, level.expand_as(draw), faint, blend, mixed])
    return kinds[torch.arange(n) % len(kinds), torch.arange(n)].clamp(0, 1)


def from_official(state: Mapping[str, Tensor] | str | Path) -> CVAE:
    """The model in a state dict of the official code (Heng & Soh 2023), or in a file of one: fc1
    (512, 784 + K), fc2 (256, 512), fc31 and fc32 (Z, 256), fc4 (256, Z + K), fc5 (512, 256), fc6
    (784, 512), each `.weight` and `.bias`.  Nothing but tensors is read from a file.

    Raises ValueError naming what is missing, unknown, not finite or of another shape.
    """
    try:
        found = torch.load(state, "cpu") if isinstance(state, (str, Path)) else state
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{state} is no state dict: {error}") from None
    check_is(found, Mapping, "state")
    names = {f"{name}.{kind}" for name in (*OFFICIAL, "fc31", "fc32") for kind in KINDS}
    if names != found.keys():
        lacks, odd = sorted(names - found.keys()), sorted(map(str, found.keys() - names))
        raise ValueError(f"the state dict lacks {lacks} and has {odd} besides: give the official's")
    for name in names:
        check_tensor(found[name], ("out", "in") if name.endswith("weight") else ("out",), name)
    latent_dim = len(found["fc31.bias"])
    model = CVAE("mlp", latent_dim, found["fc4.weight"].shape[1] - latent_dim)
    for name, ours in to_official(model).items():
        if found[name].shape != ours.shape:
            turned = ", which is transposed" * (found[name].shape[::-1] == ours.shape)
            shapes = f"{tuple(found[name].shape)}{turned}, not {tuple(ours.shape)}"
            raise ValueError(f"{name} has the shape {shapes}")
        ours.copy_(found[name])
    check_finite(model, "the official model")
    return model.eval()


def to_official(model: CVAE) -> dict[str, Tensor]:
    """The inverse of `from_official` for a model of arch "mlp"; the tensors are the model's own."""
    if model.arch != "mlp":
        raise ValueError(f"arch={model.arch!r} has no official layout: only 'mlp' has")
    state, found = model.state_dict(), dict[str, Tensor]()
    for kind in KINDS:
        found |= {f"{name}.{kind}": state[f"{ours}.{kind}"] for name, ours in OFFICIAL.items()}
        found[f"fc31.{kind}"], found[f"fc32.{kind}"] = state[f"encoder.4.{kind}"].chunk(2)
    return found
