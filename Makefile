# make demo     everything from nothing: environment, generated slides, two strategies, a report
# make demo-nuclei   the same for nuclei: generated fields, osal_nd against random (DATA=hgsc: two real fields)
# make test     everything from nothing: environment, lint, types, import layers, tests
VENV ?= .venv
PYTHON ?= python3
DEMO_DIR ?= demo
NUCLEI_DIR ?= demo-nuclei
DATA ?= generated
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= demo,dev,keras

.PHONY: help install demo demo-nuclei test lint format test-fast test-slow test-gpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install: $(STAMP)  ## make the virtual environment $(VENV) with everything that demo and test need

# uv resolves and installs several times faster than pip; it lives in the environment itself.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: install  ## generated slides, tri_al_quota against random, three rounds, a report
	$(BIN)/python scripts/demo.py --output-dir $(DEMO_DIR)

demo-nuclei: install  ## generated fields (or DATA=hgsc), osal_nd against random, three rounds, a report
	$(BIN)/python scripts/demo_nuclei.py --data $(DATA) --output-dir $(NUCLEI_DIR)/$(DATA)

test: install lint  ## lint, then the tests (CPU, no network)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' -n 2 --dist loadfile  # one thread for each of two workers

lint: install  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: install  ## the tests without lint, stopping at the first failure
	$(BIN)/python -m pytest -m 'not slow and not gpu' -x -q

test-slow: install  ## tests that take more than about a minute
	$(BIN)/python -m pytest -m slow

test-gpu: install  ## tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(DEMO_DIR) $(NUCLEI_DIR) .mypy_cache .ruff_cache .pytest_cache
