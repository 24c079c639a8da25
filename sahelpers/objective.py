"""The loss of forgetting, term by term.

Per image, in nats, with theta* the weights before, c_f forgotten, c_r kept and q the surrogate:

    L(theta) = NEG_LOSS_WEIGHT * forget + GAMMA * replay
             + EWC_LAMBDA / (2 * 10_000) * sum_i F_i (theta_i - theta*_i)^2
             + W_ATTACK * attack + W_CONTRAST * contrast + W_INK * ink
             + W_TV * TV + W_ORIENT * orientation

W_ATTACK is the largest weight of the attack: with a KEPT_BUDGET the weight follows what kept
images pay (`Attacker.follow`).

The official code (Heng & Soh 2023) adds lambda sum_i F_i (theta_i - theta*_i)^2 to a loss summed
over 256 forgotten and 256 replayed images; here its lambda of 100 is EWC_LAMBDA = 7812.5.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .attacker import Attacker
from .checks import check_is
from .config import AmnesiaConfig, check_classes, kept_classes
from .data import LabelledImages, check_fits
from .elbo import bernoulli_nats, negative_elbo
from .fisher import Fisher, check_same_parameters
from .models import CVAE, check_model, draw_normal, seeded
from .penalties import contrast, ink, orientation_entropy, total_variation
from .surrogates import Surrogate, make_surrogate

PURE = 0.75  # with more of one kept label a mixture counts as that label
EWC_SCALE = 10_000  # a constant, so that neither batch size nor replay size changes EWC's strength
DRAWN_AT_ONCE = 1000  # replay images that the frozen model draws at a time
MOST_BYTES = 2**29  # of replay images in memory; where there would be more, each step draws its own
LOOKED_AT = 512  # replay samples by which is measured what kept images pay


@dataclass(frozen=True)
class Batch:
    """What one step sees: F examples to forget and B to keep.

    Attributes:
        forget_z: (F, Z), where the class is forgotten.
        forget_labels: Label vectors (F, K), at or near the forgotten classes' labels.
        forget_images: (F, *image_shape) in [0, 1], drawn from the surrogate.
        forget_noise: (F, Z) standard normal, for the ELBO form.
        keep_z: (B, Z), where the kept images were drawn.
        keep_labels: Label vectors (B, K) of kept classes.
        keep_images: (B, *image_shape) in [0, 1], drawn by the frozen model at keep_z, or real.
        keep_noise: (B, Z) standard normal, for the ELBO form.
    """

    forget_z: Tensor
    forget_labels: Tensor
    forget_images: Tensor
    forget_noise: Tensor
    keep_z: Tensor
    keep_labels: Tensor
    keep_images: Tensor
    keep_noise: Tensor


class Consolidation:
    """Elastic weight consolidation: it holds the weights that matter to the kept classes.

    The penalty, in nats per image, is ewc_lambda / (2 * 10_000) * sum_i F_i (theta_i - theta*_i)^2
    (Kirkpatrick et al. 2017).  Entries of the Fisher below zero, which an unbiased estimate may
    have, count as zero.

    Args:
        fisher: The diagonal Fisher F.
        frozen: The model with the weights theta*.
        ewc_lambda: The weight of the penalty.

    Raises:
        ValueError: For a Fisher of other networks; it names the first parameter that differs.
    """

    def __init__(self, fisher: Fisher, frozen: CVAE, ewc_lambda: float) -> None:
        self.theta_star = {name: p.detach().clone() for name, p in frozen.named_parameters()}
        check_same_parameters(self.theta_star, fisher.diagonal, "the Fisher")
        self.fisher = {}
        for name, diagonal in fisher.diagonal.items():
            self.fisher[name] = diagonal.to(frozen.device).clamp(min=0)
        self.scale = ewc_lambda / EWC_SCALE
        # What the proximal step needs of every parameter: s F and s F theta*.
        self.scaled_fisher = {}
        self.scaled_fisher_times_star = {}
        for name, diagonal in self.fisher.items():
            self.scaled_fisher[name] = self.scale * diagonal
            self.scaled_fisher_times_star[name] = self.scaled_fisher[name] * self.theta_star[name]

    @torch.no_grad()
    def value(self, model: CVAE) -> float:
        """The penalty at a model's weights.

        Args:
            model: A model of the same networks.

        Returns:
            The penalty in nats per image; 0 where no weight moved.
        """
        parts = []
        for name, weight in model.named_parameters():
            squares = (weight - self.theta_star[name]).square()
            parts.append(float((self.fisher[name] * squares).sum()))
        return self.scale / 2 * sum(parts)

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Adam, model: CVAE) -> None:
        """The penalty's part of an Adam step, in closed form (a proximal step).

        Adam has moved theta by the gradient of the other terms.  From there each weight goes on to
        the minimiser of P / (2 lr) (x - theta)^2 + s F / 2 (x - theta*)^2, where P is Adam's own
        preconditioner and s the weight of the penalty.  This is stable at any weight and has the
        same stationary points as adding the penalty to the loss; as a gradient, a huge penalty
        would make Adam shake each weight by the learning rate.

        Args:
            optimizer: The optimiser, after its step.
            model: The model whose weights it has just moved.
        """
        group = optimizer.param_groups[0]
        beta2, eps, lr = group["betas"][1], group["eps"], group["lr"]
        for name, weight in model.named_parameters():
            state = optimizer.state.get(weight)
            if not state:
                continue  # no gradient reached it (the encoder in the decoder form): it is unmoved
            root = math.sqrt(1 - beta2 ** float(state["step"]))  # corrects Adam's running mean
            stiffness = state["exp_avg_sq"].sqrt().mul_(1 / (root * lr)).add_(eps / lr)  # P / lr
            # x = (P / lr theta + s F theta*) / (P / lr + s F), in place
            weight.mul_(stiffness).add_(self.scaled_fisher_times_star[name])
            weight.div_(stiffness.add_(self.scaled_fisher[name]))


class Objective:
    """The loss of one forgetting run: it draws batches and evaluates every weighted term.

    Args:
        frozen: The model before it forgets, with the weights theta*.
        fisher: A diagonal Fisher of that model.
        forget_class: The classes to forget.
        config: The weights and forms of the terms; `AmnesiaConfig()` when left out.
        surrogate: What the classes become; the configuration's when left out.
        real_images: Kept images to replay beside those that the frozen model draws, in the
            proportion of their number to config.replay_samples, one in a step at least; images of
            classes to forget are left out.  The replay term then has the ELBO form, because a real
            image has no z.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, when no class or no real image would be kept,
            and for a Fisher of another architecture.
    """

    def __init__(
        self,
        frozen: CVAE,
        fisher: Fisher,
        forget_class: tuple[int, ...],
        config: AmnesiaConfig | None = None,
        surrogate: Surrogate | None = None,
        real_images: LabelledImages | None = None,
    ) -> None:
        check_model(frozen, "frozen")
        if config is None:
            config = AmnesiaConfig.for_values(math.prod(frozen.image_shape))
        check_is(fisher, Fisher, "fisher", Fisher.hint)
        check_is(config, AmnesiaConfig, "config")
        if surrogate is not None:
            check_is(surrogate, Surrogate, "surrogate", Surrogate.hint)
        if real_images is not None:
            check_is(real_images, LabelledImages, "real_images")
            check_fits(real_images, frozen, "real_images")
        self.frozen = frozen
        self.config = config
        self.forget_class = check_classes(forget_class, frozen.num_classes)
        self.kept = kept_classes(self.forget_class, frozen.num_classes)
        if surrogate is None:
            surrogate = make_surrogate(config.surrogate, frozen, self.kept, config.gray_value)
        self.surrogate = surrogate
        self.ewc = Consolidation(fisher, frozen, config.ewc_lambda)

        self.real: LabelledImages | None = None
        self.replay_form = config.replay_form
        if real_images is not None:
            self.real = real_images.without(self.forget_class).to(frozen.device)
            self.replay_form = "elbo"
            if not len(self.real):
                raise ValueError(f"real_images has no image of the kept classes {self.kept}")
        self.replay = self._draw_replay(seeded(config.seed + 1))  # z, labels and images

        self.attacker: Attacker | None = None
        if config.w_attack:
            self.attacker = Attacker(
                frozen,
                self.forget_class,
                self.surrogate,
                config.w_attack,
                config.push,
                seeded(config.seed + 2),
                config.z_fits,
            )

    @torch.no_grad()
    def _draw_replay(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """z and labels of all replay samples, and their images, which the frozen model draws once.

        The images are left out where they would fill the memory.
        """
        labels = self.labels(self.kept, self.config.replay_samples, generator)
        z = self.latents(labels, generator)
        if 4 * len(z) * math.prod(self.frozen.image_shape) > MOST_BYTES:
            return z, labels, None
        images = []
        for part in range(0, len(z), DRAWN_AT_ONCE):
            chosen = slice(part, part + DRAWN_AT_ONCE)
            images.append(self.frozen.decode(z[chosen], labels[chosen]))
        return z, labels, torch.cat(images)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator, forget: int = 0) -> Batch:
        """Draw the examples of one step.

        Args:
            n: Examples to keep.
            generator: Source of all random numbers.
            forget: Examples to forget; as many when 0.

        Returns:
            The batch.
        """
        forget = forget or n
        # To forget: the surrogate's images at latents of the classes.
        forget_classes = self.labels(self.forget_class, forget, generator)
        forget_z = self.latents(forget_classes, generator, self.config.z_reach)
        forget_images = self.surrogate.draw(forget_z, generator)

        # To keep: what the frozen model has drawn, and real images in their proportion.
        all_z, all_classes, all_images = self.replay
        drawn = torch.randint(len(all_z), (n,), generator=generator)
        keep_z, keep_classes = all_z[drawn], all_classes[drawn]
        if all_images is None:
            keep_images = self.frozen.decode(keep_z, keep_classes)
        else:
            keep_images = all_images[drawn]
        if self.real is not None:
            share = len(self.real) / (len(self.real) + self.config.replay_samples)
            of_real = max(1, round(share * n))
            chosen = torch.randint(len(self.real), (of_real,), generator=generator)
            keep_images[: len(chosen)] = self.real.images[chosen]
            keep_classes[: len(chosen)] = self.real.labels[chosen].to(keep_classes)

        forget_noise = draw_normal((forget, self.frozen.latent_dim), self.frozen, generator)
        keep_noise = draw_normal((n, self.frozen.latent_dim), self.frozen, generator)
        return Batch(
            forget_z=forget_z,
            forget_labels=self.soften(forget_classes, generator),
            forget_images=forget_images,
            forget_noise=forget_noise,
            keep_z=keep_z,
            keep_labels=self.frozen.label_vectors(keep_classes),
            keep_images=keep_images,
            keep_noise=keep_noise,
        )

    def soften(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels at which a class is forgotten: at its own label and on the way to others.

        An attacker who fits a label to a few images starts near the mean of the labels and ends at
        a mixture of them, and would find the class intact there.  So every label moves away from
        its class: those at even places a random share of the way to the mean of the kept
        labels, those at odd places all the way to a mixture of all labels.  config.y_reach
        shortens all ways; at 0 the labels stay.

        Args:
            labels: Numbers of classes to forget, (B,) int64.
            generator: Source of all random numbers.

        Returns:
            Label vectors (B, K), each with the sum 1.
        """
        vectors = self.frozen.label_vectors(labels)
        if not self.config.y_reach:
            return vectors
        mean_of_kept = self.frozen.label_vectors(torch.tensor(self.kept)).mean(0)
        share = torch.rand((len(labels), 1), generator=generator).to(vectors)
        ends = mean_of_kept.repeat(len(labels), 1)
        ends[1::2] = self._mixtures(vectors[1::2], generator)
        share[1::2] = 1
        return torch.lerp(vectors, ends, self.config.y_reach * share)

    def _mixtures(self, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """One random mixture of all labels for each label vector (B, K) of a forgotten class.

        Drawn from Dirichlet(1/2): squares of normal numbers, divided by their sum.  A mixture that
        is almost one kept label gives half of itself to the forgotten one.
        """
        squares = torch.randn(vectors.shape, generator=generator).to(vectors).square()
        mixtures = squares / squares.sum(1, keepdim=True)
        almost_kept = mixtures[:, list(self.kept)].amax(1, keepdim=True) > PURE
        return torch.where(almost_kept, (mixtures + vectors) / 2, mixtures)

    def latents(self, labels: Tensor, generator: torch.Generator, reach: float = 1.0) -> Tensor:
        """Draw z for class numbers: one half from N(0, s^2 I), the other from the class's Gaussian.

        No sampler goes far out, but an attack does, and so does the posterior of a real image that
        the model has forgotten: therefore s is uniform from 1 to `reach`.

        Args:
            labels: Class numbers (B,) int64.
            generator: Source of all random numbers.
            reach: The largest s, in standard deviations of the prior, 1 or more.

        Returns:
            z, (B, Z).
        """
        half = len(labels) // 2
        z = self.frozen.draw_latents(labels, generator=generator)
        scale = 1 + (reach - 1) * torch.rand((half, 1), generator=generator).to(z)
        z[:half] = scale * self.frozen.draw_latents(labels[:half], "standard", generator)
        return z

    def terms(self, model: CVAE, batch: Batch, attacked: CVAE | None = None) -> dict[str, Tensor]:
        """Every term of the loss, weighted: the mean over the batch, nats per image.

        Consolidation is not among them: `ewc` gives its value, and `forget` applies it in closed
        form.

        Args:
            model: The model that is forgetting.
            batch: What `draw` gave.
            attacked: The model that the attacker meets, a `Shadow`'s; `model` when left out.

        Returns:
            Name of the term -> its value, a tensor () with a graph to the model's weights (of
            "attack" to those of `attacked`): "forget" and "replay", "attack" if there is an
            attacker, and every penalty with a weight above zero ("contrast", "ink", "tv",
            "orient").
        """
        config = self.config
        forget, replay = self._forget_and_replay(model, batch)
        terms = {
            "forget": config.neg_loss_weight * forget.mean(),
            "replay": config.gamma * replay.mean(),
        }
        if self.attacker is not None:
            terms["attack"] = self.attacker.loss(model if attacked is None else attacked)
        if config.w_contrast or config.w_ink or config.w_tv or config.w_orient:
            images = model.decode(batch.forget_z, batch.forget_labels)
            target = self.surrogate.mean(batch.forget_z)
            if config.w_contrast:
                terms["contrast"] = config.w_contrast * contrast(images, target).mean()
            if config.w_ink:
                level = target.flatten(1).mean(1)
                terms["ink"] = config.w_ink * ink(images, level).mean()
            if config.w_tv:
                terms["tv"] = config.w_tv * total_variation(images).mean()
            if config.w_orient:
                terms["orient"] = config.w_orient * orientation_entropy(images).mean()
        return terms

    def replay_loss(self, model: CVAE, batch: Batch, first: int = 0) -> Tensor:
        """The mean loss of the images to keep, without its weight.

        Args:
            model: The model, or a shadow of it.
            batch: What `draw` gave.
            first: How many of them count; all when 0.

        Returns:
            A tensor (), nats per image, with a graph to the model's weights.
        """
        keep = batch.keep_z, batch.keep_labels, batch.keep_images, batch.keep_noise
        counted = (part[: first or len(part)] for part in keep)
        return _loss(model, self.replay_form, *counted).mean()

    def _forget_and_replay(self, model: CVAE, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses of the examples to forget, (F,), and to keep, (B,), without weights."""
        forget = batch.forget_z, batch.forget_labels, batch.forget_images, batch.forget_noise
        keep = batch.keep_z, batch.keep_labels, batch.keep_images, batch.keep_noise
        if self.config.forget_form != self.replay_form:
            forget_loss = _loss(model, self.config.forget_form, *forget)
            return forget_loss, _loss(model, self.replay_form, *keep)
        # The same form: both go through the network in one pass.
        together = [torch.cat(pair) for pair in zip(forget, keep, strict=True)]
        losses = _loss(model, self.replay_form, *together)
        return losses[: len(batch.forget_z)], losses[len(batch.forget_z) :]

    @cached_property
    @torch.no_grad()
    def _looked_at(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """z, labels and images of the replay samples that `paid` asks for, and what they cost.

        They are the first of the replay, whose z come from N(0, I).
        """
        z, labels = (part[:LOOKED_AT] for part in self.replay[:2])
        logits = self.frozen.decode_logits(z, labels)
        images = logits.sigmoid()
        return z, labels, images, float(bernoulli_nats(logits, images).mean())

    @torch.no_grad()
    def paid(self, model: CVAE) -> float:
        """What kept images pay for the forgetting.

        Args:
            model: The model that is forgetting.

        Returns:
            Nats by which -log p(x | z) of a replayed image has risen, the mean over 512 of them
            with z from N(0, I): the Kullback-Leibler divergence between what the frozen model draws
            and what this does.
        """
        z, labels, images, before = self._looked_at
        return float(bernoulli_nats(model.decode_logits(z, labels), images).mean()) - before

    @torch.no_grad()
    def distance(self, model: CVAE, z: Tensor, labels: Tensor) -> float:
        """How far the images of the forgotten classes still are from the surrogate's.

        Args:
            model: The model that is forgetting.
            z: Latents (B, Z).
            labels: Numbers of classes to forget, (B,) int64.

        Returns:
            The root mean square difference of the pixels, in gray levels.
        """
        difference = model.decode(z, labels) - self.surrogate.mean(z)
        return float(difference.square().mean().sqrt())

    @staticmethod
    def labels(classes: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
        """Draw class numbers at random, with repeats.

        Args:
            classes: The classes to draw from.
            n: How many numbers.
            generator: Source of all random numbers.

        Returns:
            Class numbers (n,) int64.
        """
        return torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]


def _loss(model: CVAE, form: str, z: Tensor, y: Tensor, images: Tensor, noise: Tensor) -> Tensor:
    """The loss of each image, (B,), under a form.

    "decoder" is -log p(images | z) in nats; "elbo" the negative ELBO in nats; "l1" the mean
    absolute difference of the pixels at z, in gray levels.
    """
    if form == "l1":
        return (model.decode(z, y) - images).abs().flatten(1).mean(1)
    if form == "decoder":
        return bernoulli_nats(model.decode_logits(z, y), images)
    return negative_elbo(model, images, y, noise)
