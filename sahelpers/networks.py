"""The networks of a conditional VAE: where a label enters them, and what is asked of your own.

A VAE has two halves.  Each is a module that is called with its values and with label vectors y
(B, K): the encoder with images (B, C, H, W), the decoder with latents z (B, Z).  The built-in
halves are called in the same way as networks of your own, and all know by themselves where the
label enters, so that nobody else has to ask of which kind they are.
"""

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import Shape, check_is, is_whole, shown

LEAK = 1e-4  # of the effect on a label that a change of another label's weights may have


class ConditionalSequential(nn.Sequential):
    """Layers in a row, the first of which reads a label vector behind its other inputs.

    Both built-in halves are made of it.  A linear layer reads the label's entries as further
    numbers, a convolution reads each as a further plane of the image.  What is indexed by a slice
    is an ordinary `nn.Sequential`.

    Args:
        num_classes: Number of classes K, which is the length of a label vector.
        *layers: The layers; the first is an `nn.Linear` or an `nn.Conv2d`, whose last K inputs or
            channels are the label's.
    """

    def __init__(self, num_classes: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.num_classes = num_classes

    def forward(self, values: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """Run the layers.

        Args:
            values: Images (B, C, H, W) or latents (B, Z), float.
            y: Label vectors (B, K), float.

        Returns:
            What the last layer makes of them.
        """
        if isinstance(self[0], nn.Conv2d):
            y = y[:, :, None, None].expand(-1, -1, *values.shape[-2:])  # planes (B, K, H, W)
        else:
            values = values.flatten(1)
        out: Tensor = super().forward(torch.cat([values, y], dim=1))
        return out

    def __getitem__(self, index: Any) -> Any:
        """A layer, or an ordinary sequence of some of them."""
        if isinstance(index, slice):
            return nn.Sequential(*list(self)[index])
        return super().__getitem__(index)

    def label_weights(self) -> tuple[nn.Parameter, int]:
        """Say where the label enters.

        Returns:
            The first layer's weight, (out, inputs) or (out, channels, height, width), and the
            index of the first of its K label inputs along the second axis.
        """
        weight: nn.Parameter = self[0].weight
        return weight, weight.shape[1] - self.num_classes

    def label_columns(self) -> Tensor:
        """The weights that a first linear layer reads each label through, (K, H) float.

        They are what a label adds to the layer's H sums.
        """
        weight, first = self.label_weights()
        return weight.detach()[:, first:].T

    def forward_columns(self, values: Tensor, columns: Tensor) -> Tensor:
        """Run the layers with any weights in the place of a label's.

        Args:
            values: Latents (B, Z), float.
            columns: What is added to the sums of the first, linear layer in the place of a label's
                weights, (B, H) float; a row of `label_columns` is a label's own.

        Returns:
            What the last layer makes of them.
        """
        linear = self[0]
        weight, first = self.label_weights()
        values = F.linear(values, weight[:, :first], linear.bias) + columns
        for layer in list(self)[1:]:
            values = layer(values)
        return values


Halves = tuple[ConditionalSequential, ConditionalSequential]  # encoder and decoder


def linear_networks(latent_dim: int, num_classes: int, image_shape: Shape) -> Halves:
    """Build encoder and decoder of linear layers.

    The sizes are those of Heng & Soh (2023): 512 and 256 hidden units, mirrored in the decoder.

    Args:
        latent_dim: Number of latent dimensions Z.
        num_classes: Number of classes K.
        image_shape: (C, H, W) of the images.

    Returns:
        The encoder, whose output is (B, 2 Z), and the decoder, whose output is (B, C H W).
    """
    pixels = math.prod(image_shape)
    encoder = ConditionalSequential(
        num_classes,
        nn.Linear(pixels + num_classes, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 2 * latent_dim),
    )
    decoder = ConditionalSequential(
        num_classes,
        nn.Linear(latent_dim + num_classes, 256),
        nn.ReLU(),
        nn.Linear(256, 512),
        nn.ReLU(),
        nn.Linear(512, pixels),
    )
    return encoder, decoder


def convolutional_networks(latent_dim: int, num_classes: int, image_shape: Shape) -> Halves:
    """Build an encoder of two convolutions with stride 2 and a decoder of their transposes.

    Args:
        latent_dim: Number of latent dimensions Z.
        num_classes: Number of classes K.
        image_shape: (C, H, W) of the images; height and width are multiples of 4.

    Returns:
        The encoder, whose output is (B, 2 Z), and the decoder, whose output is (B, C, H, W).
    """
    channels = image_shape[0]
    height, width = image_shape[1] // 4, image_shape[2] // 4  # after both strides
    kernel: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    encoder = ConditionalSequential(
        num_classes,
        nn.Conv2d(channels + num_classes, 32, **kernel),
        nn.ReLU(),
        nn.Conv2d(32, 64, **kernel),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * height * width, 2 * latent_dim),
    )
    decoder = ConditionalSequential(
        num_classes,
        nn.Linear(latent_dim + num_classes, 64 * height * width),
        nn.ReLU(),
        nn.Unflatten(1, (64, height, width)),
        nn.ConvTranspose2d(64, 32, **kernel),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels, **kernel),
    )
    return encoder, decoder


