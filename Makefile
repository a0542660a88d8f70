# make demo     everything from nothing: environment, generated slides, two strategies, a report
# make demo-nuclei   the same for nuclei: generated fields, osal_nd against random (DATA=hgsc: two real fields)
# make label-server STUDIES=slides   a MONAI Label server for QuPath, 3D Slicer, CVAT and DSA
# make test     everything from nothing: environment, lint, types, import layers, tests
VENV ?= .venv
PYTHON ?= python3
DEMO_DIR ?= demo
NUCLEI_DIR ?= demo-nuclei
DATA ?= generated
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LABEL_STAMP := $(VENV)/.installed-label
EXTRAS ?= demo,dev,export
STUDIES ?= slides
APP_DIR ?= label-app
HOST ?= 127.0.0.1
PORT ?= 8000
CONF ?=

.PHONY: help install install-label demo demo-nuclei label-server test lint format test-fast test-slow test-gpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install: $(STAMP)  ## make the virtual environment $(VENV) with everything that demo and test need

# uv resolves and installs several times faster than pip; it lives in the environment itself.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

# uv leaves out the parts of MONAI Label's wheel that are not modules: its launcher, sample apps and plugins. pip does not.
$(LABEL_STAMP): $(STAMP)
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),label]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall -c constraints.txt monailabel
	touch $(LABEL_STAMP)

install-label: $(LABEL_STAMP)  ## the same with MONAI Label

label-server: install-label  ## MONAI Label server for STUDIES=folder of slides, CONF="--conf tissue_classes 'A, B'"
	$(BIN)/python -m monailabel.main start_server --host $(HOST) --port $(PORT) --studies "$(STUDIES)" \
		--app "$$($(BIN)/python -m tral_monai app --into $(APP_DIR))" $(CONF)

demo: install  ## generated slides, tri_al_quota against random, three rounds, a report
	$(BIN)/python scripts/demo.py --output-dir $(DEMO_DIR)

demo-nuclei: install  ## generated fields (or DATA=hgsc), osal_nd against random, three rounds, a report
	$(BIN)/python scripts/demo_nuclei.py --data $(DATA) --output-dir $(NUCLEI_DIR)/$(DATA)

test: install-label lint  ## lint, then the tests (CPU, no network)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' -n 2 --dist loadfile  # one thread for each of two workers

lint: install  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: install-label  ## the tests without lint, stopping at the first failure
	$(BIN)/python -m pytest -m 'not slow and not gpu' -x -q

test-slow: install-label  ## tests that take more than about a minute
	$(BIN)/python -m pytest -m slow

test-gpu: install-label  ## tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(DEMO_DIR) $(NUCLEI_DIR) $(APP_DIR) .mypy_cache .ruff_cache .pytest_cache
