# Every target makes the environment it needs.  docs/commands.md has the plain lines of each.
# The environment is made by PYTHON: make run PYTHON=/path/to/python3.12
# Without CUDA the environment is 4 GB smaller: before the first make, python3 -m venv .venv, and
# .venv/bin/pip install the CPU builds of torch and torchvision as PyTorch's own page says.
PYTHON := python3
VENV := .venv
PY := $(VENV)/bin/python
COLAB := .venv-colab
LOWEST := .venv-lowest
NEW := checkpoints/fresh
READY := $(VENV)/.ready
# FRESH=1 deletes what an earlier run left; FRESH=0 is as without it, and nothing else is taken.
ANEW := $(filter 1,$(FRESH))
ifneq ($(filter-out 0 1,$(FRESH)),)
$(error FRESH=$(FRESH): give 1, which deletes results/run and trains every model anew, or 0)
endif
# Processes that test at once, each with up to 2.5 GB of memory.
TESTERS := 2
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# Threads that wait shall sleep after a moment: by default they spin, and beside one other busy
# process on two cores a training then takes many times as long.  Without the moment (a count of
# GNU OpenMP's) forgetting takes one and a half times as long on an idle machine.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 1000
unexport MPLBACKEND      # notebooks choose their own, or they would show no figures

.PHONY: help run check test test-all test-browser test-colab notebooks lab app models tables
.PHONY: scoreboard ladder bench docs page coverage misuse stress mutants portability test-fashion
.PHONY: test-lowest clean

help:                    # what can be made
	@sed -nE 's/^([a-z-]+):[^#]*# (.*)/  make \1\t\2/p' Makefile | expand -t 24

run: $(READY)            # the whole story on real MNIST: results/run/ and a table; FRESH=1 trains all
	$(if $(ANEW),rm -rf results/run $(NEW))
	$(if $(ANEW),SA_CHECKPOINTS=$(NEW) SA_SHIPPED=$(NEW)/none) $(PY) tools/run.py

LINT = $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
UNIT = $(PY) -m pytest tests -q -n $(TESTERS) --dist worksteal
NBVAL = OMP_NUM_THREADS=1 $(PY) -m pytest --nbval -q -n $(TESTERS) --dist loadfile

check: $(READY)          # what a commit needs but for the notebooks: lint, types, unit tests
	$(LINT)
	$(UNIT) -m "not full"

test: check              # what a commit needs: check, and notebooks 01 to 05 compared cell by cell
	$(NBVAL) $(wildcard notebooks/0[1-5]_*.ipynb)

test-all: $(READY)       # everything but the browser: all unit tests, all notebooks
	$(LINT)
	$(UNIT)
	$(NBVAL) notebooks

test-browser: $(READY)   # the dashboards in JupyterLab, the page, and a real Chromium (apt: chromium)
	$(PY) -m pip install -q -e ".[browser]"
	$(PY) -m pytest tests/browser -q -n $(TESTERS) --dist loadfile

test-colab: $(READY)     # the same unit tests on the widgets that Colab has; torch is shared
	$(PY) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install -q ipywidgets==7.7.1 ipykernel==6.17.1 \
		jupyter_client==7.4.9 ipython==7.34.0
	$(PY) -c "import site; print(site.getsitepackages()[0])" > \
		"$$($(COLAB)/bin/python -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
	$(COLAB)/bin/python -m pytest tests/test_controllers.py tests/test_widgets.py tests/test_colab.py -q

notebooks: $(READY)      # execute every .py twin from a clean start and write its .ipynb
	$(PY) tools/notebooks.py

lab: $(READY)            # JupyterLab on the live notebook: explore, forget, attack
	$(PY) -m jupyterlab notebooks/05_live.ipynb

app: $(READY)            # the live notebook as a page without code (Voila)
	$(PY) -c "import voila" 2> /dev/null || $(PY) -m pip install -q -e ".[app]"
	$(PY) -m voila notebooks/05_live.ipynb --strip_sources=True

models: $(READY)         # train what ships in checkpoints/shipped/ anew: minutes; other bits elsewhere
	$(PY) tools/models.py

