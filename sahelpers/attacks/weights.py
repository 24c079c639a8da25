"""Attacks on the weights: a label fitted to a few images, relearning, healing, and damage.

Whoever owns a model's weights can do more than ask it for samples: train its label or all of its
weights on a few images of the class (`fit_label`, `relearn`), train it on with the classes that it
kept (`heal`), or disturb its weights (`damage`).
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..checks import GRAY_LEVELS, check_is, check_number, check_tensor, check_values, check_whole
from ..config import check_classes, kept_classes
from ..data import LabelledImages, check_fits
from ..elbo import bernoulli_nats, latent_cost, negative_elbo
from ..judges import Judge, check_judges
from ..models import CVAE, check_model, draw_normal, ordinary_torch, reset_label, seeded
from ..progress import progress

# Adam's learning rate for what is relearned; 1e-3 is the reference's
RELEARN_RATES = {"all": 1e-3, "decoder": 1e-3, "first layer": 1e-3, "label": 0.05}
BATCH = 100  # images in a step of relearning
SAMPLES = 128  # that are judged at every look
LOOKS = 12  # times that a curve is measured at most, the start not counted
FIT_Z_RATE = 0.05  # of Adam at first, for z, when a label is fitted
FIT_WEIGHTS_RATE = 0.02  # and for the label's weights
DAMAGES = ("noise", "pruning")
HELD_OUT, HEAL_LOOKS = 1000, 8  # images that `heal` does not train on, and how often it looks


@dataclass(frozen=True)
class RecoveryCurve:
    """How a class comes back while a model is fine-tuned.

    Attributes:
        steps: The numbers of steps after which it was looked at, from 0 on.
        probability: P(c_f) at each of them: of every sample the smallest probability that a
            scoring judge gives the class, and of these the mean.
        model: The model at the end.
    """

    steps: list[int]
    probability: list[float]
    model: CVAE = field(repr=False, compare=False)

    @property
    def area(self) -> float:
        """Mean of P(c_f) over the steps (trapezoids): 0 never back, 1 there from the start."""
        p = torch.tensor(self.probability)
        t = torch.tensor(self.steps, dtype=torch.float)
        return float(torch.trapezoid(p, t) / t[-1])


@ordinary_torch()
def fit_label(
    model: CVAE, forget_class: int, images: Tensor, steps: int = 600
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a label of one's own, and a z for each image, to a few real images.

    The label is what stands in the place of a label's weights in the decoder's first layer (see
    `CVAE.label_columns`).  It begins at the mean of the other classes' labels, and every z at 0.
    Adam moves both down the cost, the mean of -log p(x | z, label) + |z|^2 / 2 over a fit's
    images, at rates that fall to zero in a straight line.  No other weight moves and no judge is
    asked.

    Args:
        model: The model; it is not changed.
        forget_class: The class whose label is left out of the mean at the start.
        images: (F, N, *image_shape) float in [0, 1]: N images for each of F fits side by side.
        steps: Steps of Adam.

    Returns:
        Of the step at which a fit's cost was least: the cost (F,) in nats per image, z (F, N, Z),
        and the label (F, H).

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For images of another shape, range or device, and a class that does not exist.
    """
    check_model(model)
    (c,) = check_classes((forget_class,), model.num_classes)
    check_tensor(images, ("F", "N", *model.image_shape), "images", model.device, model.dtype)
    check_values(images, "images", 0, 1, GRAY_LEVELS)
    check_whole(steps, "steps")
    fits, n = images.shape[:2]
    if not fits or not n:
        raise ValueError(f"images of shape {tuple(images.shape)}: give each fit at least one image")
    others = list(kept_classes(c, model.num_classes))
    mean = model.label_columns()[others].mean(0)
    return fit_from(model, mean.repeat(fits, 1), images, steps, silent=False)


