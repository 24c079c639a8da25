"""The conditional VAE."""

from collections.abc import Callable
from typing import Any, TypeVar

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
    check_whole,
)
from .config import ARCHITECTURES, check_classes

LATENT_DIM = 20
NUM_CLASSES = 10
PRIORS = ("class", "standard")
M = TypeVar("M", bound=nn.Module)


class CVAE(nn.Module):
    """Conditional VAE with a Bernoulli decoder (Sohn et al. 2015).

    The label goes into the encoder and into the decoder, as one-hot for class numbers or as any
    vector of class weights (a soft label).  z has the prior N(0, I).  `sample` draws z of a class
    from a Gaussian fitted to the encoded training images of that class (ex-post density
    estimation, Ghosh et al. 2020), which avoids the holes between encoded images, or from N(0, I).
    """

    prior_mean: Tensor  # (C, Z)
    prior_scale: Tensor  # (C, Z, Z), lower triangular

    def __init__(
        self, arch: str = "mlp", latent_dim: int = LATENT_DIM, num_classes: int = NUM_CLASSES
    ) -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            raise ValueError(f"arch={arch!r} is not one of {', '.join(ARCHITECTURES)}")
        check_whole(latent_dim, "latent_dim", 1, 512)
        check_whole(num_classes, "num_classes", 2, 1000)
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
        check_is(labels, Tensor, "labels")
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

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x, y), each (B, Z).

        images: (B, 1, 28, 28) float in [0, 1].  labels: (B,) int64 or (B, C) float.
        """
        check_tensor(images, ("B", *IMAGE_SHAPE), "images", self.device, self.dtype)
        y = self.label_vectors(labels)
        check_same_length(images, y, "images")
        if self.arch == "mlp":
            h = torch.cat([images.flatten(1), y], dim=1)  # (B, 784 + C)
        else:
            planes = y[:, :, None, None].expand(-1, -1, *images.shape[-2:])
            h = torch.cat([images, planes], dim=1)  # (B, 1 + C, 28, 28)
        mean, log_var = self.encoder(h).chunk(2, dim=1)
        return mean, log_var

    def decode_logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits of the pixels' Bernoulli probabilities, (B, 1, 28, 28), for z (B, Z)."""
        check_tensor(z, ("B", self.latent_dim), "z", self.device, self.dtype)
        y = self.label_vectors(labels)
        check_same_length(z, y, "z")
        h = torch.cat([z, y], dim=1)  # (B, Z + C)
        out: Tensor = self.decoder(h)
        return out.view(-1, *IMAGE_SHAPE)

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Pixel probabilities p(x | z, y), the images that are shown: (B, 1, 28, 28) in [0, 1]."""
        return self.decode_logits(z, labels).sigmoid()

    def draw_latents(
        self, labels: Tensor, generator: torch.Generator | None = None, prior: str = "class"
    ) -> Tensor:
        """Latents z (B, Z) for class numbers (B,): from the class's Gaussian or from N(0, I)."""
        if prior not in PRIORS:
            raise ValueError(f"prior={prior!r} is not one of {', '.join(PRIORS)}")
        check_is(labels, Tensor, "labels")
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
        self, labels: Tensor, generator: torch.Generator | None = None, prior: str = "class"
    ) -> Tensor:
        """One image of each class number in labels (B,): (B, 1, 28, 28) in [0, 1]."""
        return self.decode(self.draw_latents(labels, generator, prior), labels)

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

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers and strings only: what a checkpoint holds."""
        shape = {k: getattr(self, k) for k in ("arch", "latent_dim", "num_classes")}
        return {**shape, "tensors": {k: v.detach().cpu() for k, v in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "CVAE":
        """The model of `to_state`, on the CPU, in evaluation mode."""
        shape = state["arch"], state["latent_dim"], state["num_classes"]
        return restored(lambda: cls(*shape), state["tensors"])


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


def restored(build: Callable[[], M], tensors: dict[str, Tensor]) -> M:
    """A module with these tensors, in evaluation mode; RuntimeError unless names and shapes fit.

    They are compared without allocating anything first: a file may announce any size.
    """
    with torch.device("meta"):
        build().load_state_dict(tensors, assign=True)
    module = build()
    module.load_state_dict(tensors)
    return module.eval()


def check_model(model: object, name: str = "model", num_classes: int | None = None) -> None:
    """Refuse what is not a CVAE of so many classes with finite weights."""
    check_is(model, CVAE, name, " (a training's result has it as `.model`)")
    assert isinstance(model, CVAE)
    if num_classes is not None and model.num_classes != num_classes:
        raise ValueError(f"{name} has {model.num_classes} classes, not {num_classes} as the others")
    check_finite(model, name)


def draw_normal(
    shape: tuple[int, ...], model: CVAE, generator: torch.Generator | None = None
) -> Tensor:
    """Standard normal noise of the model's type, drawn on the CPU so that a seed means the same
    on every device."""
    check_is(generator, (torch.Generator, type(None)), "generator", ": seeded(0) makes one")
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
