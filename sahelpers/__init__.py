"""Selective Amnesia on a conditional VAE: `import sahelpers as sa` gives every public name.

The dashboards are a package of their own, `from sahelpers import live`.
"""

from . import plots
from .amnesia import AmnesiaResult, forget
from .attacks.audit import audit
from .attacks.gate import Gate, can_be_judged
from .attacks.ladder import Ladder, LadderConfig
from .attacks.latent import (
    ProbeResult,
    attack_success,
    guided_attack,
    image_cost,
    invert_blind,
    invert_prototypes,
    reachable,
)
from .attacks.verdicts import AuditReport, Finding, excess_intervals, in_words
from .attacks.weights import RecoveryCurve, fit_label, heal, relearn
from .config import (
    AmnesiaConfig,
    BaselineConfig,
    FisherConfig,
    JudgeConfig,
    ProbeConfig,
    check_classes,
    kept_classes,
)
from .data import DataError, LabelledImages, load_dataset
from .denoising import choose_weight, denoise_tv, sure
from .elbo import (
    dataset_negative_elbo,
    elbo_terms,
    iwae_bound,
    label_bounds,
    negative_elbo,
)
from .fisher import ClassFishers, Fisher, class_fishers, diagonal_fisher, squared_gradients
from .judges import (
    Judge,
    Latents,
    Verdict,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
    retained_accuracy,
)
from .masked import masked_model
from .models import CVAE, default_device, interpolate_labels, reconstruct, reset_label, seeded
from .objective import Objective
from .penalties import contrast, ink, orientation_entropy, total_variation
from .store import CheckpointError
from .story import Story
from .surrogates import make_surrogate
from .training import TrainedCVAE, from_official, to_official, train_baseline, train_judge

__version__ = "1.0.0"
__all__ = [
    "CVAE",
    "AmnesiaConfig",
    "AmnesiaResult",
    "AuditReport",
    "BaselineConfig",
    "CheckpointError",
    "ClassFishers",
    "DataError",
    "Finding",
    "Fisher",
    "FisherConfig",
    "Gate",
    "Judge",
    "JudgeConfig",
    "LabelledImages",
    "Ladder",
    "LadderConfig",
    "Latents",
    "Objective",
    "ProbeConfig",
    "ProbeResult",
    "RecoveryCurve",
    "Story",
    "TrainedCVAE",
    "Verdict",
    "attack_success",
    "audit",
    "can_be_judged",
    "check_classes",
    "choose_weight",
    "class_fishers",
    "contrast",
    "dataset_negative_elbo",
    "default_device",
    "denoise_tv",
    "diagonal_fisher",
    "draw_images",
    "elbo_terms",
    "excess_intervals",
    "fit_label",
    "fixed_latents",
    "forget",
    "frechet_distance",
    "from_official",
    "guided_attack",
    "heal",
    "image_cost",
    "in_words",
    "ink",
    "interpolate_labels",
    "invert_blind",
    "invert_prototypes",
    "iwae_bound",
    "judge_samples",
    "kept_classes",
    "label_bounds",
    "load_dataset",
    "make_surrogate",
    "masked_model",
    "negative_elbo",
    "orientation_entropy",
    "plots",
    "reachable",
    "reconstruct",
    "relearn",
    "reset_label",
    "retained_accuracy",
    "seeded",
    "squared_gradients",
    "sure",
    "to_official",
    "total_variation",
    "train_baseline",
    "train_judge",
]
