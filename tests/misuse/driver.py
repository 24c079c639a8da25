"""A notebook's cells, run in a real kernel in whatever order a reader may choose."""

import gzip
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import torch
from jupyter_core.utils import ensure_event_loop
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from torchvision import datasets

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.store.files import Recipe, load

SMALL = {"EPOCHS": "40", "BATCH_SIZE": "20", "LATENT_DIM": "3", "PER_CLASS": "50"}
CONFIG = sa.BaselineConfig(epochs=40, batch_size=20, latent_dim=3)
N_TRAIN, N_TEST = 600, 200


class Refused(Exception):
    """A cell failed; says the error's type and its words."""


class Kernel(NotebookClient):
    """Runs sources one by one; can be sent a signal a while after a progress bar appeared."""

    strike = None  # (words in the bar, seconds after it, signal)

    def process_message(self, msg, cell, cell_index):
        """Start the clock when the awaited progress bar is seen."""
        if self.strike is not None and self.strike[0] in json.dumps(msg["content"], default=str):
            (_, delay, sign), self.strike = self.strike, None
            threading.Timer(delay, os.kill, (self.km.provisioner.pid, sign)).start()
        return super().process_message(msg, cell, cell_index)

    def run(self, *sources):
        """Run cells; returns what they printed, raises Refused where one fails."""
        printed = ""
        for source in sources:
            cell = nbformat.v4.new_code_cell(source)
            self.nb.cells.append(cell)
            try:
                self.execute_cell(cell, len(self.nb.cells) - 1)
            except CellExecutionError as error:
                raise Refused(f"{error.ename}: {error.evalue}") from None
            printed += "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        return printed


class Checkout:
    """A copy of the repository with little data, in a folder with spaces and umlauts."""

    def __init__(self, parent):
        self.root = Path(parent) / "Übung fürs Löschen"
        self.checkpoints = self.root / "checkpoints"
        self.elsewhere = self.root / "elsewhere"  # a working folder beside notebooks/
        for folder in (self.checkpoints, self.elsewhere):
            folder.mkdir(parents=True)
        for part in ("sahelpers", "notebooks", "docs", "study"):  # a clone is known by the last
            shutil.copytree(CHECKOUT / part, self.root / part)
        shutil.copy(CHECKOUT / "pyproject.toml", self.root)
        self.files = _write_mnist(self.root / "data" / "MNIST" / "raw")
        train, test = small_data()
        data = {"train": train.digest, "test": test.digest}
        name = Recipe("vae_baseline", 0, (CONFIG,), data).path.name  # of any version
        self.path = self.checkpoints / name

    def cells(self, name="01_baseline", until=None):
        """The sources of a notebook's code cells with small parameters, up to one with `until`."""
        knob = re.compile(rf"^( *)({'|'.join(SMALL)})( ?= ?)[^,# \n]+", re.MULTILINE)
        sources = []
        for cell in jupytext.read(self.root / "notebooks" / f"{name}.py").cells:
            if cell.cell_type == "code":
                sources.append(knob.sub(lambda m: m[1] + m[2] + m[3] + SMALL[m[2]], cell.source))
                if until is not None and until in cell.source:
                    break
        return sources

    @contextmanager
    def kernel(self, name="python3", cwd=None):
        """A fresh kernel that works on this copy; its working folder is notebooks/ or cwd."""
        client = Kernel(
            nbformat.v4.new_notebook(),
            timeout=600,
            kernel_name=name,
            store_widget_state=False,
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
        mine = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        away = ("SA_DATA", "SA_CHECKPOINTS", "SA_PROGRESS")
        env = {k: v for k, v in os.environ.items() if k not in away} | mine
        try:
            with client.setup_kernel(cwd=str(cwd or self.root / "notebooks"), env=env):
                client.run(f"import torchvision as t; t.datasets.MNIST.resources = {self.files}")
                yield client
        finally:
            ensure_event_loop().close()  # nbclient opens one in each thread and leaves it open

    def model(self):
        """The tensors of the baseline that is kept."""
        return load(self.path)[0]["model"]["tensors"]


def _write_mnist(raw):
    """Write real digits as MNIST's four files; returns their names and MD5 sums."""
    raw.mkdir(parents=True)
    contents = []
    for part in small_data():
        pixels = (part.images * 255).round().byte().numpy()[:, 0]
        for values in (pixels, part.labels.byte().numpy()):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            contents.append(gzip.compress(head + values.tobytes()))
    files = []
    for (address, _), packed in zip(datasets.MNIST.resources, contents, strict=True):
        (raw / address.rsplit("/", 1)[-1]).write_bytes(packed)
        files.append((address, hashlib.md5(packed).hexdigest()))
    return files


def small_data():
    """The training and the test images that the copies hold."""
    data = sa.load_dataset(split="test")
    return [
        sa.LabelledImages(data.images[part], data.labels[part])
        for part in (slice(0, N_TRAIN), slice(N_TRAIN, N_TRAIN + N_TEST))
    ]


def undisturbed():
    """The tensors of the baseline, trained here without a notebook, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train, test = small_data()
    state = sa.train_baseline(train, test, CONFIG).to_state()
    torch.set_num_threads(threads)
    return state["model"]["tensors"]


def same(one, other):
    """Whether two models are the same to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def powerless(folder):
    """A kernel's name, in JUPYTER_PATH folder, that obeys permissions even when we are root."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *argv]
    home = Path(folder) / "kernels" / "powerless"
    home.mkdir(parents=True)
    spec = {"argv": argv, "display_name": "powerless", "language": "python"}
    (home / "kernel.json").write_text(json.dumps(spec))
    return home.name
