"""Is it gone or only hidden?  Optimisation over latent and label that tries to bring a class back.

All restarts are one batch: z is (R, Z), the label logits (R, K), and one Adam moves them together.
The loss of a restart depends on that restart alone, and so do its gradient and Adam's step.  The
result is therefore the one that running them one at a time would give.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import (
    check_callable,
    check_images,
    check_is,
    check_tensor,
    check_values,
    check_whole,
    is_no,
)
from ..config import ProbeConfig, check_classes
from ..elbo import latent_cost
from ..judges import Judge, check_guide, check_judges
from ..models import CVAE, check_model, draw_normal, ordinary_torch, seeded
from ..penalties import contrast, ink, orientation_entropy, total_variation
from ..progress import progress

Z_LIMIT = 3.0  # z is clamped to +-3 after each step: the search stays near the prior
LABEL_START = 3.0  # logit of c_f at the start, the others 0: softmax gives c_f 0.69 of ten classes
SEARCHES = ("both", "z", "y", "free_y")
PRIOR_SHARE = 0.999  # of the draws from N(0, I) lie closer to the origin than a "reachable" z
COST_RATE = 0.1  # learning rate of the search for the z at which an image costs least
CALLED = 0.5  # a judge calls an image the class from this probability on

OnStep = Callable[[int], bool | None] | None
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, z, label vectors -> (R,)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a search found, restarts sorted from the lowest loss to the highest.

    Attributes:
        images: (R, *image_shape) in [0, 1].
        z: Latents (R, Z).
        label: Label vectors (R, K): on the simplex, except for over="free_y".
        loss: (R,).
    """

    images: Tensor
    z: Tensor
    label: Tensor
    loss: Tensor


def invert_prototypes(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig | None = None,
    *,
    baseline: CVAE,
    start: Tensor | None = None,
    on_step: OnStep = None,
) -> ProbeResult:
    """Search z and label whose image comes close to what the baseline drew for the class.

    The targets are the 8 of 512 baseline samples of the class with the highest contrast.  The loss
    of a restart is its smallest mean squared error to a target, plus ALPHA_TV times the total
    variation, plus L2Z times the mean of z^2.

    Args:
        model: The model to search in; it is not changed.
        forget_class: The class that is looked for.
        config: Restarts, steps and weights; `ProbeConfig.prototype()` when left out.
        baseline: The model before it forgot, which draws the targets.
        start: First latents (R, Z), in place of config.n_restarts draws from N(0, I).
        on_step: Called after every step with the number of steps done, in place of a progress bar.
            Where it returns False the search ends.

    Returns:
        The images that were found, with their latents, labels and losses.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist and for models that do not fit together.
    """
    config = ProbeConfig.prototype() if config is None else config
    forget_class = _check_search(model, forget_class, config, start, on_step)
    check_model(baseline, "baseline", model.num_classes)
    if (baseline.image_shape, baseline.device) != (model.image_shape, model.device):
        raise ValueError(
            f"baseline draws images {baseline.image_shape} on {baseline.device}, the model "
            f"{model.image_shape} on {model.device}: give the model's own baseline"
        )
    generator = seeded(config.seed)
    labels = torch.full((512,), forget_class, device=baseline.device)
    samples = baseline.sample(labels, "standard", generator)
    targets = samples[contrast(samples).topk(8).indices]  # (8, *image_shape)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        error = (images[:, None] - targets[None]).square().flatten(2).mean(2)  # (R, 8)
        smooth = config.alpha_tv * total_variation(images)
        return error.min(1).values + smooth + config.l2z * z.square().mean(1)

    return _search(model, forget_class, config, loss, generator, start, on_step)


def invert_blind(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig | None = None,
    *,
    start: Tensor | None = None,
    on_step: OnStep = None,
) -> ProbeResult:
    """Search z and label whose image looks like some digit, without knowing the class's images.

    The loss of a restart, with the label y and the weights of the configuration, is

        W_TV total_variation + W_INK ink + W_Z mean(z^2) + W_Y |y - onehot(c_f)|^2
        - W_CONTRAST contrast - W_ORIENT orientation_entropy

    Args:
        model: The model to search in; it is not changed.
        forget_class: The class that is looked for.
        config: Restarts, steps and weights; `ProbeConfig()` when left out.
        start: First latents (R, Z), in place of config.n_restarts draws from N(0, I).
        on_step: Called after every step with the number of steps done, in place of a progress bar.
            Where it returns False the search ends.

    Returns:
        The images that were found, with their latents, labels and losses.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist.
    """
    config = ProbeConfig() if config is None else config
    forget_class = _check_search(model, forget_class, config, start, on_step)
    wanted = model.label_vectors(torch.tensor([forget_class]))

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        return (
            config.w_tv * total_variation(images)
            + config.w_ink * ink(images, config.ink_target)
            + config.w_z * z.square().mean(1)
            + config.w_y * (y - wanted).square().sum(1)
            - config.w_contrast * contrast(images)
            - config.w_orient * orientation_entropy(images)
        )

    return _search(model, forget_class, config, loss, seeded(config.seed), start, on_step)


