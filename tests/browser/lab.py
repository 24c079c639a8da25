"""JupyterLab on a loopback port and a real browser in front of it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil  # ipykernel needs it
from playwright.sync_api import Locator, Page, expect, sync_playwright

from sahelpers.config import CHECKOUT

NO_BROWSER = (
    "no Chromium was found: install it (Debian: apt-get install chromium) or set CHROMIUM to "
    "the path of a Chromium or Chrome binary"
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}  # fmt: skip
SIZE = {"width": 1280, "height": 1200}  # with JupyterLab's file browser open
PATIENCE = 300_000  # milliseconds: the machine may be busy
expect.set_options(timeout=PATIENCE)
BADGE = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="20"/>'
FAILURE = "[data-mime-type='application/vnd.jupyter.error']"  # a cell's traceback
NOTEBOOK = "05_live.ipynb"
TABS = ("Explore", "Forget", "Attack")


def find_chromium() -> str | None:
    """The browser's path, or None."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for n in names if n and (found := shutil.which(n))), None)


def copy_notebook(folder: Path) -> None:
    """A copy of the live notebook: nothing is saved into the checkout."""
    (folder / NOTEBOOK).write_bytes((CHECKOUT / "notebooks" / NOTEBOOK).read_bytes())


@contextlib.contextmanager
def server(folder: Path, settings: Path, command: tuple[str, ...] = ("jupyterlab",)):
    """Serve the folder; yields the address."""
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if command[0] == "jupyterlab":
        options = [
            "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
            f"--LabApp.app_settings_dir={settings}",
        ]  # fmt: skip
    else:
        options = [
            "--no-browser", f"--port={port}", "--strip_sources=True",
            f"--Voila.config_file_paths={CHECKOUT}",  # as if it were started there
        ]  # fmt: skip
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "user"),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),  # else one for all servers
        "SA_PROGRESS": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }  # fmt: skip
    log = (settings / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *options],
        cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, settings / "server.log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start; its log:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def chromium():
    """A headless Chromium."""
    found = find_chromium()
    if found is None:
        raise RuntimeError(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def new_page(browser) -> Page:
    """A page; `page.problems` collects its errors and every traceback that a kernel sends to it.

    The notebooks' badge, a picture from the web, is served here.
    """
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(PATIENCE)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.problems.append(said.text))
    page.on(
        "response",
        lambda said: said.status >= 500 and page.problems.append(f"{said.status} {said.url}"),
    )

    def read(payload: str | bytes) -> None:
        text = payload if isinstance(payload, str) else payload.decode(errors="replace")
        if "Traceback" in text:
            page.problems.append(text)

    page.on("websocket", lambda socket: socket.on("framereceived", read))
    page.route(
        "https://colab.research.google.com/assets/*",
        lambda route: route.fulfill(body=BADGE, content_type="image/svg+xml"),
    )
    return page


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook in JupyterLab and wait until its kernel is idle."""
    page.goto(f"{address}/lab/tree/{name}?reset")
    idle(page)


def idle(page: Page, seconds: float = PATIENCE / 1000) -> None:
    """Wait for an idle kernel."""
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=1000 * seconds)


def start_all(page: Page) -> None:
    """Run > Run All Cells."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("#jp-mainmenu-run").get_by_text("Run All Cells", exact=True).click()


def run_all(page: Page, cells: int, seconds: float = 1200) -> None:
    """Run all cells, and wait until the last one has run, or one has failed."""
    before = page.locator(".jp-InputArea-prompt").all_inner_texts()
    start_all(page)
    page.wait_for_function(
        """([before, cells, failure]) => {
            const now = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]
                .map(e => e.innerText);
            return document.querySelector(failure)
                || now.length >= cells && now.every(t => /^\\[\\d+\\]:$/.test(t.trim()))
                && now.join() !== before.join();
        }""",
        arg=[before, cells, FAILURE],
        timeout=1000 * seconds,
    )
    assert page.locator(FAILURE).all_inner_texts() == []
    idle(page, seconds)


