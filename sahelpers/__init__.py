"""Selective Amnesia on a conditional VAE: `import sahelpers as sa` gives every public name."""

from . import controllers, plots, plots_probing, results, widgets
from .amnesia import AmnesiaResult, forget
from .audit import AuditConfig, AuditReport, audit
from .audit_grid import read_audit
from .checkpoints import CheckpointError, checkpoint_path, load, load_or_make, save
from .competitors import METHODS, Task
from .config import (
    AmnesiaConfig,
    BaselineConfig,
    FisherConfig,
    JudgeConfig,
    ProbeConfig,
    check_classes,
    fingerprint,
)
from .data import DataError, LabelledImages, class_names, load_dataset
from .denoising import choose_weight, denoise_tv, sure
from .elbo import (
    bernoulli_nats,
    elbo_terms,
    gaussian_kl,
    iwae,
    log_likelihood,
    negative_elbo,
)
from .evaluation import (
    Latents,
    Verdict,
    collateral,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
    stretch_contrast,
)
from .fisher import ClassFishers, Fisher, class_fishers, diagonal_fisher
from .gradients import squared_gradients
from .judges import Judge
from .measures import Effort
from .models import CVAE, default_device, seeded
from .objective import Objective
from .penalties import contrast, ink, orientation_entropy, total_variation
from .probing import (
    ProbeResult,
    any_of,
    guided_attack,
    invert_blind,
    invert_prototypes,
    reachable,
    success,
)
from .recovery import RecoveryCurve, relearn, reset_label
from .scoreboard import Scoreboard
from .story import get_baseline, get_control, get_fishers, get_forgotten, get_judges
from .surrogates import make_surrogate
from .table import read_scoreboard
from .traces import (
    activations,
    cka,
    label_bounds,
    label_walk,
    linear_probe,
    membership_auc,
    round_trip,
)
from .training import TrainedCVAE, retrain_without, train_baseline, train_judge

__version__ = "0.1.0"
