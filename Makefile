# Every target makes the environment it needs.  README has the plain pip and pytest line of each.
VENV := .venv
PY := $(VENV)/bin/python
COLAB := .venv-colab
READY := $(VENV)/.ready

.PHONY: run check test test-browser test-colab notebooks lab app scoreboard audit bench clean

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

bench: $(READY)          # every claim of speed, as ratios measured in one run
	for script in benchmarks/*.py; do $(PY) $$script || exit 1; done

$(READY): requirements.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -e ".[dev]"
	touch $@

clean:                   # remove what the targets above made, checkpoints included
	rm -rf $(VENV) $(COLAB) results/run checkpoints/*.pt .pytest_cache .mypy_cache .ruff_cache .hypothesis