def open_tab(page: Page, name: str) -> Locator:
    """Click a tab of the live notebook, wait for its dashboard, and return it."""
    page.locator(".widget-tab .lm-TabBar-tab", has_text=name).click()
    board = page.locator(".widget-tab-contents > .widget-vbox").nth(TABS.index(name))
    board.locator("[role=status], [role=alert]").wait_for()
    return board


def crowding(board: Locator) -> list[str]:
    """What is cut, hangs out of the dashboard or lies over something else, in words."""
    return board.evaluate(
        """board => {
            const leaf = 'button, select, pre, img, svg, table, summary, .progress, '
                + '.noUi-target, .widget-label, .widget-readout, [role=status], [role=alert]';
            const name = e => `${e.tagName} ${e.className} ${e.innerText}`.slice(0, 80);
            const seen = e => {  // the part that no scrolling box hides
                let {left, top, right, bottom} = e.getBoundingClientRect();
                for (let p = e.parentElement; p && board.contains(p); p = p.parentElement) {
                    if (getComputedStyle(p).overflowY === 'visible') continue;
                    const box = p.getBoundingClientRect();
                    left = Math.max(left, box.left); right = Math.min(right, box.right);
                    top = Math.max(top, box.top); bottom = Math.min(bottom, box.bottom);
                }
                return {e, left, top, right, bottom, cut: e.getBoundingClientRect().right - right};
            };
            const boxes = [...board.querySelectorAll(leaf)].map(seen)
                .filter(b => b.right - b.left > 1 && b.bottom - b.top > 1);
            const edge = board.getBoundingClientRect();
            const found = [];
            for (const b of boxes) {
                const text = b.e.matches('button, .widget-label, .widget-readout');
                if (text && b.e.scrollWidth > b.e.clientWidth + 1) found.push(`cut: ${name(b.e)}`);
                if (b.cut > 1 && !b.e.matches('table')) found.push(`cut: ${name(b.e)}`);
                if (b.right > edge.right + 1) found.push(`outside: ${name(b.e)}`);
                for (const c of boxes) {
                    if (b.e === c.e || b.e.contains(c.e) || c.e.contains(b.e)) continue;
                    const wide = Math.min(b.right, c.right) - Math.max(b.left, c.left);
                    const high = Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top);
                    if (wide > 1 && high > 1) found.push(`${name(b.e)} over ${name(c.e)}`);
                }
            }
            return found;
        }"""
    )


def record(board: Locator) -> None:
    """From now on, keep what the status line says and which pictures are shown."""
    board.evaluate(
        """board => {
            window.said = new Set();
            window.pictures = new Set();
            window.recorder = new MutationObserver(() => {
                said.add(board.querySelector('[role=status], [role=alert]').innerText);
                for (const image of board.querySelectorAll('img')) pictures.add(image.src);
            });
            recorder.observe(board, {subtree: true, childList: true, attributes: true});
        }"""
    )


def recorded(board: Locator) -> tuple[list[str], int]:
    """What the status line said since then, and how many pictures there were."""
    said, pictures = board.evaluate("() => (recorder.disconnect(), [[...said], pictures.size])")
    return said, pictures


def kernel_threads() -> int:
    """Threads of all kernels that this process and its servers have started."""
    kernels = [
        p for p in psutil.Process().children(recursive=True) if "ipykernel_launcher" in p.cmdline()
    ]
    return sum(p.num_threads() for p in kernels)


def picture_of(image) -> str:
    """A digest of an <img>'s bytes as they are shown."""
    return image.evaluate(
        """async e => {
            const bytes = await (await fetch(e.src)).arrayBuffer();
            const hash = await crypto.subtle.digest('SHA-256', bytes);
            return [...new Uint8Array(hash)].map(b => b.toString(16)).join('');
        }"""
    )
