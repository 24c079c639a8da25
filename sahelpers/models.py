"""The conditional VAE."""

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    IMAGE_SHAPE,
    check_finite,
    check_is,
    check_labels,
    check_same_length,
    check_tensor,
    check_values,
    check_whole,
    door,
)
from .config import ARCHITECTURES, MAX_CLASSES, check_classes

PRIORS = ("class", "standard")
NOISY = (-4.0, 5.0)  # gray levels that noise on an image may reach; farther out something is wrong


class Saved(nn.Module):
    """A network that a checkpoint holds: what it was built with, and its tensors."""

    built_with: ClassVar[tuple[str, ...]]  # arguments of the constructor, kept as attributes

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers and strings only."""
        arguments = {name: getattr(self, name) for name in self.built_with}
        return {**arguments, "tensors": {k: v.detach().cpu() for k, v in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The network of `to_state` with copies of its tensors, float32 or all float64, on the CPU,
        in evaluation mode.

        Raises RuntimeError unless names, shapes and types fit.  What is built has no memory of its
        own: a file may announce any size, and torch's default type does not matter.
        """
        with torch.device("meta"):
            module = cls(*(state[name] for name in cls.built_with))
        tensors: dict[str, Tensor] = state["tensors"]
        double = all(v.dtype == torch.float64 for v in tensors.values() if v.is_floating_point())
        for name, built in module.state_dict().items():
            whole = torch.float64 if double else torch.float32
            wanted = whole if built.is_floating_point() else built.dtype
            if name in tensors and tensors[name].dtype != wanted:
                raise RuntimeError(f"{name} is of type {tensors[name].dtype}, not {wanted}")
        copies = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        module.load_state_dict(copies, assign=True)
        return module.eval()


