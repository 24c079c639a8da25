"""Traps of a fresh or unusual machine.  Each test names the one that it holds.

Nothing is downloaded and nothing large is installed: what is asked is the Makefile, .ci/run, pip
and pytest themselves, in folders of their own.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

import sahelpers as sa
from sahelpers.config import CHECKOUT
from tools import notebooks

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def call(*words, cwd, **env):
    """Run a command with these changes of the environment (None removes); returns when it ends."""
    merged = {k: v for k, v in {**os.environ, **env}.items() if v is not None}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=merged, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def write_command(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


@pytest.fixture
def makefile(tmp_path):
    """A folder with what `make` reads, but no environment."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    return tmp_path


@pytest.fixture
def old_python(tmp_path):
    """A `python3` that runs code as a 3.10 does, and does nothing else."""
    old = "import sys; sys.version_info = (3, 10, 12, 'final', 0); exec(sys.argv[1])"
    write_command(
        tmp_path / "old" / "python3",
        f'if [ "$1" = -c ]; then exec "{sys.executable}" -c "{old}" "$2"; fi',
        'if [ "$1" = --version ]; then echo Python 3.10.12; exit; fi',
        f'touch "{tmp_path}/went-on"',
    )
    return f"{tmp_path}/old{os.pathsep}{os.environ['PATH']}"


@needs_make
def test_an_old_python_is_refused_before_pip_searches(makefile, old_python):
    """Under Python 3.10, pip searched for ten minutes and then gave no reason."""
    code, told = call("make", "check", cwd=makefile, PATH=old_python)
    assert code != 0
    assert "Python 3.10.12; Python 3.11 or newer is needed" in told
    assert "make PYTHON=/path/to/python3.12 check" in told
    assert not (makefile / "went-on").exists()
    assert not (makefile / ".venv").exists()


