# Every target makes the environment it needs.  README has the plain pip and pytest line of each.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: run check test notebooks lab scoreboard audit bench clean

run: $(READY)            # the whole story on real MNIST: results/run/ and a table
	$(PY) -m sahelpers run

check: $(READY)          # lint, types, unit tests (notebook pairs among them)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests -q

test: check              # check, and every notebook executed and compared cell by cell
	$(PY) -m pytest --nbval notebooks -q

notebooks: $(READY)      # execute every .py twin from a clean start and write its .ipynb
	$(PY) -m sahelpers notebooks

lab: $(READY)            # JupyterLab on the amnesia notebook
	$(PY) -m jupyterlab notebooks/03_amnesia.ipynb

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
	rm -rf $(VENV) results/run checkpoints/*.pt .pytest_cache .mypy_cache .ruff_cache .hypothesis
