"""The loss of forgetting, term by term.

Per image, in nats, with theta* the weights before, c_f forgotten, c_r kept and q the surrogate:

    L(theta) = NEG_LOSS_WEIGHT * forget + GAMMA * replay
             + EWC_LAMBDA / (2 * 10_000) * sum_i F_i (theta_i - theta*_i)^2
             + W_ATTACK * attack + W_CONTRAST * contrast + W_INK * ink
             + W_TV * TV + W_ORIENT * orientation

The official code (Heng & Soh 2023) adds lambda sum_i F_i (theta_i - theta*_i)^2 to a loss summed
over 256 forgotten and 256 replayed images; here its lambda of 100 is EWC_LAMBDA = 7812.5.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .attacker import Attacker
from .checks import door
from .config import AmnesiaConfig, check_classes, kept_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, negative_elbo
from .fisher import Fisher, check_same_parameters
from .models import CVAE, draw_normal, seeded
from .penalties import contrast, ink, orientation_entropy, total_variation
from .surrogates import Surrogate, make_surrogate

PURE = 0.75  # with more of one kept label a mixture counts as that label
EWC_SCALE = 10_000  # a constant, so that neither batch size nor replay size changes EWC's strength


@dataclass(frozen=True)
class Batch:
    """What one step sees: B forgotten and B kept examples, with their noise for the ELBO form."""

    forget_z: Tensor  # (B, Z)
    forget_labels: Tensor  # label vectors (B, C)
    forget_images: Tensor  # (B, *image_shape) drawn from the surrogate
    forget_noise: Tensor  # (B, Z)
    keep_z: Tensor
    keep_labels: Tensor  # label vectors (B, C)
    keep_images: Tensor  # drawn by the frozen model at keep_z, or real
    keep_noise: Tensor


class Consolidation:
    """Elastic weight consolidation (Kirkpatrick et al. 2017), nats per image:

    ewc_lambda / (2 * 10_000) * sum_i F_i (theta_i - theta*_i)^2, with theta* the weights of frozen.
    Entries of the Fisher below zero, which an unbiased estimate may have, count as zero.
    Raises ValueError naming the first parameter that the Fisher does not fit.
    """

    def __init__(self, fisher: Fisher, frozen: CVAE, ewc_lambda: float) -> None:
        self.star = {k: p.detach().clone() for k, p in frozen.named_parameters()}
        check_same_parameters(self.star, fisher.diagonal, "the Fisher")
        self.fisher = {k: f.to(frozen.device).clamp(min=0) for k, f in fisher.diagonal.items()}
        self.scale = ewc_lambda / EWC_SCALE
        self.pull = {k: self.scale * f for k, f in self.fisher.items()}  # s F, and s F theta*
        self.anchor = {k: f * self.star[k] for k, f in self.pull.items()}

    @torch.no_grad()
    def value(self, model: CVAE) -> float:
        """The penalty at the model's weights."""
        parts = (
            float((self.fisher[k] * (p - self.star[k]).square()).sum())
            for k, p in model.named_parameters()
        )
        return self.scale / 2 * sum(parts)

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Adam, model: CVAE) -> None:
        """The penalty's part of an Adam step, in closed form (a proximal step).

        Adam moved theta by the other terms; this goes on to the minimiser of
        P/(2 lr) (x - theta)^2 + s F/2 (x - theta*)^2 with Adam's own preconditioner P.  It is
        stable at any weight and has the same stationary points as adding the penalty to the loss.
        (As a gradient, a huge penalty would make Adam shake each weight by the learning rate.)
        """
        group = optimizer.param_groups[0]
        beta, eps, lr = group["betas"][1], group["eps"], group["lr"]
        for name, p in model.named_parameters():
            state = optimizer.state.get(p)
            if not state:
                continue  # no gradient reached it (the encoder in the decoder form): unmoved
            root = math.sqrt(1 - beta ** float(state["step"]))
            stiffness = state["exp_avg_sq"].sqrt().mul_(1 / (root * lr)).add_(eps / lr)  # P / lr
            pull, anchor = self.pull[name], self.anchor[name]
            p.mul_(stiffness).add_(anchor).div_(stiffness.add_(pull))


