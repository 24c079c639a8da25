"""Colab, emulated: the notebook alone in an empty folder, a fake google.colab, a local clone."""

import json
import os
import subprocess
import sys
import textwrap
import time
import tomllib

import jupyter_client
import pytest

from sahelpers.config import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]
FAKE = """
import sys, types
sys.modules["google"] = types.ModuleType("google")
sys.modules["google.colab"] = types.ModuleType("google.colab")
"""


NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


def setup_cell(path=NOTEBOOKS[0]):
    """A notebook's first code cell."""
    cells = json.loads(path.read_text())["cells"]
    return "".join(next(c["source"] for c in cells if c["cell_type"] == "code"))


@pytest.fixture
def clone_here(monkeypatch, tmp_path):
    """Git finds the public address in this checkout; the working folder is empty."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{CHECKOUT.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", ADDRESS)
    monkeypatch.setenv("GIT_CONFIG_KEY_1", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_1", "*")
    return tmp_path


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "notebook",
    [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.full) for path in NOTEBOOKS[1:])],
    ids=lambda path: path.stem,
)
def test_the_setup_cell_clones_once_and_puts_the_package_on_the_path(clone_here, notebook):
    told = FAKE + 2 * setup_cell(notebook) + "\nprint(sys.path[0])"
    done = run(told, clone_here)
    assert done.returncode == 0, done.stderr
    home = clone_here / "selective-amnesia-mnist"
    assert done.stdout.strip() == str(home)
    assert (home / "sahelpers" / "__init__.py").is_file()
    assert (home / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file()
    assert sorted(p.name for p in clone_here.iterdir()) == [home.name]


def test_the_setup_cell_does_nothing_elsewhere(clone_here):
    done = run("import sys; before = list(sys.path)\n" + setup_cell()
               + "\nassert sys.path == before", clone_here)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(clone_here.iterdir()) == []


@pytest.fixture
def kernel(clone_here):
    """A kernel that believes to be in Colab, started in the empty folder."""
    manager, client = jupyter_client.manager.start_new_kernel(
        kernel_name="python3", cwd=str(clone_here), extra_arguments=["--log-level=50"]
    )
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(client, code):
    """Run a cell; returns what it printed, raises when it failed."""
    printed = []

    def hook(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(textwrap.dedent(code), timeout=120, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed).strip()


def test_a_click_runs_in_the_kernel_and_its_interrupt_stops_it(kernel, clone_here):
    manager, client = kernel
    execute(client, FAKE + setup_cell())
    where = execute(
        client,
        """
        import os
        os.environ["SA_PROGRESS"] = "0"
        import sahelpers as sa
        from sahelpers import live
        few = sa.load_dataset(split="test").take(200)
        story = sa.Story(
            (few, few),
            baseline=sa.CVAE(latent_dim=3).eval(),
            fisher=sa.FisherConfig(n_fisher_samples=20, source="model_mean"),
            amnesia=sa.AmnesiaConfig(epochs_unl=100_000, tolerance=0.0),
            judge=sa.JudgeConfig(epochs=1),
        )
        board = live.AmnesiaDashboard(story)
        print(sa.__file__)
        print(board.forget.comm.comm_id)
        """,
    )
    package, comm = where.splitlines()
    assert package == str(clone_here / "selective-amnesia-mnist" / "sahelpers" / "__init__.py")
    content = {"comm_id": comm, "data": {"method": "custom", "content": {"event": "click"}}}
    client.shell_channel.send(client.session.msg("comm_msg", content))
    deadline = time.monotonic() + 60
    frames = 0
    while frames < 3:  # pictures arrive while the click is still being handled
        assert time.monotonic() < deadline
        message = client.get_iopub_msg(timeout=60)
        state = message["content"].get("data", {})
        if isinstance(state, dict) and "value" in state.get("state", {}):
            frames += 1
    manager.interrupt_kernel()
    assert execute(client, "print(board.controller.result.reason)") == "stopped"
    assert execute(client, "print(bool(board.controller.judged_rows))") == "True"
    assert "Stopped" in execute(client, "print(board.status.value)")
    assert execute(client, "print(1 + 1)") == "2"


def test_the_clone_is_made_from_what_is_committed():
    found = subprocess.run(
        ["git", "ls-files", "data", "notebooks"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True, env=os.environ,
    ).stdout.split()  # fmt: skip
    assert "data/MNIST/raw/t10k-labels-idx1-ubyte.gz" in found
    assert "notebooks/01_baseline.ipynb" in found