def guided_attack(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig | None = None,
    *,
    guide: Judge,
    over: str = "both",
    start: Tensor | None = None,
    on_step: OnStep = None,
) -> ProbeResult:
    """Search for an image that a judge calls the class.

    The loss of a restart is the judge's cross entropy for the class, in nats, plus L2Z times the
    mean of z^2.

    Args:
        model: The model to search in; it is not changed.
        forget_class: The class that is looked for.
        config: Restarts, steps and weights; `ProbeConfig()` when left out.
        guide: The judge that is asked, of role "guide" or "wary"; its word is never the score.
        over: What moves.  "both": z, and a label on the simplex.  "z": z, under the class's own
            label.  "y": a label on the simplex, at z as it was drawn.  "free_y": any label vector,
            begun at the class's own, at z as it was drawn.
        start: First latents (R, Z), in place of config.n_restarts draws from N(0, I).
        on_step: Called after every step with the number of steps done, in place of a progress bar.
            Where it returns False the search ends.

    Returns:
        The images that were found, with their latents, labels and losses.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, another `over`, and a judge that scores: one
            that guides and scores at once would prove nothing.
    """
    config = ProbeConfig() if config is None else config
    forget_class = _check_search(model, forget_class, config, start, on_step)
    check_guide(guide, model.num_classes)
    if over not in SEARCHES:
        raise ValueError(f"over={over!r} is not one of {', '.join(SEARCHES)}")
    guide = copy.deepcopy(guide).eval().to(model.device, model.dtype).requires_grad_(False)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        wanted = torch.full((len(z),), forget_class, device=z.device)
        missed = F.cross_entropy(guide(images), wanted, reduction="none")
        return missed + config.l2z * z.square().mean(1)

    return _search(model, forget_class, config, loss, seeded(config.seed), start, on_step, over)


@ordinary_torch()
def image_cost(
    model: CVAE, images: Tensor, labels: Tensor, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """What it costs a model to draw real images under some labels.

    The cost of an image under a label k is the smallest -log p(x | z, k) + |z|^2 / 2 over z, as
    Adam finds it from z = 0.  No weight is touched and no judge is asked.  A model that never saw
    a class pays more for its images than one that draws them at an ordinary z under another label.

    Args:
        model: The model; it is not changed.
        images: (N, *image_shape) float in [0, 1].
        labels: Class numbers int64: (K,), the same ones for all images, or (N, K).
        steps: Steps of Adam.

    Returns:
        The costs (N, K) in nats, and the z at which they were found, (N, K, Z).

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For images of another shape, range or device, and a class that does not exist.
    """
    check_model(model)
    check_images(images, device=model.device, shape=model.image_shape, dtype=model.dtype)
    check_is(labels, Tensor, "labels")
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and len(labels) != len(images)):
        allowed = f"(K,) or ({len(images)}, K)"
        raise ValueError(f"labels of shape {tuple(labels.shape)} must be {allowed}: class numbers")
    if not labels.numel() or not len(images):
        raise ValueError(f"{len(images)} images and {labels.numel()} labels: give some of both")
    steps = check_whole(steps, "steps")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    labels = labels.expand(len(images), -1)
    n, k = labels.shape
    y = model.label_vectors(labels.flatten())
    x = images.repeat_interleave(k, 0)
    z = torch.zeros(n * k, model.latent_dim, dtype=model.dtype, device=model.device)
    lowest, best = search_latents(lambda z: model.decode_logits(z, y), z, x, steps)
    return lowest.view(n, k), best.view(n, k, -1)