@needs_make
def test_the_page_of_commands_says_what_make_clean_removes():
    code, told = call("make", "-n", "--no-print-directory", "clean", cwd=CHECKOUT)
    assert code == 0
    command = " ".join(told.replace("\\\n", " ").split())
    page = (CHECKOUT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"| `make clean` | `{command}` |\n" in page


@needs_make
def test_another_python_can_be_named(makefile, old_python):
    python = f"PYTHON={sys.executable}"
    code, told = call("make", "-n", "check", python, cwd=makefile, PATH=old_python)
    assert code == 0
    assert f"{sys.executable} -m venv --clear .venv" in told


@needs_make
def test_an_environment_that_is_there_is_kept_unless_it_is_too_old(makefile, old_python):
    """What a reader installed first, such as torch for CPUs, stays."""
    shutil.copytree(makefile / "old", makefile / ".venv" / "bin")
    (makefile / ".venv" / "bin" / "python3").rename(makefile / ".venv" / "bin" / "python")
    write_command(makefile / "new" / "python3", f'echo "$@" >> "{makefile}/new-did"')
    make = ("make", ".venv/.ready", f"PYTHON={makefile}/new/python3")
    call(*make, cwd=makefile)
    assert "-m venv --clear .venv" in (makefile / "new-did").read_text()
    (makefile / "new-did").unlink()
    (makefile / ".venv" / ".ready").unlink()
    write_command(makefile / ".venv" / "bin" / "python", f'echo "$@" >> "{makefile}/kept-did"')
    call(*make, cwd=makefile)
    assert not (makefile / "new-did").exists()
    assert "-m pip install -q -e .[dev]" in (makefile / "kept-did").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP only")
def test_the_package_leaves_the_environment_alone():
    """It is make that says how waiting threads behave: once torch is loaded, it is too late."""
    code = "import os, sahelpers; print(os.environ.get('OMP_WAIT_POLICY'))"
    given = {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None}
    assert call(sys.executable, "-c", code, cwd=CHECKOUT, **given) == (0, "None\n")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"  # by conftest.py
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@needs_make
def test_help_lists_every_target(makefile):
    code, said = call("make", "help", cwd=makefile)
    listed = set(re.findall(r"^ +make ([a-z-]+) ", said, re.MULTILINE))
    lines = re.findall(r"^\.PHONY: (.*)", (makefile / "Makefile").read_text(), re.MULTILINE)
    assert (code, listed) == (0, set(" ".join(lines).split()))


@needs_make
def test_make_sets_what_its_commands_inherit(makefile):
    (makefile / "show.mk").write_text(
        "show:\n\t@echo $$OMP_WAIT_POLICY,$$GOMP_SPINCOUNT,$$MPLBACKEND\n"
    )
    show = ("make", "-s", "-f", "Makefile", "-f", "show.mk", "show")
    unset = dict.fromkeys(("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    assert call(*show, cwd=makefile, **unset, MPLBACKEND="agg") == (0, "PASSIVE,1000,\n")
    mine = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}
    assert call(*show, cwd=makefile, **mine) == (0, "ACTIVE,7,\n")


@pytest.mark.full
@needs_make
def test_a_fresh_run_empties_its_folder_and_knows_no_other_models():
    asked = ("make", "-n", "-o", ".venv/.ready", "run")
    _, usual = call(*asked, cwd=CHECKOUT, MAKEFLAGS=None)
    assert "SA_" not in usual
    assert "rm" not in usual.split()
    _, fresh = call(*asked, "FRESH=1", cwd=CHECKOUT, MAKEFLAGS=None)
    (folder,) = re.findall(r"SA_CHECKPOINTS=(\S+)", fresh)
    (shipped,) = re.findall(r"SA_SHIPPED=(\S+)", fresh)
    assert re.search(rf"rm -rf .*{folder}\n", fresh)
    assert Path(shipped).parent == Path(folder)
    code = "from sahelpers.store import files; print(files.SHIPPED)"
    read = call(sys.executable, "-c", code, cwd=CHECKOUT, SA_SHIPPED=shipped)
    assert read == (0, f"{CHECKOUT / shipped}\n")


@needs_make
def test_a_run_that_is_not_fresh_deletes_nothing_and_trains_nothing_anew():
    asked = ("make", "-n", "-o", ".venv/.ready", "run")
    for word in ("FRESH=0", "FRESH="):
        _, told = call(*asked, word, cwd=CHECKOUT, MAKEFLAGS=None)
        assert told == call(*asked, cwd=CHECKOUT, MAKEFLAGS=None)[1]
        assert "rm" not in told.split()
    code, told = call(*asked, "FRESH=no", cwd=CHECKOUT, MAKEFLAGS=None)
    assert code != 0
    assert "FRESH=no: give 1, which deletes results/run and trains every model anew" in told


TWIN = """# %%
import matplotlib.pyplot as plt

# %%
plt.plot([1, 2])
plt.show()
"""


def test_a_notebook_has_its_figures_whatever_the_backend(tmp_path, monkeypatch):
    """With MPLBACKEND=agg in the environment, notebooks were executed without a figure."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    shutil.copy(CHECKOUT / "notebooks" / "jupytext.toml", tmp_path)
    (tmp_path / "figure.py").write_text(TWIN)
    outputs = notebooks.execute(tmp_path / "figure.py").cells[1].outputs
    assert ["image/png" in output.get("data", {}) for output in outputs] == [True]


@pytest.mark.full
def test_pytest_in_notebooks_finds_its_rules_and_figures(tmp_path):
    """There, the relative path of the rules led nowhere; MPLBACKEND=agg took the figures away."""
    v4 = nbformat.v4
    address = v4.new_output("stream", text="<object object at 0x7f0123456789>\n")
    picture = v4.new_output(
        "display_data", {"image/png": "", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    )
    cells = [
        v4.new_code_cell("print(object())", execution_count=1, outputs=[address]),
        v4.new_code_cell(TWIN, execution_count=2, outputs=[picture]),
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "tiny.ipynb")
    code, told = call(
        sys.executable, "-m", "pytest", "-c", CHECKOUT / "pyproject.toml", "--rootdir", CHECKOUT,
        "-p", "conftest", "--nbval", "-p", "no:cacheprovider", tmp_path / "tiny.ipynb",
        cwd=CHECKOUT / "notebooks", MPLBACKEND="agg", PYTHONPATH=str(CHECKOUT),
    )  # fmt: skip
    assert code == 0, told
    assert "2 passed" in told


@pytest.mark.full
def test_pytest_in_notebooks_collects_every_cell():
    code, told = call(
        sys.executable, "-m", "pytest", "--nbval", "--collect-only", "-q", "-p",
        "no:cacheprovider", cwd=CHECKOUT / "notebooks",
    )  # fmt: skip
    assert code == 0, told
    pages = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    for page in pages:
        cells = [c for c in nbformat.read(page, 4).cells if c.cell_type == "code"]
        assert f"{page.name}::Cell {len(cells) - 1}\n" in told
        assert f"{page.name}::Cell {len(cells)}\n" not in told


INSTALLED = """
import pathlib, sahelpers as sa, sahelpers.live
from sahelpers.store import Recipe, save
print(sa.__file__)
path = Recipe("thing", 1, ()).path
save(path, {}, {})
print(path)
try:
    sa.load_dataset()
except sa.DataError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip installed the package from a wheel, as it would anywhere."""
    root = tmp_path_factory.mktemp("installed")
    (root / "source").mkdir()
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, root / "source")
    for name in ("sahelpers", "study", "tools", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, root / "source" / name, ignore=ignored)
    pip = (sys.executable, "-m", "pip")
    build = ("wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", root)
    code, told = call(*pip, *build, root / "source", cwd=root)
    assert code == 0, told
    install = ("install", "-q", "--no-deps", "--no-index", "--target", root / "site")
    code, told = call(*pip, *install, *root.glob("*.whl"), cwd=root)
    assert code == 0, told
    return root


def run_installed(root, *words):
    """Run Python with the installed package, in an empty folder and home."""
    elsewhere = root / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    away = dict.fromkeys(("SA_DATA", "SA_CHECKPOINTS", "XDG_CACHE_HOME"))
    return call(
        sys.executable, *words, cwd=elsewhere, HOME=str(root / "home"),
        PYTHONPATH=str(root / "site"), PYTHONDONTWRITEBYTECODE="1", **away,
    )  # fmt: skip


def test_a_wheel_holds_the_whole_package(installed):
    inside, outside = (
        {
            p.relative_to(root).as_posix()
            for p in root.rglob("*.*")
            if p.suffix in (".py", ".md", ".typed")
        }
        for root in (installed / "site" / "sahelpers", CHECKOUT / "sahelpers")
    )
    assert inside == outside - {"README.md"}
    (about,) = (installed / "site").glob("*.dist-info")
    assert f"-{sa.__version__}." in about.name


def test_an_installed_package_keeps_its_files_in_a_folder_of_the_user(installed):
    """`pip install .` made data and checkpoints appear in site-packages."""
    before = sorted((installed / "site").rglob("*"))
    code, told = run_installed(installed, "-c", INSTALLED)
    assert code == 0, told
    package, checkpoint, missing = told.splitlines()[-3:]
    cache = installed / "home" / ".cache" / "sahelpers"
    assert Path(package).parent == installed / "site" / "sahelpers"
    assert Path(checkpoint).parent == cache / "checkpoints"
    assert missing.startswith(str(cache / "data" / "MNIST"))
    assert sorted((installed / "site").rglob("*")) == before


def test_an_installed_package_beside_a_folder_of_notebooks_is_no_clone(installed):
    """Another package left `notebooks/` in site-packages, and data were looked for beside it."""
    (installed / "site" / "notebooks").mkdir()
    try:
        code, told = run_installed(installed, "-c", INSTALLED)
    finally:
        (installed / "site" / "notebooks").rmdir()
    assert code == 0, told
    missing = told.splitlines()[-1]
    assert missing.startswith(str(installed / "home" / ".cache" / "sahelpers" / "data"))
    assert missing.endswith("or call load_dataset(..., download=True)")


def test_an_installed_package_leaves_out_what_needs_a_clone(installed):
    """`study` and `tools` read and write folders that only a clone has."""
    there = {path.name for path in (installed / "site").iterdir()}
    assert {name for name in there if not name.endswith(".dist-info")} == {"sahelpers"}


def test_the_study_is_found_from_the_folder_of_the_notebooks():
    """A kernel works there: the root is on the path of an editable install."""
    code = "import study, sahelpers; print(study.__file__, sahelpers.__file__)"
    done, told = call(sys.executable, "-c", code, cwd=CHECKOUT / "notebooks")
    assert done == 0, told
    assert told.split() == [
        str(CHECKOUT / package / "__init__.py") for package in ("study", "sahelpers")
    ]


def test_every_extra_that_somebody_is_told_to_install_is_there():
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    told = set()
    for pattern in ("*.md", "docs/*.md", "data/*.md", "sahelpers/**/*.py", "study/**/*.py",
                    "tools/*.py", "notebooks/*.py", "Makefile"):  # fmt: skip
        for path in CHECKOUT.glob(pattern):
            words = path.read_text(encoding="utf-8")
            told.update(re.findall(r"pip install [^\n]*?\.?\[([\w,-]+)\]", words))
    named = {extra for several in told for extra in several.split(",")}
    assert {"study", "cluster", "dev"} <= named
    assert named <= set(extras)


@needs_git
def test_what_is_built_or_fetched_is_ignored_by_git(tmp_path):
    """`build/` and the folders of other data sets were taken for changes."""
    shutil.copy(CHECKOUT / ".gitignore", tmp_path)
    assert call("git", "init", "-q", cwd=tmp_path)[0] == 0
    away = ["build/lib/x.py", "dist/x.whl", "checkpoints/x.pt", "data/MNIST/raw/train-images-ubyte"]
    away += ["results/journal.jsonl.lock"]
    away += [f"data/{name}/raw/x.gz" for name in ("FashionMNIST", "KMNIST", "QMNIST")]
    kept = ["data/README.md", "data/MNIST/raw/x.gz", "checkpoints/README.md", "sahelpers/x.py"]
    _, told = call("git", "check-ignore", *away, *kept, cwd=tmp_path)
    assert told.splitlines() == away


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("fresh", [True, False])
def test_ci_installs_what_a_fresh_debian_lacks_and_nothing_else(tmp_path, fresh):
    """The first attempt at the mirror fails, as it may; the second is enough."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tmp_path / ".ci")
    there, log = tmp_path / "bin", tmp_path / "log"
    write_command(there / "sleep", "exit 0")
    write_command(there / "sudo", 'exec "$@"')
    for name in ("bash", "dirname", "env", "id", "mv", "sh", "touch"):
        (there / name).symlink_to(shutil.which(name))
    write_command(there / "make.new", f'echo "make $*" >> "{log}"')
    write_command(
        there / "apt-get",
        f'if [ ! -e "{tmp_path}/tried" ]; then touch "{tmp_path}/tried"; exit 1; fi',
        f'if [ "$1" = install ]; then echo "$*" >> "{log}"; fi',
        f'case "$*" in *make) mv "{there}/make.new" "{there}/make";; esac',
    )
    if not fresh:
        (there / "make.new").rename(there / "make")
        for name in ("git", "python3", "chromium"):
            write_command(there / name, "exit 0")
    code, told = call("bash", ".ci/run", cwd=tmp_path, PATH=str(there), CHROMIUM=None)
    assert code == 0, told
    wanted = [f"install -y -qq {name}" for name in ("make", "git", "python3-venv", "chromium")]
    made = ["make test-all", "make test-browser"]
    inserted = [*wanted[:3], made[0], wanted[3], made[1]]
    assert log.read_text().splitlines() == (inserted if fresh else made)


@pytest.mark.full
def test_what_is_written_is_utf8_under_any_locale(tmp_path):
    words = "Fr\u00e9chet, \u2212log p, \u00dcbung\n"
    code = f"""if True:
        import locale
        from pathlib import Path
        from sahelpers.store.files import replace_text
        assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8")
        replace_text(Path("page.md"), {words!a})"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    plain |= {"PYTHONPATH": str(CHECKOUT)}
    code, told = call(sys.executable, "-c", code, cwd=tmp_path, **plain)
    assert code == 0, told
    assert (tmp_path / "page.md").read_bytes() == words.encode("utf-8")
