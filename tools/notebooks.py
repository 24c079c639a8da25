"""Execute every .py twin from a clean start and write its .ipynb: `make notebooks`.

One by name: `python tools/notebooks.py 03_amnesia`.
"""

import argparse
import logging
import os
import time
from asyncio import CancelledError
from pathlib import Path

import jupytext
import nbformat
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from tqdm import tqdm

from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

NOTEBOOKS = CHECKOUT / "notebooks"
INLINE = "module://matplotlib_inline.backend_inline"  # draws into the notebook


def execute(twin: Path) -> nbformat.NotebookNode:
    """Run a py:percent notebook from top to bottom in a fresh kernel.

    Raises if a cell fails, RuntimeError if a notebook that draws ends without a picture, and
    KeyboardInterrupt on Ctrl-C.
    """
    notebook: nbformat.NotebookNode = jupytext.read(twin, config=load_jupytext_config(str(twin)))
    for k, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{k:02d}"  # the same at every execution, for readable diffs
    client = NotebookClient(
        notebook,
        timeout=3600,
        resources={"metadata": {"path": str(twin.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
    )
    try:
        with tqdm(total=len(notebook.cells), desc=twin.stem, unit="cell", disable=None) as bar:
            client.on_cell_executed = lambda **_: bar.update()
            client.execute(env={**os.environ, "MPLBACKEND": INLINE})
    except (AssertionError, CancelledError) as error:
        if isinstance(error, AssertionError) and client.km is not None:
            raise
        logging.getLogger("asyncio").disabled = True  # it would list what nbclient left undone
        raise KeyboardInterrupt from None  # whose handler in nbclient has let go of the kernel
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [kind for cell in cells for output in cell.outputs for kind in output.get("data", {})]
    draws = any(word in cell.source for cell in cells for word in ("plt.show", "plots."))
    if draws and not any(kind.startswith("image/") for kind in kinds):
        raise RuntimeError(
            f"{twin.name} draws, but no picture came out of it: install matplotlib-inline, and let "
            "no cell choose another backend"
        )
    return notebook


def write_notebooks(names: list[str]) -> None:
    """Execute the twins (all, or the named ones) and write the .ipynb beside each."""
    os.environ["SA_PROGRESS"] = "0"
    twins = {twin.stem: twin for twin in sorted(NOTEBOOKS.glob("*.py"))}
    for name in names:
        if name not in twins:
            raise SystemExit(f"no notebook is called {name!r}; there are {', '.join(twins)}")
    for name in names or twins:
        begin, target = time.perf_counter(), NOTEBOOKS / f"{name}.ipynb"
        replace_text(target, nbformat.writes(execute(twins[name])) + "\n")
        print(f"{target.name}: executed in {time.perf_counter() - begin:.0f} s")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="such as 03_amnesia; all when left out")
    write_notebooks(parser.parse_args().names)


if __name__ == "__main__":
    main()
