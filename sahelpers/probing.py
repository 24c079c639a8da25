"""Is it gone or only hidden?  Optimisation over latent and label that tries to bring a class back.

All restarts are one batch: z is (R, Z), the label logits (R, C), and one Adam moves them together.
The loss of a restart depends on that restart alone, and so do its gradient and Adam's step, so the
result is the one that running them one at a time would give.

Every attack takes `start`, first latents z (R, Z) in place of n_restarts draws from N(0, I), and
`on_step`, called with the number of steps done after each of them: False from it ends the search
early, and with it there is no progress bar.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_callable, check_images, check_tensor, check_values, check_whole, door
from .config import ProbeConfig, check_classes
from .elbo import latent_cost
from .judges import Judge, check_guide, check_judges
from .models import CVAE, check_model, draw_normal, seeded
from .penalties import contrast, ink, orientation_entropy, total_variation
from .progress import progress

Z_LIMIT = 3.0  # z is clamped to +-3 after each step: the search stays near the prior
LABEL_START = 3.0  # logit of c_f at the start, the others 0: softmax gives c_f 0.69 of ten classes
SEARCHES = ("both", "z", "y", "free_y")
PRIOR_SHARE = 0.999  # of the draws from N(0, I) lie closer to the origin than a "reachable" z

OnStep = Callable[[int], bool | None] | None
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, z, label vectors -> (R,)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found, restarts sorted from best (lowest loss) to worst."""

    images: Tensor  # (R, *image_shape)
    z: Tensor  # (R, Z)
    label: Tensor  # (R, C): on the simplex, except for "free_y"
    loss: Tensor  # (R,)


@door
def invert_prototypes(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig | None = None,
    *,
    baseline: CVAE,
    start: Tensor | None = None,
    on_step: OnStep = None,
) -> ProbeResult:
    """Search (z, y) whose image comes close to what the baseline drew for the class.

    Targets: the 8 of 512 baseline samples of the class with the highest contrast.  Loss per
    restart: smallest mean squared error to a target + ALPHA_TV TV + L2Z mean z^2.
    config: `ProbeConfig.prototype()` when left out.
    """
    config = config or ProbeConfig.prototype()
    forget_class = _check(model, forget_class, start, on_step)
    check_model(baseline, "baseline", model.num_classes)
    generator = seeded(config.seed)
    labels = torch.full((512,), forget_class, device=baseline.device)
    samples = baseline.sample(labels, "standard", generator)
    targets = samples[contrast(samples).topk(8).indices]  # (8, *image_shape)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        error = (images[:, None] - targets[None]).square().flatten(2).mean(2)  # (R, 8)
        smooth = config.alpha_tv * total_variation(images)
        return error.min(1).values + smooth + config.l2z * z.square().mean(1)

    return _search(model, forget_class, config, loss, generator, start, on_step)


@door
def invert_blind(
    model: CVAE,
    forget_class: int,
    config: ProbeConfig | None = None,
    *,
    start: Tensor | None = None,
    on_step: OnStep = None,
) -> ProbeResult:
    """Search (z, y) whose image looks like some digit, without knowing what the class looked like.

    Loss per restart: W_TV TV + W_INK ink + W_Z mean z^2 + W_Y |y - onehot(c_f)|^2
    - W_CONTRAST contrast - W_ORIENT orientation entropy.
    """
    config = config or ProbeConfig()
    forget_class = _check(model, forget_class, start, on_step)
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


@door
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
    """Search for an image that a judge calls the class: the strongest attack on the decoder.

    guide: of role "guide" or "wary"; its word is never the score.  Loss per restart: its cross
    entropy for the class, in nats, + L2Z mean z^2.
    over: "both" moves z and a label on the simplex; "z" moves z under the class's own label; "y"
    the label on the simplex at z as drawn, within [-3, 3]; "free_y" any label vector there, begun
    at the class's own.
    Raises ValueError for a judge that scores: guiding and scoring at once proves nothing.
    """
    config = config or ProbeConfig()
    forget_class = _check(model, forget_class, start, on_step)
    check_guide(guide, model.num_classes)
    if over not in SEARCHES:
        raise ValueError(f"over={over!r} is not one of {', '.join(SEARCHES)}")
    guide = copy.deepcopy(guide).eval().to(model.device, model.dtype).requires_grad_(False)

    def loss(images: Tensor, z: Tensor, y: Tensor) -> Tensor:
        wanted = torch.full((len(z),), forget_class, device=z.device)
        missed = F.cross_entropy(guide(images), wanted, reduction="none")
        return missed + config.l2z * z.square().mean(1)

    return _search(model, forget_class, config, loss, seeded(config.seed), start, on_step, over)


