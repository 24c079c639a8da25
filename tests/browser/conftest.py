"""One JupyterLab for all browser tests; they fail with a sentence where no browser can be had."""

import lab  # pytest puts the folder of a test file on the path
import pytest

from sahelpers.data import CHECKOUT

SHOTS = CHECKOUT / "results" / "run" / "browser"


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    if lab.find_chromium() is None:
        pytest.fail(lab.NO_BROWSER, pytrace=False)
    folder = tmp_path_factory.mktemp("lab")
    lab.write_scratch(folder)
    for notebook in (CHECKOUT / "notebooks").glob("*.ipynb"):
        (folder / notebook.name).write_bytes(notebook.read_bytes())  # a copy: nothing is saved
    with lab.server(folder, tmp_path_factory.mktemp("settings")) as where:
        yield where


BADGE = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="20"/>'


@pytest.fixture
def page():
    """A page on which the notebooks' badge, a picture from the web, is served here."""
    with lab.browser_page() as made:
        made.route(
            "https://colab.research.google.com/assets/*",
            lambda route: route.fulfill(body=BADGE, content_type="image/svg+xml"),
        )
        yield made


@pytest.fixture
def shot():
    """Keep a screenshot under a name in results/run/browser."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=SHOTS / f"{name}.png")
