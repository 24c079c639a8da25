"""A model that hides a class and defends itself: the positive control of further training.

In the hidden model of `reset_label` the knowledge of the class is untouched behind the label, and
training the model on brings nothing back.  A *masked* model knows the class by construction as
well, in every layer but the last, but its last layer was trained until the class is expensive.
Training on brings the class back.  An attack after further training that does not find it has no
power.
"""

import copy

import torch

from .checks import check_number, check_whole
from .config import AmnesiaConfig, check_classes, kept_classes
from .fisher import Fisher
from .models import CVAE, check_model, ordinary_torch, reset_label, seeded
from .objective import Objective
from .progress import progress
from .surrogates import make_surrogate

PUSH = 20.0  # nats by which the class shall cost more, unless another number is given
# The same for the digits of MNIST and the default baseline, found on seed 42: so far that by rungs
# 1 and 2 of the ladder they cost at least what they cost in a retrained model.
MNIST_PUSH = {0: 10, 1: 5, 2: 18, 3: 15, 4: 19, 5: 16, 6: 8, 7: 7, 8: 14, 9: 8}
# Whoever changes one of the next three, or the number of steps, raises `amnesia.VERSION`, too, for
# the files of masked models and their rows in the study are told from older ones by it alone.
W_ATTACK = 0.1  # the attacker's weight
RATE = 1e-2  # of Adam at first
COOLDOWN = 150  # steps at the end in which the rate falls to zero


@ordinary_torch()
def masked_model(
    baseline: CVAE,
    forget_class: int,
    *,
    push: float = PUSH,
    steps: int = 474,
    seed: int = 42,
) -> CVAE:
    """Make a model that hides a class behind its decoder's last layer and behind its label.

    Only the weights of the decoder's last layer are trained.  Kept classes are replayed, and the
    attacker of `forget` makes the class expensive under any label.  Then the label is reset.

    Args:
        baseline: The model that knows the class; it is not changed.
        forget_class: The class.
        push: Nats by which the class's images shall cost more than in the baseline.
        steps: Steps of Adam.
        seed: Of latents and labels, and of the attacker.

    Returns:
        The masked model, in evaluation mode.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist and a number out of its range.
    """
    check_model(baseline, "baseline")
    (c,) = check_classes((forget_class,), baseline.num_classes)
    check_number(push, "push", 0, 1e4)
    check_whole(steps, "steps")
    config = mask_config(push, seed)
    frozen = copy.deepcopy(baseline).eval().requires_grad_(False)
    kept = kept_classes(c, baseline.num_classes)
    surrogate = make_surrogate(config.surrogate, frozen, kept, config.gray_value)
    zeros = {name: torch.zeros_like(weight) for name, weight in frozen.named_parameters()}
    no_consolidation = Fisher(zeros, 1, dict.fromkeys(zeros, 0.0), "none")
    objective = Objective(frozen, no_consolidation, (c,), config, surrogate)
    attacker = objective.attacker
    assert attacker is not None  # its weight is more than 0

    model = copy.deepcopy(frozen)
    model.set_class_prior(c)
    last_layer = model.decoder_layers()[-1].requires_grad_(True)
    optimizer = torch.optim.Adam(last_layer.parameters(), lr=RATE)
    generator = seeded(seed)
    for step in progress(range(steps), "mask the class"):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (steps - step) / COOLDOWN)
        batch = objective.draw(config.batch_size, generator)
        with torch.enable_grad():
            terms = objective.terms(model, batch)
            optimizer.zero_grad()
            (terms["replay"] + terms["attack"]).backward()
        optimizer.step()
        attacker.step(model)
    model.requires_grad_(True)
    return reset_label(model, c) if model.says_label else model


def mask_config(push: float, seed: int) -> AmnesiaConfig:
    """The configuration of the terms that mask a class: those of version 3, without forgetting.

    Args:
        push: Nats by which the class's images shall cost more than in the baseline.
        seed: Of latents and labels, and of the attacker.

    Returns:
        The configuration.
    """
    return AmnesiaConfig.version3(
        neg_loss_weight=0.0, ewc_lambda=0.0, w_attack=W_ATTACK, push=push, seed=seed
    )
