"""What the dashboards do, without a widget: settings, their limits, the actions, the worker."""

from .amnesia import AmnesiaController, Frame, Line
from .latent import LatentController, principal_directions
from .probe import ATTACKS, Outcome, ProbeController
from .settings import as_code, help_text, steps_of
from .worker import LOCK, Worker, release_idle_threads
