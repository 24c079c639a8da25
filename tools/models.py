"""Train what ships in checkpoints/shipped/ anew: `make models`, minutes."""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import sahelpers as sa
from sahelpers.store import files

NEEDS_NONE = ("baseline", "retrained", "open_set", "closed_set", "guide")  # made from images alone


def train_alone() -> None:
    """Train the story's models of NEEDS_NONE that are missing, one per core at once."""
    jobs = min(len(NEEDS_NONE), os.cpu_count() or 1)
    print(f"training {', '.join(NEEDS_NONE)}, {jobs} at once: minutes", flush=True)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,))
    with pool:
        running = {pool.submit(train, name): name for name in NEEDS_NONE}
        for done in as_completed(running):
            print(f"{running[done]}: {done.result():.0f} s", flush=True)


def train(name: str) -> float:
    """Seconds that the story's model of this name takes; a judge is named by its role."""
    os.environ["SA_PROGRESS"] = "0"
    begin, story = time.perf_counter(), sa.Story()
    if name == "baseline":
        story.baseline  # noqa: B018
    elif name == "retrained":
        story.retrained(3)
    else:
        story.judge(name)
    return time.perf_counter() - begin


def write_models() -> None:
    """Make what ships in checkpoints/shipped/ from nothing, each on one thread, and replace it."""
    torch.set_num_threads(1)
    shipped = files.SHIPPED
    shipped.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=shipped.parent) as folder:
        os.environ |= {"SA_CHECKPOINTS": folder, "SA_SHIPPED": folder}  # nothing that is there
        files.SHIPPED = Path(folder)
        train_alone()
        story = sa.Story()
        story.forgotten(3)
        story.masked(3)
        made = sorted(set(files.SHIPPED.glob("*.pt")) - set(files.SHIPPED.glob("fisher*")))
        for path in made:
            os.replace(path, shipped / path.name)
            print(f"{path.name}: {(shipped / path.name).stat().st_size / 1e6:.1f} MB")
    for old in set(shipped.glob("*.pt")) - {shipped / path.name for path in made}:
        old.unlink()  # of another recipe: the names carry the recipes' fingerprints


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no typing errors
    write_models()
