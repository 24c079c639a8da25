"""Settings of the tests and of nbval, which finds them for notebooks/ only at the root."""

import os
from pathlib import Path

os.environ["SA_PROGRESS"] = "0"  # a kernel inherits it: live bars would flood nbval's queue
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the Makefile, which says why
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.pop("MPLBACKEND", None)  # a kernel would inherit it and show no figure


def pytest_configure(config):
    """Name the sanitising rules by their whole path: pytest may run in any folder."""
    rules = Path(__file__).parent / "tests" / "nbval_sanitize.cfg"
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(rules)


def pytest_collectstart(collector):
    """Do not compare what no two machines print alike."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml")


def pytest_collection_modifyitems(items):
    """Give a cell's last output a minute instead of nbval's five seconds."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60
