"""Many runs: every method on every digit and seed, every attack beside its control, in tables."""

from . import battery, grid, methods, report, scores, statistics, verdicts, workers
from .battery import Claim, Effort
from .grid import Grid
from .methods import CONTROL, METHODS, Method
from .report import excess_intervals, read_audit, read_scoreboard
from .statistics import AuditReport, Finding
from .verdicts import audit, claim