class Objective:
    """The loss of one forgetting run: draws batches and evaluates every weighted term.

    frozen: the model before, theta*.  surrogate: what the class becomes; the configuration's when
    left out.  real_images: kept images to replay beside the frozen model's, in the proportion of
    their number to config.replay_samples; the replay term then has the ELBO form, since a real
    image comes without a z.
    """

    @door
    def __init__(
        self,
        frozen: CVAE,
        fisher: Fisher,
        forget_class: tuple[int, ...],
        config: AmnesiaConfig | None = None,
        surrogate: Surrogate | None = None,
        real_images: LabelledImages | None = None,
    ) -> None:
        config = AmnesiaConfig() if config is None else config
        self.frozen, self.config = frozen, config
        self.forget_class = check_classes(forget_class, frozen.num_classes)
        self.kept = kept_classes(self.forget_class, frozen.num_classes)
        named = config.surrogate, frozen, self.kept, config.gray_value
        self.surrogate = surrogate or make_surrogate(*named)
        self.ewc = Consolidation(fisher, frozen, config.ewc_lambda)
        self.replay_form = config.replay_form if real_images is None else "elbo"
        self.real = None
        if real_images is not None:
            self.real = real_images.without(self.forget_class).to(frozen.device)
            if not len(self.real):
                raise ValueError(f"real_images has no image of the kept classes {self.kept}")
        self.replay = self._draw_replay(seeded(config.seed + 1))
        self.attacker = None
        if config.w_attack:
            given = self.surrogate, config.w_attack, config.push, seeded(config.seed + 2)
            self.attacker = Attacker(frozen, self.forget_class, *given)

    @torch.no_grad()
    def _draw_replay(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """z, labels and images of all replay samples: the frozen model draws them once."""
        labels = self.labels(self.kept, self.config.replay_samples, generator)
        z = self.latents(labels, generator)
        parts = zip(z.split(1000), labels.split(1000), strict=True)
        return z, labels, torch.cat([self.frozen.decode(*part) for part in parts])

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n forgotten and n kept examples."""
        forget_labels = self.labels(self.forget_class, n, generator)
        forget_z = self.latents(forget_labels, generator, self.config.z_reach)
        images = self.surrogate.draw(forget_z, generator)
        drawn = torch.randint(len(self.replay[0]), (n,), generator=generator)
        keep_z, keep_labels, keep_images = (part[drawn] for part in self.replay)
        if self.real is not None:
            share = len(self.real) / (len(self.real) + self.config.replay_samples)
            index = torch.randint(len(self.real), (round(share * n),), generator=generator)
            keep_images[: len(index)] = self.real.images[index]
            keep_labels[: len(index)] = self.real.labels[index].to(keep_labels)
        shape = (n, self.frozen.latent_dim)
        noise = [draw_normal(shape, self.frozen, generator) for _ in range(2)]
        soft, plain = self.soften(forget_labels, generator), self.frozen.label_vectors(keep_labels)
        return Batch(forget_z, soft, images, noise[0], keep_z, plain, keep_images, noise[1])

    def soften(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Label vectors (B, C) of classes (B,), moved a random share, up to y_reach, of the way to
        the mean of the kept labels (every second one) or to a mixture of all labels.

        Whoever fits a label of his own to a few images starts near the mean and ends at a mixture,
        and would find the class intact there.
        """
        vectors = self.frozen.label_vectors(labels)
        if not self.config.y_reach:
            return vectors
        mean = self.frozen.label_vectors(torch.tensor(self.kept)).mean(0)
        share = torch.rand((len(labels), 1), generator=generator).to(vectors)
        ends = mean.repeat(len(labels), 1)
        ends[1::2], share[1::2] = self._mixtures(vectors[1::2], generator), 1
        return torch.lerp(vectors, ends, self.config.y_reach * share)

    def _mixtures(self, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """Draws from Dirichlet(1/2) over all labels (squares of normal numbers, divided by their
        sum), one for each of the forgotten labels' vectors (B, C): a draw that is almost one kept
        label gives half of itself to the forgotten one."""
        squares = torch.randn(vectors.shape, generator=generator).to(vectors).square()
        y = squares / squares.sum(1, keepdim=True)
        pure = y[:, list(self.kept)].amax(1, keepdim=True) > PURE
        return torch.where(pure, (y + vectors) / 2, y)

    def latents(self, labels: Tensor, generator: torch.Generator, reach: float = 1.0) -> Tensor:
        """z for these labels (B,): one half from the class's Gaussian, the other from N(0, s^2 I).

        s is uniform from 1 to reach.  Far out no sampler goes, but an attack does, and so does the
        posterior of a real image that the model has forgotten.
        """
        half = len(labels) // 2
        z = self.frozen.draw_latents(labels, generator=generator)
        scale = 1 + (reach - 1) * torch.rand((half, 1), generator=generator).to(z)
        z[:half] = scale * self.frozen.draw_latents(labels[:half], "standard", generator)
        return z

    def terms(self, model: CVAE, batch: Batch) -> dict[str, Tensor]:
        """Both terms and every penalty with a weight above zero, weighted: the mean per image.

        EWC is not among them: `ewc` gives its value, and `forget` applies it in closed form.
        """
        c, b = self.config, batch
        gone = b.forget_z, b.forget_labels, b.forget_images, b.forget_noise
        kept = b.keep_z, b.keep_labels, b.keep_images, b.keep_noise
        if c.forget_form == self.replay_form:  # one pass through the network for both
            both = [torch.cat(pair) for pair in zip(gone, kept, strict=True)]
            forget, replay = _loss(model, c.forget_form, *both).chunk(2)
        else:
            forget = _loss(model, c.forget_form, *gone)
            replay = _loss(model, self.replay_form, *kept)
        out = {"forget": c.neg_loss_weight * forget.mean(), "replay": c.gamma * replay.mean()}
        if self.attacker is not None:
            out["attack"] = self.attacker.loss(model)
        if c.w_contrast or c.w_ink or c.w_tv or c.w_orient:
            images = model.decode(batch.forget_z, batch.forget_labels)
            target = self.surrogate.mean(batch.forget_z)
            if c.w_contrast:
                out["contrast"] = c.w_contrast * contrast(images, target).mean()
            if c.w_ink:
                out["ink"] = c.w_ink * ink(images, target.flatten(1).mean(1)).mean()
            if c.w_tv:
                out["tv"] = c.w_tv * total_variation(images).mean()
            if c.w_orient:
                out["orient"] = c.w_orient * orientation_entropy(images).mean()
        return out

    @torch.no_grad()
    def distance(self, model: CVAE, z: Tensor, labels: Tensor) -> float:
        """Root mean square difference of c_f's images to the surrogate's at these latents."""
        return float((model.decode(z, labels) - self.surrogate.mean(z)).square().mean().sqrt())

    @staticmethod
    def labels(classes: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
        """n labels of these classes, drawn at random."""
        return torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]


def _loss(model: CVAE, form: str, z: Tensor, y: Tensor, images: Tensor, noise: Tensor) -> Tensor:
    """Loss of each image, (B,), under a form.

    "decoder": -log p(images | z), nats; "elbo": negative ELBO, nats; "l1": mean absolute difference
    of the pixels at z, in gray levels.
    """
    if form == "l1":
        return (model.decode(z, y) - images).abs().flatten(1).mean(1)
    if form == "decoder":
        return bernoulli_nats(model.decode_logits(z, y), images)
    return negative_elbo(model, images, y, noise)