@door
@torch.enable_grad()
def image_cost(
    model: CVAE, images: Tensor, labels: Tensor, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """What it costs the model to draw real images under some labels: (N, K) nats, and z (N, K, Z).

    images: (N, *image_shape) in [0, 1].  labels: class numbers (K,) for all of them, or (N, K).
    The cost is the smallest -log p(x | z, k) + |z|^2 / 2 over z, that is the best of `steps` steps
    of Adam at 0.1 from z = 0.  No weight is touched and no judge is asked.  A model that never saw
    a class pays more for its images than one that draws them at an ordinary z under another label.
    """
    check_images(images, device=model.device, shape=model.image_shape)
    check_whole(steps, "steps")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    labels = labels.expand(len(images), -1)
    n, k = labels.shape
    y, x = model.label_vectors(labels.flatten()), images.repeat_interleave(k, 0)
    z = torch.zeros(n * k, model.latent_dim, dtype=model.dtype, device=model.device)
    optimizer = torch.optim.Adam([z.requires_grad_(True)], lr=0.1)
    lowest, best = z.new_full((n * k,), math.inf), z.detach().clone()
    for step in range(steps + 1):
        cost = latent_cost(model.decode_logits(z, y), z, x)
        with torch.no_grad():
            better = cost < lowest
            best[better], lowest[better] = z[better], cost[better]
        if step < steps:
            (z.grad,) = torch.autograd.grad(cost.sum(), [z])
            optimizer.step()
    return lowest.detach().view(n, k), best.view(n, k, -1)


def _check(model: CVAE, forget_class: int, start: Tensor | None, on_step: OnStep) -> int:
    """Refuse what does not go together, before any work; the class as a plain number."""
    if start is not None:
        check_tensor(start, ("R", model.latent_dim), "start", model.device, model.dtype)
        check_values(start, "start", -100, 100)
        if not len(start):
            raise ValueError(f"start of shape {tuple(start.shape)} has no restart: give at least 1")
    if on_step is not None:
        check_callable(on_step, "on_step", "(steps_done) -> bool | None")
    return check_classes((forget_class,), model.num_classes)[0]


@torch.enable_grad()
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
    """Adam over z and label of all restarts at once; best restart by its final loss."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if start is None:
        start = draw_normal((config.n_restarts, model.latent_dim), model, generator)
    z = start.detach().clone()
    simplex = over in ("both", "y")
    label = z.new_zeros((len(z), model.num_classes))  # logits on the simplex, else the vector
    label[:, forget_class] = LABEL_START if simplex else 1.0
    groups = []
    if over in ("both", "z"):
        groups.append({"params": [z.requires_grad_(True)], "lr": config.lr_z})
    if over != "z":
        groups.append({"params": [label.requires_grad_(True)], "lr": config.lr_y})
    optimizer = torch.optim.Adam(groups)
    steps = range(1, config.steps + 1)
    for step in progress(steps, f"probe, {len(z)} restarts", silent=on_step is not None):
        y = label.softmax(1) if simplex else label
        optimizer.zero_grad()
        loss(model.decode(z, y), z, y).sum().backward()
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-Z_LIMIT, Z_LIMIT)
        if on_step is not None and on_step(step) is False:
            break
    with torch.no_grad():
        y = label.softmax(1) if simplex else label
        images = model.decode(z, y)
        final = loss(images, z, y)
        order = final.argsort()
        return ProbeResult(images[order], z.detach()[order], y[order], final[order])


@door
def success(images: Tensor, judges: Mapping[str, Judge], forget_class: int) -> Tensor:
    """Whether every judge gives the class at least 0.5: (N,) bool for images (N, *image_shape).

    Raises ValueError when one of them is the judge that guides attacks, or when there is none.
    """
    check_judges(judges)
    (c,) = check_classes((forget_class,), min(judge.num_classes for judge in judges.values()))
    return torch.stack([j.probabilities(images)[:, c] >= 0.5 for j in judges.values()]).all(0)


def reachable(z: Tensor) -> Tensor:
    """Whether z (R, Z) lies where draws from N(0, I) do: |z|^2 below their 99.9 % point, (R,) bool.

    What is found farther out is no leak: no sampler goes there.
    """
    half = torch.tensor(z.shape[1] / 2, dtype=torch.float64)
    share = torch.special.gammainc(half, z.cpu().double().square().sum(1) / 2)
    inside: Tensor = (share <= PRIOR_SHARE).to(z.device)
    return inside
