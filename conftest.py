"""Settings of nbval; it finds them for notebooks/ only when they stand at the root."""

import os

os.environ["SA_PROGRESS"] = "0"  # a kernel inherits it: live bars would flood nbval's queue
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def pytest_collectstart(collector):
    """Do not compare what no two machines print alike."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml")


def pytest_collection_modifyitems(items):
    """Give a cell's last output a minute instead of nbval's five seconds."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60