page: $(READY)           # results/page/index.html: decoders and an attack in the reader's browser
	$(PY) tools/page.py

tables: $(READY)         # RESULTS.md, results/scoreboard.json and audit.json from the journal
	$(PY) -m study tables

scoreboard: $(READY)     # every method, ten digits, three seeds: hours; resumable; RESULTS.md
	$(PY) -m study scoreboard --methods all

ladder: $(READY)         # four attacks on every digit (docs/protocol.md), resumable
	$(PY) -m study ladder

docs: $(READY)           # the docstrings as pages in build/docs/, which git ignores
	$(PY) -m pdoc sahelpers --docformat google --math -o build/docs

bench: $(READY)          # every claim of speed: results/benchmarks.json and a table (apt: chromium)
	$(PY) -m pip install -q -e ".[browser]"
	$(PY) benchmarks

coverage: $(READY)       # lines that the unit tests reach in their own process
	$(PY) -m coverage run --source=sahelpers,study,tools -m pytest tests -q
	$(PY) -m coverage report

FASHION := /usr/share/datasets/fashion-mnist
test-fashion: $(READY)   # the chain on the real Fashion-MNIST of Debian's package, which it asks for
	@test -d $(FASHION) || { echo "apt install dataset-fashion-mnist" >&2; exit 1; }
	mkdir -p results/run/FashionMNIST && ln -sfn $(FASHION) results/run/FashionMNIST/raw
	SA_DATA=results/run $(PY) -m pytest tests/fashion -q

misuse: $(READY)         # notebook 01 as hurried readers run it, 20 minutes
	$(PY) -m pytest tests/misuse -q

stress: $(READY)         # kills, full disks, flipped bits, two at once: faults survived / tried, minutes
	$(PY) tests/stress/run.py
	SA_SEQUENCES=200 $(PY) -m pytest tests/test_story.py -k sequence -q

mutants: $(READY)        # 300 wrong lines: do the tests notice?  40 minutes, resumable
	$(PY) tests/mutants.py

# The notebooks' claims for each capability and number of threads; eight minutes each, resumable.
# A processor without AVX-512: make portability CAPABILITIES="default avx2"
CAPABILITIES := default avx2 avx512
portability: $(READY)    # the notebooks' claims on other instruction sets and threads: 50 minutes
portability: $(foreach c,$(CAPABILITIES),results/run/portable-$(c)-1 results/run/portable-$(c)-2)

results/run/portable-%: $(READY) $(wildcard sahelpers/*.py sahelpers/*/*.py notebooks/*.ipynb)
	mkdir -p results/run
	ATEN_CPU_CAPABILITY=$(word 1,$(subst -, ,$*)) OMP_NUM_THREADS=$(word 2,$(subst -, ,$*)) \
		$(PY) -m pytest --nbval notebooks -q
	touch $@

test-lowest: PYTHON := python3.11
test-lowest: requirements.txt pyproject.toml   # unit tests on the lower bounds (newer: PYTHON=python3.12)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct \
		-e ".[study,cluster,denoising,digits8]" hypothesis">=6.100" latex2mathml">=3.77" \
		nbconvert">=7.16.5" pytest">=8.0" pytest-xdist">=3.6" setuptools">=77"
	$(LOWEST)/bin/python -m pytest tests -q -n $(TESTERS) --dist worksteal

# An older Python would let pip search for minutes and then name no reason: it is refused first.
# An environment that is there and new enough is kept, with what was installed into it.
$(READY): requirements.txt pyproject.toml
	@$(PY) -c "import pip; $(NEW_ENOUGH)" 2> /dev/null || $(PYTHON) -c "$(NEW_ENOUGH)" || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed." >&2; \
		echo "If you have one elsewhere: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@$(PY) -c "import pip; $(NEW_ENOUGH)" 2> /dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install -q -e ".[dev]"
	touch $@

clean:                   # remove what the targets above made, checkpoints included
	rm -rf build $(VENV) $(COLAB) $(LOWEST) results/run $(NEW) checkpoints/*.pt .pytest_cache \
		.mypy_cache .ruff_cache .hypothesis .coverage *.egg-info
