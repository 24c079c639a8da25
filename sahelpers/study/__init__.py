"""Many runs: every method on every digit and seed, every attack beside its control, in tables."""

from . import battery, grid, methods, report, statistics, workers
from .battery import Effort, audit
from .grid import Grid
from .methods import CONTROL, METHODS, Method
from .report import excess_intervals, read_audit, read_scoreboard
from .statistics import AuditReport, Finding
