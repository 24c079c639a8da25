"""One fitting loop, and what is fitted with it: the baseline, retrained models, the judges."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler

from .checks import check_finite, check_is, check_tensor
from .config import BaselineConfig, JudgeConfig, fingerprint
from .data import FEWEST, LabelledImages
from .elbo import dataset_negative_elbo, elbo_terms
from .judges import Judge
from .models import CVAE, check_model, draw_normal, ordinary_torch, seeded
from .progress import progress, report
from .store.archive import read_weights
from .store.files import PART_SUFFIX, CheckpointError, digest, load, save

History = dict[str, list[float]]

VERSION = 1  # of the recipes below; raised with anything that changes what they train
KINDS = ("weight", "bias")
# The official code's names of layers -> ours; its fc31 and fc32 are the halves of our encoder.4.
OFFICIAL = {
    "fc1": "encoder.0",
    "fc2": "encoder.2",
    "fc4": "decoder.0",
    "fc5": "decoder.2",
    "fc6": "decoder.4",
}


@dataclass(frozen=True)
class TrainedCVAE:
    """A trained model with its curves.

    Attributes:
        model: The model, in evaluation mode.
        history: Name of a curve -> one value for each pass over the images, in nats per image;
            empty for a model that was not trained here.
    """

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
    """Read the curves in a checkpoint.

    Args:
        state: The state, whose entry "history" has the curves.

    Returns:
        Name of a curve -> its values.

    Raises:
        KeyError: There is no such entry.
        AttributeError, TypeError, ValueError: The entry is something else.
    """
    return {str(name): [float(v) for v in curve] for name, curve in state["history"].items()}


class Resume:
    """What a training run knows between two passes over the images, kept in a part file.

    An interrupted run goes on from it and ends in the same bits.  A part file of another run, or a
    damaged one, is not used, and a warning says so; what goes wrong here ends no training.

    Args:
        path: The part file; None keeps nothing.  What is no part file of any run is left alone,
            and nothing is kept then.
        mark: What the run is, in words: its configuration and its data.
        generator: The run's source of randomness.
        **parts: What else has a state: the module, its optimizer, its schedule.
    """

    def __init__(
        self,
        path: Path | str | None,
        mark: str,
        generator: torch.Generator,
        **parts: nn.Module | torch.optim.Optimizer | lr_scheduler.LRScheduler,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.mark, self.generator, self.parts = mark, generator, parts

    def load(self) -> History:
        """Put back the state after the last complete pass.

        Returns:
            The curves so far; none if there is no part file of this run.
        """
        if self.path is None or not self.path.exists():
            return {}
        fresh = {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}
        found: Mapping[str, Any] = {}
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
            ours = "run" in found or self.path.name.endswith(PART_SUFFIX)
            also = "" if ours else "; the file stays as it is, and the run cannot be resumed"
            warnings.warn(f"Training starts afresh: {error}{also}", stacklevel=3)
            if not ours:
                self.path = None
            return {}
        return history

    def save(self, history: History) -> None:
        """Keep the state after a pass, with the curves so far."""
        if self.path is None:
            return
        state: dict[str, Any] = {name: dict(part.state_dict()) for name, part in self.parts.items()}
        state["generator"] = self.generator.get_state()
        state["history"] = history
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
    resume: Path | str | None = None,
    mark: str = "",
    anneal: bool = True,
) -> History:
    """Minimise a sum of losses over shuffled batches of data that are held in memory.

    The learning rate of Adam is warmed up over a tenth of the steps and annealed to zero (one
    cycle), which reaches a better bound in 20 passes than a constant rate in 40.

    Args:
        module: What is trained, in place; it ends in evaluation mode.
        loss_terms: A function (images, labels) -> name -> loss, whose sum is minimised.
        data: The images to train on, at least one.
        config: Number of passes, batch size and peak learning rate.
        generator: The source of the order of the images.
        what: What is trained, for the progress bar.
        after_epoch: Called after every pass; what it returns, name -> number, joins the curves.
            When left out it is `dict`, which returns nothing.
        resume: Part file of an interrupted run (see `Resume`); None keeps nothing.
        mark: What else the run depends on, in words; configuration and data are added to it.
        anneal: False for a constant rate.

    Returns:
        The mean of every loss over the steps of a pass, and what `after_epoch` measured: name ->
        one value for each pass.

    Raises:
        ValueError: There is no image.
    """
    if not len(data):
        raise ValueError("no image is left to train on: give some, of a class that is not excluded")
    device = next(module.parameters()).device
    images, labels = data.images.to(device), data.labels.to(device)
    batch_size = min(config.batch_size, len(data))
    steps = len(data) // batch_size
    optimizer = torch.optim.Adam(module.parameters(), lr=config.lr, fused=True)
    schedule: lr_scheduler.LRScheduler
    if anneal:
        all_steps = max(10, config.epochs * steps)  # the cycle needs a few to have two halves
        schedule = lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=config.lr,
            total_steps=all_steps,
            pct_start=max(0.1, 2 / all_steps),
        )
    else:
        schedule = lr_scheduler.ConstantLR(optimizer, 1.0)
    of_data = data.digest if resume else ""
    run = f"version {VERSION}, {fingerprint(config)}, {mark}, data {of_data}"
    kept = Resume(resume, run, generator, module=module, optimizer=optimizer, schedule=schedule)
    history = kept.load()
    done = len(next(iter(history.values()), []))
    if done:
        what = f"{what}, from pass {done + 1}"
    for passes, _ in enumerate(progress(range(done, config.epochs), what)):
        module.train()
        order = torch.randperm(len(data), generator=generator).to(device)
        sums: dict[str, Tensor] = {}
        for step, index in enumerate(order[: steps * batch_size].view(steps, batch_size)):
            report(what, (passes + step / steps) / (config.epochs - done))
            terms = loss_terms(images[index], labels[index])
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            schedule.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        module.eval()
        measured = {name: float(value) / steps for name, value in sums.items()}
        measured |= after_epoch()
        for name, number in measured.items():
            history.setdefault(name, []).append(number)
        kept.save(history)
    module.eval()  # where no pass was left to do, too
    optimizer.zero_grad()
    return history


@ordinary_torch()
def train_baseline(
    train: LabelledImages,
    test: LabelledImages,
    config: BaselineConfig | None = None,
    *,
    resume: Path | str | None = None,
    bf16: bool = False,
    model: CVAE | None = None,
) -> TrainedCVAE:
    """Train a conditional VAE, and fit the Gaussian of z for every class that it saw.

    Args:
        train: The images to train on; those of the classes in `config.exclude` are left out.
        test: Images whose negative ELBO is recorded after every pass and that are never trained
            on, at least one, of the same classes and shape.
        config: The network and its training; `BaselineConfig()` when left out.
        resume: Part file in which an interrupted run is kept, and from which it goes on to the same
            bits; None keeps nothing.
        bf16: Whether autocast may do the matrix products in bfloat16; weights, loss and Adam stay
            in float32.
        model: A model to be trained as it is, in place, such as a CVAE of your own networks, in
            place of a new one of `config.arch`.

    Returns:
        The model, and its curves `reconstruction`, `kl` and `held_out` (of test) with one value for
        each pass, in nats per image.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: There is no image to train on or to test with, train, test and model do not fit
            to each other, or the model cannot be trained: its weights are of another type than the
            images, hold no numbers, are all frozen, or were made under `inference_mode`.

    Sohn et al. (2015); the Gaussians are the ex-post density estimation of Ghosh et al. (2020).
    """
    check_is(train, LabelledImages, "train")
    check_is(test, LabelledImages, "test")
    check_is(config, (BaselineConfig, NoneType), "config")
    config = BaselineConfig() if config is None else config
    kept = train.without(config.exclude)
    check_tensor(test.images, ("B", *train.image_shape), "images of test", None, train.images.dtype)
    if not len(test) or test.class_names != train.class_names:
        raise ValueError(
            f"test has {len(test)} images of the classes {test.class_names}: give at least one, "
            f"of the classes of train, {train.class_names}"
        )
    given = model is not None
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = CVAE(config.arch, config.latent_dim, train.num_classes, train.image_shape)
    check_model(model, "model", train.num_classes)
    _check_trainable(model, train.images)
    new = model.to(train.images.device)
    generator = seeded(config.seed)

    def loss_terms(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        noise = draw_normal((len(images), new.latent_dim), new, generator)
        with torch.autocast(new.device.type, torch.bfloat16, enabled=bf16):
            reconstruction, kl = elbo_terms(new, images, labels, noise)
        return {"reconstruction": reconstruction.mean(), "kl": kl.mean()}

    def held_out() -> dict[str, float]:
        return {"held_out": float(dataset_negative_elbo(new, test).mean())}

    what = f"train {new.arch} VAE"
    if config.exclude:
        what += f" without {config.exclude}"
    mark = f"test {test.digest}"
    if bf16:
        mark += ", bf16"
    if given:  # another model of the same shapes must not go on from this one's part file
        mark += f", model {digest([repr(new), dict(new.state_dict())])}"
    history = fit(
        new,
        loss_terms,
        kept,
        config,
        generator,
        what,
        after_epoch=held_out,
        resume=resume,
        mark=mark,
    )
    fit_class_priors(new, kept, generator)
    return TrainedCVAE(new, history)


def _check_trainable(model: CVAE, images: Tensor) -> None:
    """Refuse a model that autograd or Adam would not take."""
    weights = list(model.parameters())
    if any(weight.is_meta for weight in weights):
        raise ValueError(
            "model is on the device meta, which holds no numbers: make it outside of "
            "torch.device('meta')"
        )
    if any(weight.is_inference() for weight in weights):
        raise ValueError(
            "model was made under torch.inference_mode(), and its weights cannot be trained: make "
            "it outside"
        )
    types = {weight.dtype for weight in weights} - {images.dtype}
    if types:
        raise ValueError(
            f"model has weights of {', '.join(map(str, types))} and the images are "
            f"{images.dtype}: call model.to({images.dtype})"
        )
    if not any(weight.requires_grad for weight in weights):
        raise ValueError(
            "no weight of the model may be trained: call model.requires_grad_(True), or unfreeze "
            "those that shall move"
        )


@torch.no_grad()
def fit_class_priors(model: CVAE, data: LabelledImages, generator: torch.Generator) -> None:
    """Fit the Gaussian of each class in the data to what its images are encoded to.

    One z is drawn for each image (the aggregate posterior; Ghosh et al. 2020).  A class with no
    more images than there are latent dimensions keeps N(0, I).

    Args:
        model: The model whose Gaussians are set.
        data: Images with their labels.
        generator: The source of the noise.
    """
    for label in data.labels.unique().tolist():
        part = data.only(label)
        mean, log_var = model.encode(part.images.to(model.device), part.labels.to(model.device))
        noise = draw_normal(tuple(mean.shape), model, generator)
        if len(part) > model.latent_dim:
            model.set_class_prior(label, mean + noise * (0.5 * log_var).exp())


def too_few_images(
    label: int,
    latent_dim: int,
    *,
    test: LabelledImages,
    train: LabelledImages | None = None,
) -> list[str]:
    """Say where a class has too few images to be trained on or to be judged.

    Args:
        label: The class number.
        latent_dim: Latent dimensions of the model: a class with no more training images than these
            gets no Gaussian of its own (see `fit_class_priors`).
        test: The images to test with.
        train: The images to train on; nothing is said of them when left out.

    Returns:
        A sentence for each thing that is missing, which says what would help; none if all is well.

    Raises:
        ValueError: There is no such class.
    """
    lacking = []
    if train is not None:
        n = len(train.only(label))
        if n <= latent_dim:
            lacking.append(
                f"Class {train.class_names[label]} has {n} training images, and a Gaussian of its "
                f"z takes more than latent_dim={latent_dim}: give more of them, or take a smaller "
                "latent_dim (BaselineConfig)."
            )
    n = len(test.only(label))
    if n < FEWEST:
        lacking.append(
            f"Class {test.class_names[label]} has {n} test images, and {FEWEST} are asked: give "
            "more, or a larger share of them to test (split)."
        )
    return lacking


@ordinary_torch()
def train_judge(
    train: LabelledImages,
    role: str,
    config: JudgeConfig | None = None,
    *,
    resume: Path | str | None = None,
) -> Judge:
    """Train the judge of a role on images that are shifted by up to a fourteenth of their side.

    What leaves an image on one side comes in again on the other; MNIST's have an empty border.  A
    judge that may answer "none of these" also sees a quarter as many images that show no class.

    Args:
        train: The images to train on, at least one.
        role: "open_set", "closed_set", "guide", "wary" or "tuning" (see `Judge`).
        config: Its training; `JudgeConfig()` when left out.
        resume: Part file in which an interrupted run is kept, and from which it goes on to the same
            bits; None keeps nothing.

    Returns:
        The judge, in evaluation mode.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: There is no such role, or no image to train on.
    """
    check_is(train, LabelledImages, "train")
    check_is(config, (JudgeConfig, NoneType), "config")
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

    what = f"train judge '{role}'"
    fit(judge, loss_terms, train, config, generator, what, resume=resume, mark=f"judge {role}")
    return judge


def none_of_these(images: Tensor, labels: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Make images that show no class out of a batch of images that do.

    In turn: uniform noise, smooth noise, flat gray (blank included) or colour, faint noise on such
    a ground, two images of different classes over each other, and one image with its 4 by 4 patches
    shuffled.

    Args:
        images: (B, C, H, W) float in [0, 1].
        labels: Class numbers (B,) int64.
        n: Number of images to make.
        generator: The source of randomness.

    Returns:
        (n, C, H, W) float in [0, 1].
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(images)

    def chosen() -> Tensor:
        return torch.randint(len(images), (n,), generator=generator).to(labels.device)

    noise = uniform(n, *images.shape[1:])
    level = uniform(n, images.shape[1], 1, 1)
    level = (1.2 * level - 0.1).clamp(0, 1)  # some exactly black, some exactly white
    flat = level.expand_as(noise)
    smooth = F.interpolate(noise[..., ::4, ::4], size=noise.shape[2:], mode="bilinear")
    faint = level + 0.1 * (noise - 0.5)
    first, second = chosen(), chosen()
    differ = (labels[first] != labels[second]).view(-1, 1, 1, 1)
    blend = torch.where(differ, torch.maximum(images[first], images[second]), noise)
    shuffled = _shuffled_patches(images[first], generator)
    kinds = torch.stack([noise, smooth, flat, faint, blend, shuffled])  # (6, n, C, H, W)
    places = torch.arange(n)
    return kinds[places % len(kinds), places].clamp(0, 1)  # the kinds take turns


def _shuffled_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images (N, C, H, W) with their 4 by 4 patches in another order, the same one for all.

    What is left over at the right and at the bottom, where a side is no multiple of 4, stays.
    """
    n, c = images.shape[:2]
    h, w = images.shape[2] // 4, images.shape[3] // 4  # of a patch
    inner = images[..., : 4 * h, : 4 * w]
    patches = inner.unfold(2, h, h).unfold(3, w, w).reshape(n, c, 16, h, w)
    patches = patches[:, :, torch.randperm(16, generator=generator).to(images.device)]
    rows = patches.view(n, c, 4, 4, h, w).transpose(3, 4)  # (N, C, row, y, column, x)
    shuffled = images.clone()
    shuffled[..., : 4 * h, : 4 * w] = rows.reshape(n, c, 4 * h, 4 * w)
    return shuffled


