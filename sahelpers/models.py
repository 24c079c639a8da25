"""The conditional VAE."""

import copy
import math
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
    door,
)
from .config import ARCHITECTURES, MAX_CLASSES, check_classes
from .store.archive import Saved

PRIORS = ("class", "standard")
Rng = torch.Generator | None  # None: torch's global one
Halves = tuple[nn.Sequential, nn.Sequential]  # encoder and decoder
OWN = "own"  # architecture of a model of the caller's networks
NOISY = (-4.0, 5.0)  # gray levels that noise on an image may reach; farther out something is wrong


class CVAE(Saved):
    """Conditional VAE with a Bernoulli decoder (Sohn et al. 2015).

    The label goes into the encoder and into the decoder, as one-hot for class numbers or as any
    vector of class weights (a soft label).  z has the prior N(0, I).  `sample` draws z of a class
    from a Gaussian fitted to the encoded training images of that class (ex-post density
    estimation, Ghosh et al. 2020), which avoids the holes between encoded images, or from N(0, I).

    image_shape: (C, H, W), one or three channels, 8 to 64 pixels a side ("conv": multiples of 4).
    encoder, decoder: modules in the place of the built-in ones, called with label vectors y (B, K):
    encoder(images, y) -> (B, 2 Z), mean and log-variance; decoder(z, y) -> logits, (B, C, H, W) or
    flat.  If each has a method label_weights() -> (weight, first), attacks on the label know where
    it enters: at the inputs first to first + K - 1 along the weight's second axis.
    Raises ValueError for another shape, and if two examples come out of a module as another one.
    """

    built_with = ("arch", "latent_dim", "num_classes", "image_shape")
    hint: ClassVar[str] = " (a training's result has it as `.model`)"
    prior_mean: Tensor  # (C, Z)
    prior_scale: Tensor  # (C, Z, Z), lower triangular

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
        super().__init__()
        if arch not in ARCHITECTURES:
            hint = ": give encoder= and decoder= instead" * (arch == OWN)
            raise ValueError(f"arch={arch!r} is not one of {', '.join(ARCHITECTURES)}{hint}")
        check_whole(latent_dim, "latent_dim", 1, 512)
        check_whole(num_classes, "num_classes", 2, MAX_CLASSES)
        check_shape(image_shape)
        if arch == "conv" and (image_shape[1] % 4 or image_shape[2] % 4):
            raise ValueError(f"image_shape={image_shape}: arch='conv' takes multiples of 4 pixels")
        self.arch, self.latent_dim, self.num_classes = arch, latent_dim, num_classes
        self.image_shape: Shape = tuple(image_shape)  # type: ignore[assignment]
        self.encoder: Any = encoder
        self.decoder: Any = decoder
        if encoder is None and decoder is None:
            build = _mlp if arch == "mlp" else _conv
            self.encoder, self.decoder = build(latent_dim, num_classes, image_shape)
        else:
            self.arch, flat = OWN, (2, math.prod(image_shape))
            _dry_run("encoder", encoder, image_shape, num_classes, [(2, 2 * latent_dim)])
            _dry_run("decoder", decoder, (latent_dim,), num_classes, [(2, *image_shape), flat])
        self.register_buffer("prior_mean", torch.zeros(num_classes, latent_dim))
        self.register_buffer("prior_scale", torch.eye(latent_dim).repeat(num_classes, 1, 1))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.prior_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights: float32 unless converted."""
        return self.prior_mean.dtype

    def label_vectors(self, labels: Tensor) -> Tensor:
        """Class numbers (B,) int64, or soft labels (B, C) float, as label vectors (B, C)."""
        if labels.ndim == 1 and not labels.is_floating_point():
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

    @door
    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x, y), each (B, Z).

        images: (B, *image_shape) float in [0, 1].  labels: (B,) int64 or (B, K) float.
        """
        y = self._labels_of(images, self.image_shape, "images", labels)
        if self.arch == OWN:
            out = self.encoder(images, y)
        elif self.arch == "mlp":
            out = self.encoder(torch.cat([images.flatten(1), y], dim=1))
        else:
            planes = y[:, :, None, None].expand(-1, -1, *images.shape[-2:])
            out = self.encoder(torch.cat([images, planes], dim=1))  # (B, C + K, H, W)
        mean, log_var = out.chunk(2, dim=1)
        return mean, log_var

    @door
    def decode_logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits of the pixels' Bernoulli probabilities, (B, *image_shape), for z (B, Z)."""
        y = self._labels_of(z, (self.latent_dim,), "z", labels)
        out: Tensor = self.decoder(*((z, y) if self.arch == OWN else (torch.cat([z, y], dim=1),)))
        return out.view(-1, *self.image_shape)

    def label_weights(self) -> tuple[tuple[nn.Parameter, int], ...]:
        """Of encoder and decoder the weight that reads the label, (out, inputs, ...), and the first
        of its K label inputs; ValueError if networks of your own do not say."""
        halves = self.encoder, self.decoder
        if self.arch != OWN:
            weights = [half[0].weight for half in halves]
            return tuple((weight, weight.shape[1] - self.num_classes) for weight in weights)
        if not self.says_label:
            raise ValueError("encoder or decoder has no method label_weights() -> (weight, first)")
        return tuple(half.label_weights() for half in halves)

    @property
    def says_label(self) -> bool:
        """Whether `label_weights` has an answer, so that these weights can be attacked."""
        halves = self.encoder, self.decoder
        return self.arch != OWN or all(hasattr(half, "label_weights") for half in halves)

    def label_columns(self) -> Tensor:
        """What stands for each label in the decoder, where anything else could stand: its weights
        in the first layer, (K, H); in networks of your own the label vector, (K, K)."""
        if self.arch == OWN:
            return torch.eye(self.num_classes).to(self.prior_mean)
        _, (weight, first) = self.label_weights()
        return weight.detach()[:, first:].T

    def decode_columns(self, z: Tensor, columns: Tensor) -> Tensor:
        """Logits (B, *image_shape) for z (B, Z) with this for a label, (B, H) or (B, K)."""
        if self.arch == OWN:
            return self.decode_logits(z, columns)
        first = self.decoder[0]
        sums = F.linear(z, first.weight[:, : self.latent_dim], first.bias) + columns
        out: Tensor = self.decoder[1:](sums)
        return out.view(-1, *self.image_shape)

    def _labels_of(
        self, values: Tensor, shape: tuple[int, ...], name: str, labels: Tensor
    ) -> Tensor:
        """The label vectors of values (B, *shape), after a look at both."""
        check_tensor(values, ("B", *shape), name, self.device, self.dtype)
        vectors = self.label_vectors(labels)
        check_same_length(values, vectors, name)
        return vectors

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Pixel probabilities p(x | z, y), the images that are shown: (B, *image_shape)."""
        return self.decode_logits(z, labels).sigmoid()

    @door
    def draw_latents(self, labels: Tensor, prior: str = "class", generator: Rng = None) -> Tensor:
        """Latents z (B, Z) for class numbers (B,): from the class's Gaussian or from N(0, I)."""
        if prior not in PRIORS:
            raise ValueError(f"prior={prior!r} is not one of {', '.join(PRIORS)}")
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
        """Images (B, *image_shape) in [0, 1] of class numbers (B,), or of vectors from N(0, I)."""
        return self.decode(self.draw_latents(labels, prior, generator), labels)

    @torch.no_grad()
    def set_class_prior(self, label: int, latents: Tensor | None = None) -> None:
        """Fit the Gaussian of one class to latents (N, Z); None erases it, back to N(0, I)."""
        check_classes(label, self.num_classes)
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


