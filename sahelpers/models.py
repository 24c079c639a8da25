"""The conditional VAE: it encodes images, decodes latents under a label, and draws samples."""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    IMAGE_SHAPE,
    Shape,
    check_finite,
    check_is,
    check_labels,
    check_same_length,
    check_shape,
    check_tensor,
    check_values,
    check_whole,
)
from .config import ARCHITECTURES, MAX_CLASSES, check_classes, kept_classes
from .networks import (
    ConditionalSequential,
    check_label_weights,
    check_network,
    convolutional_networks,
    linear_networks,
)
from .store.archive import Saved

PRIORS = ("class", "standard")
Rng = torch.Generator | None  # None: torch's global one
OWN = "own"  # architecture of a model of the caller's networks
NOISY = (-4.0, 5.0)  # gray levels that noise on an image may reach; farther out something is wrong


class CVAE(Saved):
    """Conditional VAE with a Bernoulli decoder (Sohn et al. 2015).

    The label goes into the encoder and into the decoder, as one-hot for class numbers or as any
    vector of class weights (a soft label).  The latent z has the prior N(0, I).  `sample` draws the
    z of a class from N(0, I) or from a Gaussian that was fitted to the encoded training images of
    the class (ex-post density estimation, Ghosh et al. 2020), which avoids the holes between
    encoded images.

    Networks of your own take the place of the built-in ones.  `encoder(images, y)` returns mean
    and log-variance side by side, (B, 2 Z), and `decoder(z, y)` returns logits, (B, C, H, W) or
    flat; y are label vectors (B, K).  If both have a method `label_weights() -> (weight, first)`,
    a label can be reset and attacked: `weight` is the parameter through which the label enters
    that network, and label c enters at its input `first + c` along the second axis.  What the
    method says is tried out when the model is made.

    Args:
        arch: "mlp" or "conv", the built-in networks.
        latent_dim: Number of latent dimensions Z, from 1 to 512.
        num_classes: Number of classes K, from 2 to 1000.
        image_shape: (C, H, W): one or three channels, 8 to 64 pixels a side.  "conv" takes
            multiples of 4 pixels.
        encoder: A network of your own in the place of the built-in one; give both or none.
        decoder: A network of your own in the place of the built-in one.

    Attributes:
        arch: As given, or "own" for networks of your own.
        prior_mean: Mean of each class's Gaussian, (K, Z) float; 0 where none was fitted.
        prior_scale: Its scale, (K, Z, Z) float: the lower triangular Cholesky factor of the
            covariance; the identity where none was fitted.

    Raises:
        TypeError: One of your networks is no module, or is missing.
        ValueError: A number is out of its range, two examples come out of one of your networks in
            another shape, or its `label_weights` does not say where the label enters.
    """

    built_with = ("arch", "latent_dim", "num_classes", "image_shape")
    hint: ClassVar[str] = " (a training's result has it as `.model`)"
    prior_mean: Tensor  # (K, Z)
    prior_scale: Tensor  # (K, Z, Z), lower triangular

    def __init__(
        self,
        arch: str = "mlp",
        latent_dim: int = 20,
        num_classes: int = 10,
        image_shape: Shape = IMAGE_SHAPE,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        """Make the model; built-in networks get random weights from torch's global generator."""
        super().__init__()
        if arch not in ARCHITECTURES:
            hint = ": give encoder= and decoder= instead" if arch == OWN else ""
            raise ValueError(f"arch={arch!r} is not one of {', '.join(ARCHITECTURES)}{hint}")
        latent_dim = check_whole(latent_dim, "latent_dim", 1, 512)
        num_classes = check_whole(num_classes, "num_classes", 2, MAX_CLASSES)
        image_shape = check_shape(image_shape)
        if arch == "conv" and (image_shape[1] % 4 or image_shape[2] % 4):
            raise ValueError(f"image_shape={image_shape}: arch='conv' takes multiples of 4 pixels")
        self.arch, self.latent_dim, self.num_classes = arch, latent_dim, num_classes
        self.image_shape = image_shape
        self.encoder: Any = encoder
        self.decoder: Any = decoder
        if encoder is None and decoder is None:
            build = linear_networks if arch == "mlp" else convolutional_networks
            self.encoder, self.decoder = build(latent_dim, num_classes, image_shape)
        else:
            self.arch = OWN
            flat = (2, math.prod(image_shape))
            check_network(encoder, "encoder", image_shape, num_classes, [(2, 2 * latent_dim)])
            check_network(decoder, "decoder", (latent_dim,), num_classes, [(2, *image_shape), flat])
        self.register_buffer("prior_mean", torch.zeros(num_classes, latent_dim))
        self.register_buffer("prior_scale", torch.eye(latent_dim).repeat(num_classes, 1, 1))

    @property
    def is_built_in(self) -> bool:
        """Whether the networks are the built-in ones: only those can be kept in a file."""
        return self.arch != OWN

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.prior_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights: float32 unless the model was converted."""
        return self.prior_mean.dtype

    def label_vectors(self, labels: Tensor) -> Tensor:
        """Turn labels into label vectors.

        Args:
            labels: Class numbers (B,) int64, or soft labels (B, K) float.

        Returns:
            (B, K) in the model's type, on its device: one-hot for class numbers; soft labels are
            returned as they are.

        Raises:
            TypeError: labels is no tensor.
            ValueError: A class number is out of range (on an accelerator this is not looked at), or
                shape, type or device is another one.
        """
        check_is(labels, Tensor, "labels")
        if labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool:
            try:
                return F.one_hot(labels.long(), self.num_classes).to(self.device, self.dtype)
            except RuntimeError:
                check_labels(labels, self.num_classes)  # says what is wrong
                raise
        if labels.ndim == 2 and labels.shape[1] == self.num_classes and labels.is_floating_point():
            check_tensor(labels, ("B", self.num_classes), "labels", self.device, self.dtype)
            return labels
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype}: give class numbers "
            f"(B,) int64 or label vectors (B, {self.num_classes}) float"
        )

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images under their labels.

        Args:
            images: (B, *image_shape) float in [0, 1].
            labels: Class numbers (B,) int64, or label vectors (B, K) float.

        Returns:
            Mean and log-variance of the Gaussian q(z | x, y), each (B, Z).

        Raises:
            TypeError: An argument is no tensor.
            ValueError: A shape, a type, a device or a class number is wrong.
        """
        y = self._labels_of(images, self.image_shape, "images", labels)
        mean, log_var = self.encoder(images, y).chunk(2, dim=1)
        return mean, log_var

    def decode_logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """Decode latents under labels.

        Args:
            z: Latents (B, Z) float.
            labels: Class numbers (B,) int64, or label vectors (B, K) float.

        Returns:
            Logits of the pixels' Bernoulli probabilities, (B, *image_shape).

        Raises:
            TypeError: An argument is no tensor.
            ValueError: A shape, a type, a device or a class number is wrong.
        """
        y = self._labels_of(z, (self.latent_dim,), "z", labels)
        out: Tensor = self.decoder(z, y)
        return out.view(-1, *self.image_shape)

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Decode latents under labels into the images that are shown.

        Args:
            z: Latents (B, Z) float.
            labels: Class numbers (B,) int64, or label vectors (B, K) float.

        Returns:
            Pixel probabilities p(x | z, y), (B, *image_shape) in [0, 1].

        Raises:
            TypeError: An argument is no tensor.
            ValueError: A shape, a type, a device or a class number is wrong.
        """
        return self.decode_logits(z, labels).sigmoid()

    @property
    def says_label(self) -> bool:
        """Whether both networks say where the label enters, so that these weights can be attacked.

        The built-in networks do, and your own if they have a method `label_weights`.
        """
        return all(hasattr(half, "label_weights") for half in (self.encoder, self.decoder))

    def label_weights(self) -> tuple[tuple[nn.Parameter, int], ...]:
        """Say where the label enters the networks.

        Returns:
            For the encoder and for the decoder the weight that reads the label, (out, inputs, ...),
            and the index of the first of its K label inputs along the second axis.

        Raises:
            ValueError: One of your own networks has no method `label_weights`, or the label does
                not enter where it says.
        """
        if not self.says_label:
            raise ValueError("encoder or decoder has no method label_weights() -> (weight, first)")
        halves = {
            "encoder": (self.encoder, self.image_shape),
            "decoder": (self.decoder, (self.latent_dim,)),
        }
        for name, (half, shape) in halves.items():
            if not isinstance(half, ConditionalSequential):  # it may have changed since it was made
                check_label_weights(half, name, shape, self.num_classes)
        return tuple(half.label_weights() for half in (self.encoder, self.decoder))

    def decoder_layers(self) -> list[nn.Module]:
        """Find the decoder's layers with weights of their own, in the order in which they run.

        Networks of your own may be registered in another order.

        Returns:
            The layers, each where it runs first; those that do not run are left out.
        """
        ran: list[nn.Module] = []

        def note(layer: nn.Module, *_: object) -> None:
            if layer not in ran:
                ran.append(layer)

        own = [m for m in self.decoder.modules() if any(True for _ in m.parameters(recurse=False))]
        hooks = [layer.register_forward_hook(note) for layer in own]
        try:
            with torch.no_grad(), evaluating(self):
                z = torch.zeros(1, self.latent_dim, dtype=self.dtype, device=self.device)
                self.decode_logits(z, torch.zeros(1, dtype=torch.int64, device=self.device))
        finally:
            for hook in hooks:
                hook.remove()
        return ran

    def label_columns(self) -> Tensor:
        """Give the numbers by which each label enters the decoder.

        An attacker may put any other numbers in their place (`decode_columns`).

        Returns:
            For built-in networks the weights that the decoder's first layer reads each label
            through, (K, H); for networks of your own the label vectors themselves, (K, K).
        """
        if isinstance(self.decoder, ConditionalSequential):
            return self.decoder.label_columns()
        return torch.eye(self.num_classes).to(self.prior_mean)

    def decode_columns(self, z: Tensor, columns: Tensor) -> Tensor:
        """Decode latents with any numbers in the place of a label's.

        Args:
            z: Latents (B, Z) float.
            columns: One for each latent, like the rows of `label_columns`: (B, H), or (B, K) for
                networks of your own.

        Returns:
            Logits of the pixels' Bernoulli probabilities, (B, *image_shape).
        """
        if not isinstance(self.decoder, ConditionalSequential):
            return self.decode_logits(z, columns)
        return self.decoder.forward_columns(z, columns).view(-1, *self.image_shape)

    def draw_latents(self, labels: Tensor, prior: str = "class", generator: Rng = None) -> Tensor:
        """Draw a latent for each of some labels.

        Args:
            labels: Class numbers (B,) int64; for prior="standard" label vectors will do as well.
            prior: "class" draws from the Gaussian of the label's class, "standard" from N(0, I).
            generator: The source of randomness, such as `seeded(0)`; torch's global one when left
                out.

        Returns:
            Latents (B, Z) in the model's type, on its device.

        Raises:
            TypeError: An argument is of another kind.
            ValueError: There is no such prior, or a class number is out of range.
        """
        check_is(labels, Tensor, "labels")
        if prior not in PRIORS:
            raise ValueError(f"prior={prior!r} is not one of {', '.join(PRIORS)}")
        if generator is not None:
            check_is(generator, torch.Generator, "generator", ": seeded(0) makes one")
        noise = draw_normal((len(labels), self.latent_dim), self, generator)
        if prior == "standard":
            return noise
        y = labels.to(self.device)
        try:
            mean, scale = self.prior_mean.index_select(0, y), self.prior_scale.index_select(0, y)
        except (IndexError, RuntimeError):
            check_labels(labels, self.num_classes)  # says what is wrong
            raise
        return mean + (scale @ noise[:, :, None]).squeeze(2)

    @torch.no_grad()
    def sample(self, labels: Tensor, prior: str = "class", generator: Rng = None) -> Tensor:
        """Draw an image for each of some labels, in evaluation mode.

        Args:
            labels: Class numbers (B,) int64; for prior="standard" also label vectors (B, K) float.
            prior: "class" draws z from the Gaussian of the label's class, "standard" from N(0, I).
            generator: The source of randomness, such as `seeded(0)`; torch's global one when left
                out.

        Returns:
            Images (B, *image_shape) in [0, 1].

        Raises:
            TypeError: An argument is of another kind.
            ValueError: There is no such prior, or a label is out of range or of another shape.
        """
        with evaluating(self):
            return self.decode(self.draw_latents(labels, prior, generator), labels)

    @torch.no_grad()
    def set_class_prior(self, label: int, latents: Tensor | None = None) -> None:
        """Fit the Gaussian of one class to latents, or erase it.

        Args:
            label: The class number.
            latents: (N, Z) float, more than Z of them; None puts N(0, I) in the Gaussian's place.

        Raises:
            ValueError: There is no such class, or the latents are too few, hold NaN, or do not
                spread in every dimension.
        """
        (label,) = check_classes((label,), self.num_classes)
        mean, cov = torch.zeros(self.latent_dim), torch.eye(self.latent_dim)
        if latents is not None:
            check_tensor(latents, ("N", self.latent_dim), "latents", self.device)
            if len(latents) <= self.latent_dim:
                raise ValueError(f"{len(latents)} latents are too few for {self.latent_dim} dims")
            mean, cov = latents.mean(0), torch.cov(latents.T)
        scale, failed = torch.linalg.cholesky_ex(cov.cpu().double())
        if failed or not scale.isfinite().all():
            raise ValueError("latents do not spread in every dimension, or hold NaN: give others")
        self.prior_mean[label], self.prior_scale[label] = mean, scale.to(self.dtype)

    def _labels_of(
        self, values: Tensor, shape: tuple[int, ...], name: str, labels: Tensor
    ) -> Tensor:
        """The label vectors of values (B, *shape), after a look at both."""
        check_tensor(values, ("B", *shape), name, self.device, self.dtype)
        vectors = self.label_vectors(labels)
        check_same_length(values, vectors, name)
        return vectors


@torch.no_grad()
def interpolate_labels(model: CVAE, z: Tensor, first: int, last: int, steps: int = 9) -> Tensor:
    """Decode latents while the label goes from one class to another in a straight line.

    The labels are (1 - t) onehot(first) + t onehot(last) with t from 0 to 1.

    Args:
        model: The model.
        z: Latents (B, Z) float, which stay as they are.
        first: Class number at the start.
        last: Class number at the end.
        steps: Number of labels, both ends included; 2 or more.

    Returns:
        Images (steps, B, *image_shape) in [0, 1].

    Raises:
        TypeError: An argument is of another kind.
        ValueError: There is no such class, steps is below 2, or z has another shape.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    steps = check_whole(steps, "steps", 2)  # both ends
    ends = model.label_vectors(torch.tensor([first, last]))
    labels = [ends[0].lerp(ends[1], t) for t in torch.linspace(0, 1, steps).to(ends)]
    with evaluating(model):
        return torch.stack([model.decode(z, y.expand(len(z), -1)) for y in labels])


@torch.no_grad()
def reconstruct(model: CVAE, images: Tensor) -> Tensor:
    """Send every image through encoder (its mean) and decoder, under every label.

    Args:
        model: The model.
        images: (B, *image_shape) float.  They may be noisy, with gray levels from -4 to 5, as for
            `denoise_tv`.

    Returns:
        Images (B, K, *image_shape) in [0, 1], along the second axis one for each label.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: images have another shape or range.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    check_tensor(images, ("B", *model.image_shape), "images", model.device, model.dtype)
    check_values(images, "images", *NOISY, ": gray levels and some noise")
    every = torch.eye(model.num_classes).to(model.device, model.dtype)
    labels = [y.expand(len(images), -1) for y in every]
    with evaluating(model):
        return torch.stack([model.decode(model.encode(images, y)[0], y) for y in labels], dim=1)


@torch.no_grad()
def reset_label(model: CVAE, forget_class: int | Iterable[int]) -> CVAE:
    """Copy a model and give the labels of some classes the mean weights of the other labels.

    This hides a class without any training, which makes it the cheapest method to compare with.
    On a model that has forgotten, it undoes what forgetting did to the label itself, which makes it
    the first step of an attack.

    Args:
        model: The model, which is not changed.
        forget_class: One class number or several, whose label weights are replaced.

    Returns:
        The changed copy.

    Raises:
        TypeError: model is no CVAE.
        ValueError: There is no such class, none would be kept, or networks of your own do not say
            where the label enters.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    gone = check_classes(forget_class, model.num_classes)
    model = copy.deepcopy(model)
    kept = kept_classes(gone, model.num_classes)
    for weight, first in model.label_weights():
        labels = weight[:, first : first + model.num_classes]
        labels[:, gone] = labels[:, kept].mean(1, keepdim=True)
    return model


def check_model(model: object, name: str = "model", num_classes: int | None = None) -> None:
    """Refuse what longer work cannot begin with.

    Every weight is read, so this stands at the entry of work that takes seconds; quick functions
    look at the type only.

    Args:
        model: What was given as the model.
        name: Its name, for the message.
        num_classes: Number of classes that it must have; any when left out.

    Raises:
        TypeError: It is no CVAE.
        ValueError: It has another number of classes, or a weight is NaN or infinite.
    """
    check_is(model, CVAE, name, CVAE.hint)
    assert isinstance(model, CVAE)
    if num_classes is not None and model.num_classes != num_classes:
        raise ValueError(f"{name} has {model.num_classes} classes, not {num_classes} as the others")
    check_finite(model, name)


def draw_normal(shape: tuple[int, ...], model: CVAE, generator: Rng = None) -> Tensor:
    """Draw standard normal noise for a model.

    It is drawn on the CPU, so that a seed means the same noise on every device.

    Args:
        shape: The shape of the noise.
        model: The model, whose type and device the noise gets.
        generator: The source of randomness; torch's global one when left out.

    Returns:
        The noise, of this shape.
    """
    noise = torch.randn(shape, generator=generator, dtype=model.dtype, device="cpu")
    return noise.to(model.device)


def seeded(seed: int) -> torch.Generator:
    """Make a source of random numbers, for all functions that take a `generator`.

    Args:
        seed: A whole number, 0 or more.

    Returns:
        A generator of torch's on the CPU, with this seed.

    Raises:
        ValueError: seed is no such number.
    """
    return torch.Generator().manual_seed(check_whole(seed, "seed", 0, 2**63 - 1))


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Keep models in evaluation mode inside, and give each module its own mode back afterwards.

    In training mode dropout would make what is measured random, and batch normalisation would
    change the model while it is measured.

    Args:
        *models: The models.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def ordinary_torch() -> Iterator[None]:
    """Let what is inside, or a function that this decorates, compute as it does in a fresh Python.

    Gradients are recorded, numbers are float32 and live on the CPU where nothing else is said,
    whatever the caller has set: `no_grad`, `inference_mode`, another default type or device.
    """
    before = torch.get_default_dtype()
    cpu = torch.device("cpu")
    there = nullcontext() if torch.get_default_device() == cpu else cpu
    try:
        if before != torch.float32:
            torch.set_default_dtype(torch.float32)
        with torch.inference_mode(False), there:
            yield
    finally:
        if before != torch.float32:
            torch.set_default_dtype(before)


def default_device() -> torch.device:
    """Find the best device that is there.

    Returns:
        cuda, mps or cpu, in this order.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