@ordinary_torch()
def from_official(state: Mapping[str, Tensor] | str | Path) -> CVAE:
    """Build the model that a state dict of the official code (Heng & Soh 2023) describes.

    The official network is made for MNIST: images have one channel of 28 x 28 pixels.

    Args:
        state: The state dict, or the path of a file that `torch.save` wrote of one: fc1
            (512, 784 + K), fc2 (256, 512), fc31 and fc32 (Z, 256), fc4 (256, Z + K), fc5
            (512, 256), fc6 (784, 512), each with `.weight` and `.bias`, in float.  K is the number
            of classes, Z that of latent dimensions.  Nothing in the file is executed.

    Returns:
        A model of arch "mlp" with copies of these weights, on the CPU, in evaluation mode.

    Raises:
        TypeError: If the state is no mapping of names to tensors.
        ValueError: If the file holds something else than a state dict, which the message names, or
            if a weight is missing, unknown, not finite or of another shape.
        OSError: If the file is missing or cannot be read.
    """
    if isinstance(state, (str, Path)):
        try:
            found = read_weights(state)
        except ValueError as error:
            raise ValueError(f"{state} is no state dict: {error}") from None
    else:
        found = state
    check_is(found, Mapping, "state")
    names = {f"{name}.{kind}" for name in (*OFFICIAL, "fc31", "fc32") for kind in KINDS}
    if names != found.keys():
        lacks = sorted(names - found.keys())
        odd = sorted(map(str, found.keys() - names))
        raise ValueError(f"the state dict lacks {lacks} and has {odd} besides: give the official's")
    for name in names:
        shape = ("out", "in") if name.endswith("weight") else ("out",)
        check_tensor(found[name], shape, name)
    latent_dim = len(found["fc31.bias"])
    num_classes = found["fc4.weight"].shape[1] - latent_dim
    with torch.random.fork_rng(devices=[]):  # the random weights are written over
        model = CVAE("mlp", latent_dim, num_classes)
    for name, ours in to_official(model).items():
        theirs = found[name].detach()
        if theirs.shape != ours.shape:
            transposed = ", which is transposed" if theirs.shape[::-1] == ours.shape else ""
            shapes = f"{tuple(theirs.shape)}{transposed}, not {tuple(ours.shape)}"
            raise ValueError(f"{name} has the shape {shapes}")
        ours.copy_(theirs)
    check_finite(model, "the official model")
    return model.eval()


def to_official(model: CVAE) -> dict[str, Tensor]:
    """Name the weights of a model as the official code (Heng & Soh 2023) does.

    Args:
        model: A model of arch "mlp".

    Returns:
        A state dict that `from_official` reads.  The tensors are not copied: they share their
        memory with the model.

    Raises:
        ValueError: The model is of another arch, for which there are no official names.
    """
    if model.arch != "mlp":
        raise ValueError(f"arch={model.arch!r} has no official layout: only 'mlp' has")
    state = model.state_dict()
    found: dict[str, Tensor] = {}
    for kind in KINDS:
        for theirs, ours in OFFICIAL.items():
            found[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
        mean, log_var = state[f"encoder.4.{kind}"].chunk(2)
        found[f"fc31.{kind}"] = mean
        found[f"fc32.{kind}"] = log_var
    return found
