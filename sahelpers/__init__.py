"""Selective Amnesia on a conditional VAE: `import sahelpers as sa` gives every public name.

`sa.study` (many runs in tables) and `sa.live` (the dashboards) are loaded when they are first used.
"""

import importlib
import os
from types import ModuleType

# Before torch is loaded: its threads shall sleep when they have waited for a moment.  By default
# they spin, and beside another busy process a training then takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from . import plots
from .amnesia import AmnesiaResult, forget
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
from .elbo import elbo_terms, label_bounds, log_likelihood, measure_elbo, negative_elbo
from .fisher import ClassFishers, Fisher, class_fishers, diagonal_fisher
from .gradients import squared_gradients
from .judges import (
    Judge,
    Latents,
    Verdict,
    collateral,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
)
from .models import CVAE, default_device, interpolate_labels, reconstruct, seeded
from .objective import Objective
from .penalties import contrast, ink, orientation_entropy, total_variation
from .probing import guided_attack, image_cost, invert_blind, invert_prototypes, reachable, success
from .recovery import fit_label, relearn, reset_label
from .store import CheckpointError
from .story import Story
from .surrogates import make_surrogate
from .training import TrainedCVAE, train_baseline

__version__ = "0.2.0"
# The public names, beside the modules `study` and `live`.
__all__ = """
CVAE AmnesiaConfig AmnesiaResult BaselineConfig CheckpointError ClassFishers DataError Fisher
FisherConfig Judge JudgeConfig LabelledImages Latents Objective ProbeConfig Story TrainedCVAE
Verdict check_classes choose_weight class_fishers collateral contrast default_device denoise_tv
diagonal_fisher draw_images elbo_terms fit_label fixed_latents forget frechet_distance
guided_attack image_cost ink interpolate_labels invert_blind invert_prototypes judge_samples
kept_classes label_bounds load_dataset log_likelihood make_surrogate measure_elbo negative_elbo
orientation_entropy plots reachable reconstruct relearn reset_label seeded
squared_gradients success sure total_variation train_baseline
""".split()  # noqa: SIM905


def __getattr__(name: str) -> ModuleType:
    """Load a shelf when it is first asked for."""
    if name in ("study", "live"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
