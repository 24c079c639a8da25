"""Traces of a class that can be read off a model without optimising anything."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .checks import IMAGE_SHAPE, check_images, check_is, check_tensor, check_values, check_whole
from .data import LabelledImages
from .denoising import HIGH, LOW
from .elbo import iwae, negative_elbo
from .models import CVAE, check_model, seeded

PROBE_SHARE = 0.5  # of the images train the linear probe, the others score it


@torch.no_grad()
def label_walk(model: CVAE, z: Tensor, first: int, last: int, steps: int = 9) -> Tensor:
    """Images at z (B, Z) while the label goes in a straight line: (steps, B, 1, 28, 28).

    The labels are (1 - t) onehot(first) + t onehot(last) with t from 0 to 1.
    """
    check_model(model)
    check_whole(steps, "steps", 2)  # a walk has at least its two ends
    check_whole(first, "first", 0, model.num_classes - 1)
    check_whole(last, "last", 0, model.num_classes - 1)
    check_tensor(z, ("B", model.latent_dim), "z", model.device, model.dtype)
    ends = model.label_vectors(torch.tensor([first, last]))
    weights = torch.linspace(0, 1, steps).to(ends)
    return torch.stack(
        [model.decode(z, ends[0].lerp(ends[1], t).expand(len(z), -1)) for t in weights]
    )


@torch.no_grad()
def round_trip(model: CVAE, images: Tensor) -> Tensor:
    """Every image through encoder (mean) and decoder under every label: (B, C, 1, 28, 28).

    images may be noisy: gray levels from -4 to 5, as for `denoise_tv`.
    """
    check_model(model)
    check_tensor(images, ("B", *IMAGE_SHAPE), "images", model.device, model.dtype)
    check_values(images, "images", LOW, HIGH, ": gray levels and some noise")
    trips = []
    for label in range(model.num_classes):
        y = torch.full((len(images),), label, device=model.device)
        trips.append(model.decode(model.encode(images, y)[0], y))
    return torch.stack(trips, dim=1)


def label_bounds(model: CVAE, images: Tensor, k: int = 50, seed: int = 0) -> Tensor:
    """The importance-weighted bound on log p(x | y) of every image under every label, (B, C) nats.

    Its argmax over the labels is the class the model takes the image for: a classifier that the
    model contains.  After forgetting it should not be c_f, whatever its images look like.
    """
    check_model(model)
    labels = torch.arange(model.num_classes, device=model.device)
    columns = [iwae(model, images, y.expand(len(images)), k, seeded(seed)) for y in labels]
    return torch.stack(columns, dim=1)


def membership_auc(
    model: CVAE, members: LabelledImages, others: LabelledImages, seed: int = 0
) -> float:
    """How well the ELBO tells images trained on from images never seen: 0.5 not at all, 1 fully.

    The chance that a member's negative ELBO is below another image's (area under the ROC curve).
    """
    for name, data in (("members", members), ("others", others)):
        check_is(data, LabelledImages, name)
        if not len(data):
            raise ValueError(f"{name} has 0 images: give at least one")
    from sklearn.metrics import roc_auc_score  # here, for it takes a second to import

    costs = [
        negative_elbo(model, data.images, data.labels, seeded(seed)) for data in (members, others)
    ]
    is_member = torch.arange(len(members) + len(others)) < len(members)
    return float(roc_auc_score(is_member.numpy(), -torch.cat(costs).cpu().numpy()))


@torch.no_grad()
def activations(model: CVAE, images: Tensor) -> dict[str, Tensor]:
    """What every layer says about the images, each (B, width), from the encoder's first on.

    The label input is the same for all, 1/C in each place: a layer that is told the class would
    only hand it on.  The decoder sees the encoder's mean.
    """
    check_model(model)
    check_images(images, device=model.device)
    kept: dict[str, Tensor] = {}
    y = torch.full((len(images), model.num_classes), 1 / model.num_classes).to(images)

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: object, __: object, output: Tensor) -> None:
            kept[name] = output.flatten(1)

        return model.get_submodule(name).register_forward_hook(hook)

    hidden = [n for n, m in model.named_modules() if isinstance(m, torch.nn.ReLU)]
    handles = [keep(name) for name in hidden]
    try:
        mean, _ = model.encode(images, y)
        model.decode(mean, y)
    finally:
        for handle in handles:
            handle.remove()
    before = {n: v for n, v in kept.items() if n.startswith("encoder")}
    after = {n: v for n, v in kept.items() if n.startswith("decoder")}
    return before | {"mean": mean} | after


def linear_probe(layers: Mapping[str, Tensor], is_class: Tensor, seed: int = 0) -> dict[str, float]:
    """How well a straight line in each layer tells the class from the others, on unseen images.

    layers: name -> (B, width).  is_class: (B,) bool.  Returns the area under the ROC curve of a
    logistic regression on standardised activations, trained on one half, scored on the other.
    """
    check_is(is_class, Tensor, "is_class")
    if is_class.ndim != 1 or is_class.dtype != torch.bool:
        raise ValueError(
            f"is_class of shape {tuple(is_class.shape)} and type {is_class.dtype} must be (B,) bool"
        )
    check_is(layers, Mapping, "layers")
    for name, values in layers.items():
        check_tensor(values, (len(is_class), "width"), f"layers[{name!r}]")
        check_values(values, f"layers[{name!r}]", -1e30, 1e30)
    order = torch.randperm(len(is_class), generator=seeded(seed))
    train, test = order.tensor_split([int(PROBE_SHARE * len(order))])
    for part in (train, test):
        if len(is_class[part].unique()) < 2:
            raise ValueError(
                f"is_class is true for {int(is_class.sum())} of {len(is_class)} images: each half "
                "needs images of the class and others"
            )
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = {}
    for name, values in layers.items():
        line = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        line.fit(values[train].cpu().numpy(), is_class[train].cpu().numpy())
        score = line.decision_function(values[test].cpu().numpy())
        found[name] = float(roc_auc_score(is_class[test].cpu().numpy(), score))
    return found


def cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two layers' activations on the same images, in [0, 1].

    first (B, P), second (B, Q); 1 when they agree up to rotation, scale and shift
    (Kornblith et al. 2019).
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} images: both need the same ones")
    for name, values in (("first", first), ("second", second)):
        check_tensor(values, ("B", "width"), name)
        check_values(values, name, -1e30, 1e30)
        if not len(values) or (values == values[0]).all():
            raise ValueError(f"{name} says the same of all {len(values)} images: give several")
    a, b = (x - x.mean(0) for x in (first.cpu().double(), second.cpu().double()))
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))
