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
    lab.copy_notebook(folder)
    with lab.server(folder, tmp_path_factory.mktemp("settings")) as where:
        yield where


@pytest.fixture(scope="session")
def opened(browser, address):
    """The live notebook, opened, and its cells started."""
    made = lab.new_page(browser)
    lab.open_notebook(made, address, lab.NOTEBOOK)
    lab.start_all(made)
    yield made
    made.close()


@pytest.fixture
def live(opened):
    """The same page for every test, which presses Reset where it needs to."""
    opened.problems.clear()
    opened.set_viewport_size(lab.SIZE)
    yield opened
    opened.title()  # a round trip, so that what the browser has to say is here
    assert opened.problems == []


@pytest.fixture
def page(browser):
    made = lab.new_page(browser)
    yield made
    made.close()


@pytest.fixture
def shot():
    """Keep a screenshot under a name in results/run/browser."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=SHOTS / f"{name}.png")