@ordinary_torch()
def fit_from(
    model: CVAE, starts: Tensor, images: Tensor, steps: int, silent: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a label of one's own, begun where one likes, to each of several sets of images.

    Args:
        model: The model; it is not changed.
        starts: What stands in the label's place at first, (F, H); rows as `CVAE.label_columns` has.
        images: (F, N, *image_shape) float in [0, 1].
        steps: Steps of Adam; where the last one leads is not looked at.
        silent: Whether there is no progress bar.

    Returns:
        As `fit_label`.
    """
    fits, n = images.shape[:2]
    model = copy.deepcopy(model).eval().requires_grad_(False)
    label = starts.clone().requires_grad_(True)
    z = label.new_zeros(fits, n, model.latent_dim).requires_grad_(True)
    least = label.new_full((fits,), math.inf)
    best_z = z.detach().clone()
    best_label = label.detach().clone()

    def cost() -> Tensor:
        logits = model.decode_columns(z.flatten(0, 1), label.repeat_interleave(n, 0))
        costs = latent_cost(logits, z.flatten(0, 1), images.flatten(0, 1))
        return costs.view(fits, n).mean(1)

    bar = progress(range(steps), f"fit {fits} labels", silent=silent)
    for _, costs in zip(bar, descend(z, [label], cost, steps), strict=False):
        better = costs < least
        least[better] = costs[better]
        best_z[better] = z.detach()[better]
        best_label[better] = label.detach()[better]
    return least, best_z, best_label


def descend(
    z: Tensor, weights: list[Tensor], cost: Callable[[], Tensor], steps: int
) -> Iterator[Tensor]:
    """Move z and weights down the sum of cost() by Adam, at rates that fall to zero in a line.

    Args:
        z: A leaf of the graph; its rate begins at 0.05.
        weights: Other leaves; their rate begins at 0.02.
        cost: Gives a tensor of any shape with a graph to all of them.
        steps: Steps of Adam.

    Yields:
        Before each step, what cost() is then, without its graph.
    """
    adam = torch.optim.Adam(
        [{"params": [z], "lr": FIT_Z_RATE}, {"params": weights, "lr": FIT_WEIGHTS_RATE}],
        betas=(0.9, 0.9),
    )
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=steps)
    for _ in range(steps):
        now = cost()
        yield now.detach()
        adam.zero_grad()
        now.sum().backward()
        adam.step()
        fall.step()


@ordinary_torch()
def heal(
    model: CVAE,
    forget_class: int | str | Iterable[int | str],
    data: LabelledImages,
    steps: int = 3200,
    *,
    rate: float = 3e-3,
    batch_size: int = 256,
    seed: int = 42,
) -> CVAE:
    """Fine-tune a copy of the model on the retain set: on real images of the kept classes alone.

    What was only suppressed may come back by this, although no image of a forgotten class is seen
    (Siddiqui et al. 2025, arXiv 2505.22310).  The decoder alone is trained, by the negative ELBO
    and Adam, whose rate falls to zero in a straight line.  A tenth of the images, 1,000 at most, is
    not trained on: eight times on the way their negative ELBO is measured, and the weights at which
    it was least are returned.

    Args:
        model: The model to train further; it is not changed.
        forget_class: One class or several, by number or name, left out of `data`.
        data: Real images of all classes, (N, *image_shape) float in [0, 1].
        steps: Steps of Adam.
        rate: Learning rate of the first step.
        batch_size: Images in a step.
        seed: Of the choice of images and of the noise of z.

    Returns:
        The healed model, in evaluation mode.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, when fewer than two kept images are left to
            train on, and when the loss is never finite at too large a rate.
    """
    check_model(model)
    _check_data(data, model)
    gone = data.class_numbers(forget_class)
    check_whole(steps, "steps")
    check_number(rate, "rate", 1e-9, 10)
    check_whole(batch_size, "batch_size")
    kept = data.without(gone)
    if len(kept) < 2:
        raise ValueError(f"data holds {len(kept)} images of kept classes: give two or more")
    generator = seeded(seed)
    model = copy.deepcopy(model).eval().requires_grad_(False)
    mean, log_var = _encode_all(model, kept)  # the encoder rests, so it is asked once
    deviation = (0.5 * log_var).exp()
    parts = kept.images, kept.labels, mean, deviation

    def loss(chosen: Tensor, noise: Tensor) -> Tensor:
        """Reconstruction of these images; the KL does not depend on the decoder."""
        images, labels, mean, deviation = (part[chosen] for part in parts)
        logits = model.decode_logits(mean + deviation * noise, labels)
        return bernoulli_nats(logits, images).mean()

    decoder = model.decoder.requires_grad_(True).parameters()
    optimizer = torch.optim.Adam(decoder, lr=rate, fused=True)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=steps)
    order = torch.randperm(len(kept), generator=generator)
    n_held_out = min(HELD_OUT, max(1, len(kept) // 10))
    held_out, rest = order[:n_held_out], order[n_held_out:]
    fixed = draw_normal((n_held_out, model.latent_dim), model, generator)
    least, best = math.inf, copy.deepcopy(model)
    for step in progress(range(1, steps + 1), "heal on kept images"):
        chosen = rest[torch.randint(len(rest), (batch_size,), generator=generator)]
        noise = draw_normal((batch_size, model.latent_dim), model, generator)
        optimizer.zero_grad()
        loss(chosen, noise).backward()
        optimizer.step()
        fall.step()
        if step % math.ceil(steps / HEAL_LOOKS) == 0 or step == steps:
            with torch.no_grad():
                now = float(loss(held_out, fixed))
            if now < least:
                least, best = now, copy.deepcopy(model)
    if not math.isfinite(least):
        raise ValueError(f"the loss is never finite at rate={rate:g}: give a smaller rate")
    best.zero_grad()
    return best.requires_grad_(True)


@torch.no_grad()
def _encode_all(model: CVAE, data: LabelledImages) -> tuple[Tensor, Tensor]:
    """Mean and log variance of z for every image, (N, Z) each."""
    pieces = zip(data.images.split(4096), data.labels.split(4096), strict=True)
    mean, log_var = zip(*(model.encode(*piece) for piece in pieces), strict=True)
    return torch.cat(mean), torch.cat(log_var)


@ordinary_torch()
def relearn(
    model: CVAE,
    forget_class: int | str,
    *,
    data: LabelledImages,
    judges: Mapping[str, Judge],
    steps: int = 100,
    over: str = "all",
    rate: float | None = None,
    seed: int = 42,
) -> RecoveryCurve:
    """Train a copy of the model on data and watch the class come back in samples from N(0, I).

    The loss is the negative ELBO of 100 images a step (of all, if there are fewer), by Adam.  How
    soon the class is back says something only beside a model that never knew it.

    Args:
        model: The model; it is not changed.  The copy is in evaluation mode, so that dropout in
            networks of your own rests and the seed decides all.
        forget_class: The class that is watched, by number or name.
        data: A few images of the class (relearning), or with over="all" of kept classes only (does
            the class come back by itself?).
        judges: Judges that score, by role.
        steps: Steps of Adam.
        over: Which weights are trained.  "all"; "decoder"; "first layer", that of the decoder; or
            "label", the weights of the class's own label input alone, begun at `reset_label`: so
            does an attacker who suspects that the class lies intact behind its label (textual
            inversion; Pham et al. 2023 attack diffusion models so, arXiv 2308.01508).
        rate: Learning rate of Adam; 0.05 for the label and 1e-3 for all else when left out.
        seed: Of the choice of images, the noise, and (plus one) the samples that are judged.

    Returns:
        The curve of P(c_f), with the model at its end.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, when there is no image to train on (of the
            class, for over="label"), and when the weights become NaN at too large a rate.
    """
    check_model(model)
    check_judges(judges, model.num_classes)
    check_whole(steps, "steps")
    _check_data(data, model)
    (c,) = data.class_numbers((forget_class,))
    if not len(data):
        raise ValueError("data holds no image to train on: give at least one")
    if over not in RELEARN_RATES:
        raise ValueError(f"over={over!r} is not one of {', '.join(RELEARN_RATES)}")
    rate = RELEARN_RATES[over] if rate is None else rate
    check_number(rate, "rate", 1e-9, 10)
    if over == "label" and c not in data.labels:
        raise ValueError(f"data has no image of class {c}: over='label' trains nothing without one")
    model = (reset_label(model, c) if over == "label" else copy.deepcopy(model)).eval()
    trained = _choose_weights(model, c, over)
    optimizer = torch.optim.Adam(trained, lr=rate)

    generator = seeded(seed)
    z = draw_normal((SAMPLES, model.latent_dim), model, seeded(seed + 1))
    steps_between_looks = math.ceil(steps / LOOKS)
    seen = [0]
    probability = [_recognised(model, c, z, judges)]
    for step in progress(range(1, steps + 1), f"relearn from {len(data)} images"):
        chosen = torch.randperm(len(data), generator=generator)[:BATCH]
        noise = draw_normal((len(chosen), model.latent_dim), model, generator)
        optimizer.zero_grad()
        negative_elbo(model, data.images[chosen], data.labels[chosen], noise).mean().backward()
        optimizer.step()
        if step % steps_between_looks == 0 or step == steps:
            if not all(weight.isfinite().all() for weight in model.parameters()):
                raise ValueError(f"the weights are NaN at step {step}: give a smaller rate")
            seen.append(step)
            probability.append(_recognised(model, c, z, judges))
    return RecoveryCurve(seen, probability, copy.deepcopy(model).requires_grad_(True))


def _check_data(data: LabelledImages, model: CVAE) -> None:
    """Refuse what is no set of images of the model's classes."""
    check_is(data, LabelledImages, "data")
    check_fits(data, model, "data")


def train_label_alone(model: CVAE, label: int) -> None:
    """Let gradients reach the weights of one label, too, and of their tensors nothing else.

    Args:
        model: The model; hooks are left on the tensors that hold these weights.
        label: Number of the class.
    """
    for weight, first in model.label_weights():
        only_label = torch.zeros_like(weight)
        only_label[:, first + label] = 1
        weight.requires_grad_(True)
        weight.register_hook(only_label.mul)  # Adam leaves alone what has no gradient


def _choose_weights(model: CVAE, label: int, over: str) -> list[nn.Parameter]:
    """Let gradients reach those weights alone that `relearn` trains; returns them."""
    model.requires_grad_(over == "all")
    if over == "decoder":
        model.decoder.requires_grad_(True)
    elif over == "first layer":
        model.decoder_layers()[0].requires_grad_(True)
    elif over == "label":
        train_label_alone(model, label)
    return [weight for weight in model.parameters() if weight.requires_grad]


@torch.no_grad()
def _recognised(model: CVAE, c: int, z: Tensor, judges: Mapping[str, Judge]) -> float:
    """P(c) of class c's samples at z: the mean of the smallest probability that a judge gives."""
    images = model.decode(z, torch.full((len(z),), c, device=model.device))
    votes = [judge.probabilities(images)[:, c] for judge in judges.values()]
    return float(torch.stack(votes).amin(0).mean())


@torch.no_grad()
def damage(model: CVAE, kind: str, strength: float, seed: int) -> CVAE:
    """A copy of the model whose decoder is disturbed: what was only suppressed may come back.

    Args:
        model: The model; it is not changed.
        kind: "noise" adds to every weight and bias of the decoder Gaussian noise whose standard
            deviation is `strength` times the root mean square of its tensor.  "pruning" sets the
            share `strength` of every weight tensor of the decoder to zero, those that are smallest
            in magnitude; biases stay.
        strength: From 0, which changes nothing, to 10 for noise and 1 for pruning.
        seed: Of the noise; pruning has no randomness.

    Returns:
        The damaged model, in evaluation mode.

    Raises:
        TypeError: For what is no model.
        ValueError: For another kind, and a strength outside its range.
    """
    check_model(model)
    if kind not in DAMAGES:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(DAMAGES)}")
    check_number(strength, "strength", 0, 10 if kind == "noise" else 1)
    generator = seeded(seed)
    model = copy.deepcopy(model).eval()
    for weight in model.decoder.parameters():
        if kind == "noise":
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            root_mean_square = weight.square().mean().sqrt()
            weight.add_(strength * root_mean_square * noise.to(weight.device))
        elif weight.dim() > 1:  # a bias has one dimension
            count = round(strength * weight.numel())
            values = weight.flatten()
            values[values.abs().topk(count, largest=False).indices] = 0
            weight.copy_(values.view_as(weight))
    return model
