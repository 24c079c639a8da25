"""One JupyterLab and one Chromium for all browser tests; without a browser they say what to do."""

import lab  # pytest puts the folder of a test file on the path
import pytest

from sahelpers.config import CHECKOUT

SHOTS = CHECKOUT / "results" / "run" / "browser"


@pytest.fixture(scope="session")
def browser():
    if lab.find_chromium() is None:
        pytest.fail(lab.NO_BROWSER, pytrace=False)
    with lab.chromium() as started:
        yield started


@pytest.fixture(scope="session")
def address(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    lab.write_scratch(folder)
    for notebook in (CHECKOUT / "notebooks").glob("*.ipynb"):
        (folder / notebook.name).write_bytes(notebook.read_bytes())  # a copy: nothing is saved
    with lab.server(folder, tmp_path_factory.mktemp("settings")) as where:
        yield where


@pytest.fixture
def page(browser):
    made = lab.new_page(browser)
    yield made
    made.close()


@pytest.fixture(scope="session")
def open_scratch(browser, address):
    """The scratch notebook, opened and run once: each test runs the cell of its dashboard anew."""
    made = lab.new_page(browser)
    lab.open_notebook(made, address, "scratch.ipynb")
    lab.run_all(made, len(lab.SCRATCH))
    yield made
    made.close()


@pytest.fixture
def scratch(open_scratch):
    open_scratch.problems.clear()
    open_scratch.set_viewport_size(lab.SIZE)
    yield open_scratch
    open_scratch.title()  # a round trip, so that what the browser has to say is here
    assert open_scratch.problems == []


@pytest.fixture
def shot():
    """Keep a screenshot under a name in results/run/browser."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=SHOTS / f"{name}.png")