@torch.no_grad()
def _dry_run(
    name: str, half: Any, shape: tuple[int, ...], classes: int, wanted: list[tuple[int, ...]]
) -> None:
    """ValueError unless two examples come out of a copy of half in one of the shapes wanted."""
    check_is(half, nn.Module, name, ": give both networks or none")
    inputs = torch.zeros(2, *shape), torch.eye(classes)[:2]
    shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
    try:
        found = tuple(copy.deepcopy(half).eval()(*inputs).shape)
    except Exception as error:  # whatever a module of the caller's raises
        raise ValueError(f"{name} fails on inputs {shapes}: {error}") from error
    if found not in wanted:
        raise ValueError(f"{name} makes {found} of inputs {shapes}, not {wanted[0]}")


def _mlp(latent_dim: int, num_classes: int, image_shape: Shape) -> Halves:
    """Heng & Soh's layer sizes: 512 and 256 hidden units, mirrored in the decoder."""
    pixels = math.prod(image_shape)
    encoder = nn.Sequential(
        nn.Linear(pixels + num_classes, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()
    ).append(nn.Linear(256, 2 * latent_dim))
    decoder = nn.Sequential(
        nn.Linear(latent_dim + num_classes, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU()
    ).append(nn.Linear(512, pixels))
    return encoder, decoder


def _conv(latent_dim: int, num_classes: int, image_shape: Shape) -> Halves:
    """Two stride-2 convolutions on image and label planes; their transposes in the decoder."""
    c, h, w = image_shape[0], image_shape[1] // 4, image_shape[2] // 4
    kernel: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    encoder = nn.Sequential(
        nn.Conv2d(c + num_classes, 32, **kernel), nn.ReLU(), nn.Conv2d(32, 64, **kernel), nn.ReLU()
    ).extend([nn.Flatten(), nn.Linear(64 * h * w, 2 * latent_dim)])
    decoder = nn.Sequential(
        nn.Linear(latent_dim + num_classes, 64 * h * w), nn.ReLU(), nn.Unflatten(1, (64, h, w))
    ).extend([nn.ConvTranspose2d(64, 32, **kernel), nn.ReLU(), nn.ConvTranspose2d(32, c, **kernel)])
    return encoder, decoder


@door
@torch.no_grad()
def interpolate_labels(model: CVAE, z: Tensor, first: int, last: int, steps: int = 9) -> Tensor:
    """Images at z (B, Z) while the label goes in a straight line: (steps, B, *image_shape).

    The labels are (1 - t) onehot(first) + t onehot(last) with t from 0 to 1.
    """
    check_whole(steps, "steps", 2)  # both ends
    ends = model.label_vectors(torch.tensor([first, last]))
    labels = [ends[0].lerp(ends[1], t) for t in torch.linspace(0, 1, steps).to(ends)]
    return torch.stack([model.decode(z, y.expand(len(z), -1)) for y in labels])


@door
@torch.no_grad()
def reconstruct(model: CVAE, images: Tensor) -> Tensor:
    """Every image through encoder (mean) and decoder under every label: (B, K, *image_shape).

    images: (B, *image_shape); they may be noisy, gray levels from -4 to 5, as for `denoise_tv`.
    """
    check_values(images, "images", *NOISY, ": gray levels and some noise")
    every = torch.eye(model.num_classes).to(model.device, model.dtype)
    labels = [y.expand(len(images), -1) for y in every]
    return torch.stack([model.decode(model.encode(images, y)[0], y) for y in labels], dim=1)


def check_model(model: object, name: str = "model", num_classes: int | None = None) -> None:
    """Refuse what is not a CVAE of so many classes with finite weights."""
    check_is(model, CVAE, name, CVAE.hint)
    assert isinstance(model, CVAE)
    if num_classes is not None and model.num_classes != num_classes:
        raise ValueError(f"{name} has {model.num_classes} classes, not {num_classes} as the others")
    check_finite(model, name)


def draw_normal(shape: tuple[int, ...], model: CVAE, generator: Rng = None) -> Tensor:
    """Standard normal noise of the model's type, drawn on the CPU, as a seed means it anywhere."""
    return torch.randn(shape, generator=generator, dtype=model.dtype).to(model.device)


def seeded(seed: int) -> torch.Generator:
    """A generator with this seed, 0 or more: the only way randomness enters."""
    check_whole(seed, "seed", 0, 2**63 - 1)
    return torch.Generator().manual_seed(seed)


def default_device() -> torch.device:
    """cuda, mps or cpu: the best that is there."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
