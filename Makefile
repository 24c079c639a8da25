# Every target makes the environment it needs.  README has the plain pip and pytest line of each.
VENV := .venv
PY := $(VENV)/bin/python
COLAB := .venv-colab
LOWEST := .venv-lowest
PYTHON := python3.11
READY := $(VENV)/.ready

.PHONY: run check test test-browser test-colab notebooks lab app scoreboard audit bench clean
.PHONY: coverage misuse stress mutants portability test-lowest

run: $(READY)            # the whole story on real MNIST: results/run/ and a table
	$(PY) -m sahelpers run

check: $(READY)          # lint, types, unit tests (notebook pairs among them)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests -q

test: check              # check, and every notebook executed and compared cell by cell
	$(PY) -m pytest --nbval notebooks -q

test-browser: $(READY)   # the dashboards in JupyterLab and a real Chromium (apt: chromium)
	$(PY) -m pip install -q -e ".[browser]"
	$(PY) -m pytest tests/browser -q

test-colab: $(READY)     # the same unit tests on the widgets that Colab has; torch is shared
	python3 -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install -q ipywidgets==7.7.1 ipykernel==6.17.1 \
		jupyter_client==7.4.9 ipython==7.34.0
	$(PY) -c "import site; print(site.getsitepackages()[0])" > \
		"$$($(COLAB)/bin/python -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
	$(COLAB)/bin/python -m pytest tests/test_controllers.py tests/test_widgets.py tests/test_colab.py -q

notebooks: $(READY)      # execute every .py twin from a clean start and write its .ipynb
	$(PY) -m sahelpers notebooks

lab: $(READY)            # JupyterLab on the amnesia notebook
	$(PY) -m jupyterlab notebooks/03_amnesia.ipynb

app: $(READY)            # notebook 03 as a page without code: text, pictures, dashboard (Voila)
	$(PY) -m pip install -q -e ".[app]"
	$(PY) -m voila notebooks/03_amnesia.ipynb --strip_sources=True

scoreboard: $(READY)     # every method, ten digits, three seeds: hours; resumable; RESULTS.md
	$(PY) -m sahelpers scoreboard

audit: $(READY)          # every attack beside its control, ten digits, three seeds; resumable
	$(PY) -m sahelpers audit

bench: $(READY)          # every claim of speed: results/benchmarks.json and a table
	$(PY) benchmarks

coverage: $(READY)       # lines of sahelpers that the unit tests reach in their own process
	$(PY) -m coverage run --source=sahelpers -m pytest tests -q
	$(PY) -m coverage report

misuse: $(READY)         # notebook 01 as hurried readers run it, 20 minutes
	$(PY) -m pytest tests/misuse -q

stress: $(READY)         # kills, full disks, flipped bits, two at once: faults survived / tried, minutes
	$(PY) tests/stress/run.py

mutants: $(READY)        # 250 wrong lines: do the tests notice?  30 minutes, resumable
	$(PY) tests/mutants.py

# The notebooks' claims for each capability and number of threads; eight minutes each, resumable.
# A processor without AVX-512: make portability CAPABILITIES="default avx2"
CAPABILITIES := default avx2 avx512
portability: $(foreach c,$(CAPABILITIES),results/run/portable-$(c)-1 results/run/portable-$(c)-2)

results/run/portable-%: $(READY) $(wildcard sahelpers/*.py notebooks/*.ipynb)
	mkdir -p results/run
	ATEN_CPU_CAPABILITY=$(word 1,$(subst -, ,$*)) OMP_NUM_THREADS=$(word 2,$(subst -, ,$*)) \
		$(PY) -m pytest --nbval notebooks -q
	touch $@

test-lowest: requirements.txt pyproject.toml   # unit tests on the lower bounds (newer: PYTHON=python3.12)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct \
		-r requirements.txt hypothesis">=6.100" nbconvert">=7.16.5" pytest">=8.0" \
		distributed">=2024.8.1"
	$(LOWEST)/bin/python -m pytest tests -q

$(READY): requirements.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -e ".[dev]"
	touch $@

clean:                   # remove what the targets above made, checkpoints included
	rm -rf $(VENV) $(COLAB) $(LOWEST) results/run checkpoints/*.pt .pytest_cache .mypy_cache .ruff_cache .hypothesis