class CVAE(Saved):
    """Conditional VAE with a Bernoulli decoder (Sohn et al. 2015).

    The label goes into the encoder and into the decoder, as one-hot for class numbers or as any
    vector of class weights (a soft label).  z has the prior N(0, I).  `sample` draws z of a class
    from a Gaussian fitted to the encoded training images of that class (ex-post density
    estimation, Ghosh et al. 2020), which avoids the holes between encoded images, or from N(0, I).
    """

    built_with = ("arch", "latent_dim", "num_classes")
    hint: ClassVar[str] = " (a training's result has it as `.model`)"
    prior_mean: Tensor  # (C, Z)
    prior_scale: Tensor  # (C, Z, Z), lower triangular

    def __init__(self, arch: str = "mlp", latent_dim: int = 20, num_classes: int = 10) -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            raise ValueError(f"arch={arch!r} is not one of {', '.join(ARCHITECTURES)}")
        check_whole(latent_dim, "latent_dim", 1, 512)
        check_whole(num_classes, "num_classes", 2, MAX_CLASSES)
        self.arch, self.latent_dim, self.num_classes = arch, latent_dim, num_classes
        build = _mlp if arch == "mlp" else _conv
        self.encoder, self.decoder = build(latent_dim, num_classes)
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

        images: (B, 1, 28, 28) float in [0, 1].  labels: (B,) int64 or (B, C) float.
        """
        y = self._labels_of(images, IMAGE_SHAPE, "images", labels)
        if self.arch == "mlp":
            h = torch.cat([images.flatten(1), y], dim=1)  # (B, 784 + C)
        else:
            planes = y[:, :, None, None].expand(-1, -1, *images.shape[-2:])
            h = torch.cat([images, planes], dim=1)  # (B, 1 + C, 28, 28)
        mean, log_var = self.encoder(h).chunk(2, dim=1)
        return mean, log_var

    @door
    def decode_logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits of the pixels' Bernoulli probabilities, (B, 1, 28, 28), for z (B, Z)."""
        y = self._labels_of(z, (self.latent_dim,), "z", labels)
        out: Tensor = self.decoder(torch.cat([z, y], dim=1))  # from (B, Z + C)
        return out.view(-1, *IMAGE_SHAPE)

    def label_columns(self) -> Tensor:
        """What each label adds to the sums of the decoder's first layer: its weights, (C, H)."""
        return self.decoder[0].get_parameter("weight").detach()[:, self.latent_dim :].T

    def decode_columns(self, z: Tensor, columns: Tensor) -> Tensor:
        """Logits for z (B, Z) where such weights (B, H) stand in the place of a label's."""
        first = self.decoder[0]
        weight, bias = first.get_parameter("weight"), first.get_parameter("bias")
        sums = F.linear(z, weight[:, : self.latent_dim], bias) + columns
        out: Tensor = self.decoder[1:](sums)
        return out.view(-1, *IMAGE_SHAPE)

    def _labels_of(
        self, values: Tensor, shape: tuple[int, ...], name: str, labels: Tensor
    ) -> Tensor:
        """The label vectors of values (B, *shape), after a look at both."""
        check_tensor(values, ("B", *shape), name, self.device, self.dtype)
        vectors = self.label_vectors(labels)
        check_same_length(values, vectors, name)
        return vectors

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Pixel probabilities p(x | z, y), the images that are shown: (B, 1, 28, 28) in [0, 1]."""
        return self.decode_logits(z, labels).sigmoid()

    @door
    def draw_latents(
        self, labels: Tensor, prior: str = "class", generator: torch.Generator | None = None
    ) -> Tensor:
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
    def sample(
        self, labels: Tensor, prior: str = "class", generator: torch.Generator | None = None
    ) -> Tensor:
        """One image of each class number in labels (B,): (B, 1, 28, 28) in [0, 1]."""
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


def _mlp(latent_dim: int, num_classes: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Heng & Soh's layer sizes: 512 and 256 hidden units, mirrored in the decoder."""
    pixels = 28 * 28
    encoder = nn.Sequential(
        nn.Linear(pixels + num_classes, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()
    ).append(nn.Linear(256, 2 * latent_dim))
    decoder = nn.Sequential(
        nn.Linear(latent_dim + num_classes, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU()
    ).append(nn.Linear(512, pixels))
    return encoder, decoder


def _conv(latent_dim: int, num_classes: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Two stride-2 convolutions on image and label planes; their transposes in the decoder."""
    kernel: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    encoder = nn.Sequential(
        nn.Conv2d(1 + num_classes, 32, **kernel), nn.ReLU(), nn.Conv2d(32, 64, **kernel), nn.ReLU()
    ).extend([nn.Flatten(), nn.Linear(64 * 7 * 7, 2 * latent_dim)])
    decoder = nn.Sequential(
        nn.Linear(latent_dim + num_classes, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))
    ).extend([nn.ConvTranspose2d(64, 32, **kernel), nn.ReLU(), nn.ConvTranspose2d(32, 1, **kernel)])
    return encoder, decoder


@door
@torch.no_grad()
def interpolate_labels(model: CVAE, z: Tensor, first: int, last: int, steps: int = 9) -> Tensor:
    """Images at z (B, Z) while the label goes in a straight line: (steps, B, 1, 28, 28).

    The labels are (1 - t) onehot(first) + t onehot(last) with t from 0 to 1.
    """
    check_whole(steps, "steps", 2)  # both ends
    ends = model.label_vectors(torch.tensor([first, last]))
    labels = [ends[0].lerp(ends[1], t) for t in torch.linspace(0, 1, steps).to(ends)]
    return torch.stack([model.decode(z, y.expand(len(z), -1)) for y in labels])


@door
@torch.no_grad()
def reconstruct(model: CVAE, images: Tensor) -> Tensor:
    """Every image through encoder (mean) and decoder under every label: (B, C, 1, 28, 28).

    images: (B, 1, 28, 28); they may be noisy, gray levels from -4 to 5, as for `denoise_tv`.
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


def draw_normal(
    shape: tuple[int, ...], model: CVAE, generator: torch.Generator | None = None
) -> Tensor:
    """Standard normal noise of the model's type, drawn on the CPU so that a seed means the same
    on every device."""
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