@torch.no_grad()
def check_network(
    half: Any,
    name: str,
    shape: tuple[int, ...],
    num_classes: int,
    wanted: Sequence[tuple[int, ...]],
) -> None:
    """Refuse a network of the caller's own that a conditional VAE cannot be made of.

    Two examples go through a copy in evaluation mode.  If the network has a method
    `label_weights`, what it says is tried out on a copy as well.  A decoder whose outputs all lie
    between 0 and 1 is warned of: it should return logits.

    Args:
        half: What was given as encoder or decoder.
        name: "encoder" or "decoder", for the message.
        shape: Of one example: (C, H, W) of images, or (Z,) of latents.
        num_classes: Number of classes K.
        wanted: Shapes that the output for two examples may have.

    Raises:
        TypeError: It is no module.
        ValueError: It fails, its output has another shape, it changes its inputs in place, or
            `label_weights` names weights through which the label does not enter.
    """
    check_is(half, nn.Module, name, ": give both networks or none")
    values, labels = _examples(half, shape, num_classes, torch.get_default_dtype())
    shapes = f"{tuple(values.shape)} and {tuple(labels.shape)}"
    if any(p.is_meta for p in half.parameters()):
        raise ValueError(
            f"{name} is on the device meta, which holds no numbers: make it outside of "
            "torch.device('meta')"
        )
    before = values.clone(), labels.clone()
    try:
        output = copy.deepcopy(half).eval()(values, labels)
        found = tuple(output.shape)
    except Exception as error:  # whatever a module of the caller's raises
        shapes += _types(half, values)
        raise ValueError(f"{name} fails on inputs {shapes}: {error}") from error
    if found not in wanted:
        raise ValueError(f"{name} makes {found} of inputs {shapes}, not {wanted[0]}")
    if not all(map(torch.equal, before, (values, labels))):
        raise ValueError(
            f"{name} changes its inputs in place, which are the caller's images: write x = x * 2 "
            "in place of x.mul_(2)"
        )
    if name == "decoder" and ((output > 0) & (output < 1)).all():
        warnings.warn(
            "all outputs of the decoder lie between 0 and 1, and it should return logits, of which "
            "the model takes the sigmoid: if it ends in a sigmoid, leave that out",
            stacklevel=3,
        )
    if hasattr(half, "label_weights"):
        _try_out(copy.deepcopy(half).eval(), name, values, labels)


@torch.no_grad()
def check_label_weights(half: Any, name: str, shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse a network whose `label_weights` does not say where the label enters.

    The weight must be a parameter of the network.  On a copy, a change of the inputs of the first
    and of the last label must change what this label does, and not what the other does.

    Args:
        half: An encoder or decoder of the caller's own, with a method `label_weights`.
        name: "encoder" or "decoder", for the message.
        shape: Of one example: (C, H, W) of images, or (Z,) of latents.
        num_classes: Number of classes K.

    Raises:
        ValueError: It is not so; the message says what is wrong.
    """
    weight = next(half.parameters(), torch.empty(0))
    values, labels = _examples(half, shape, num_classes, weight.dtype)
    _try_out(copy.deepcopy(half).eval(), name, values, labels)


def _examples(
    half: nn.Module, shape: tuple[int, ...], num_classes: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Two examples for a network, on its device: values (2, *shape), labels (2, K)."""
    generator = torch.Generator("cpu").manual_seed(0)
    values = torch.rand(2, *shape, generator=generator, dtype=dtype, device="cpu")
    labels = torch.zeros(2, num_classes, dtype=dtype, device="cpu")
    labels[0, 0] = labels[1, -1] = 1  # the first class and the last
    weight = next(half.parameters(), values)
    device = values.device if weight.is_meta else weight.device
    return values.to(device), labels.to(device)


def _types(half: nn.Module, values: Tensor) -> str:
    """What to do, for a message, where weights are of another type than the inputs; else ""."""
    found = {p.dtype for p in half.parameters() if p.is_floating_point()} - {values.dtype}
    if not found:
        return ""
    return f" of {values.dtype}, with weights of {', '.join(map(str, found))}: convert these first"


def _try_out(twin: Any, name: str, values: Tensor, labels: Tensor) -> None:
    """ValueError unless each label enters a network where its `label_weights` says.

    twin: a copy of the network, whose weights are changed here.  values, labels: an example of the
    first class and one of the last.
    """
    num_classes = labels.shape[1]
    said = f"{name}.label_weights()"
    try:
        weight, first = twin.label_weights()
    except Exception as error:  # whatever the caller's method raises or returns
        raise ValueError(f"{said} does not return (weight, first): {error}") from error
    if not any(weight is parameter for parameter in twin.parameters()):
        raise ValueError(
            f"{said} returns a weight that is no parameter of the {name}: return the parameter "
            "itself, which is neither a copy nor a part of it"
        )
    last = weight.shape[1] - num_classes if weight.ndim > 1 else -1
    if not (is_whole(first) and 0 <= first <= last):
        raise ValueError(
            f"{said} says first={shown(first)}: a weight of shape {tuple(weight.shape)} has no "
            f"{num_classes} inputs from there on along its second axis"
        )

    random = torch.Generator("cpu").manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, device="cpu").to(like)

    def run() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for networks that draw random numbers
            return torch.as_tensor(twin(values, labels)).flatten(1)

    for parameter in twin.parameters():
        if not parameter.any():  # what begins at zero would hide what is behind it
            parameter.add_(0.1 * noise(parameter))
    before = run()
    for row, c in enumerate((0, num_classes - 1)):
        kept = weight.clone()
        weight[:, first + c] += noise(weight[:, first + c])
        moved = (run() - before).abs().amax(1)  # (2,): of the first class and of the last
        weight.copy_(kept)
        place = f"{said} says first={first}, but a change of the weight at {first + c}"
        if not moved[row] > 0:
            raise ValueError(f"{place} does not change what label {c} does")
        if moved[1 - row] > LEAK * moved[row]:
            other = num_classes - 1 - c
            raise ValueError(f"{place}, the place of label {c}, changes what label {other} does")