@ordinary_torch()
def search_latents(
    decode: Callable[[Tensor], Tensor], z: Tensor, images: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Go down the cost of each image over its z, by Adam.

    Args:
        decode: z (N, Z) -> logits (N, *image_shape), of a model whose weights have no gradient.
        z: Where the search begins, (N, Z); it is changed.
        images: (N, *image_shape) float in [0, 1].
        steps: Steps of Adam.

    Returns:
        The least cost that was met, (N,) nats, and the z at which it was, (N, Z).
    """
    optimizer = torch.optim.Adam([z.requires_grad_(True)], lr=COST_RATE)
    lowest = z.new_full((len(z),), math.inf)
    best = z.detach().clone()
    for step in range(steps + 1):
        cost = latent_cost(decode(z), z, images)
        with torch.no_grad():
            better = cost < lowest
            best[better] = z[better]
            lowest[better] = cost[better]
        if step < steps:
            (z.grad,) = torch.autograd.grad(cost.sum(), [z])
            optimizer.step()
    return lowest.detach(), best


def _check_search(
    model: CVAE, forget_class: int, config: ProbeConfig, start: Tensor | None, on_step: OnStep
) -> int:
    """Refuse what does not go together, before any work; returns the class as a plain number."""
    check_model(model)
    check_is(config, ProbeConfig, "config")
    if start is not None:
        check_tensor(start, ("R", model.latent_dim), "start", model.device, model.dtype)
        check_values(start, "start", -100, 100)
        if not len(start):
            raise ValueError(f"start of shape {tuple(start.shape)} has no restart: give at least 1")
    if on_step is not None:
        check_callable(on_step, "on_step", "(steps_done) -> bool | None")
    return check_classes((forget_class,), model.num_classes)[0]


@ordinary_torch()
def _search(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig,
    loss: Loss,
    generator: torch.Generator,
    start: Tensor | None,
    on_step: OnStep,
    over: str = "both",
) -> ProbeResult:
    """Adam over z and label of all restarts at once; restarts are sorted by their final loss."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if start is None:
        start = draw_normal((config.n_restarts, model.latent_dim), model, generator)
    z = start.detach().clone()

    # On the simplex the label is softmax(free) of free logits, else the free vector itself.
    simplex = over in ("both", "y")
    free = z.new_zeros((len(z), model.num_classes))
    free[:, forget_class] = LABEL_START if simplex else 1.0

    def label() -> Tensor:
        return free.softmax(1) if simplex else free

    groups = []
    if over in ("both", "z"):
        groups.append({"params": [z.requires_grad_(True)], "lr": config.lr_z})
    if over != "z":
        groups.append({"params": [free.requires_grad_(True)], "lr": config.lr_y})
    optimizer = torch.optim.Adam(groups)
    steps = range(1, config.steps + 1)
    for step in progress(steps, f"probe, {len(z)} restarts", silent=on_step is not None):
        y = label()
        optimizer.zero_grad()
        loss(model.decode(z, y), z, y).sum().backward()
        optimizer.step()
        if z.requires_grad:  # else it stays as it was drawn
            with torch.no_grad():
                z.clamp_(-Z_LIMIT, Z_LIMIT)
        if on_step is not None and is_no(on_step(step)):
            break
    with torch.no_grad():
        y = label()
        images = model.decode(z, y)
        final = loss(images, z, y)
        order = final.argsort()
        return ProbeResult(images[order], z.detach()[order], y[order], final[order])


def attack_success(images: Tensor, judges: Mapping[str, Judge], forget_class: int) -> Tensor:
    """Whether every judge gives the class a probability of at least 0.5.

    Args:
        images: (N, *image_shape) float in [0, 1].
        judges: Judges that score, by role.
        forget_class: The class that was looked for.

    Returns:
        (N,) bool.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: When there is no judge, when one of them guides attacks, for a class that does
            not exist, and for images of another shape, range or device.
    """
    check_judges(judges)
    fewest = min(judge.num_classes for judge in judges.values())
    (c,) = check_classes((forget_class,), fewest)
    votes = [judge.probabilities(images)[:, c] >= CALLED for judge in judges.values()]
    return torch.stack(votes).all(0)


def reachable(z: Tensor) -> Tensor:
    """Whether latents lie where draws from N(0, I) do: |z|^2 below its 99.9 % point.

    What is found farther out is no leak, because no sampler goes there.

    Args:
        z: Latents (R, Z).

    Returns:
        (R,) bool.
    """
    check_tensor(z, ("R", "Z"), "z")
    half = torch.tensor(z.shape[1] / 2, dtype=torch.float64)
    share = torch.special.gammainc(half, z.cpu().double().square().sum(1) / 2)
    inside: Tensor = (share <= PRIOR_SHARE).to(z.device)
    return inside
