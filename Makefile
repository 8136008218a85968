# Every target does all of its own set-up: Python 3.11 or newer, make and git are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export UV_LINK_MODE ?= copy
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install lock demo down test lint format bench clean

help:  ## Show what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed  ## Make .venv from the lock

$(VENV)/.installed: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock:  ## Resolve the lock anew
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --all-extras --upgrade --output-file requirements.lock setup.cfg

demo: install  ## Train a real model through a real Airflow, and leave the server up
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/demo.sh

down: install  ## Stop the server that the demo left
	@$(BIN)/kaos down

test: install lint  ## Run all checks and all tests
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/test.sh

lint: install  ## Check formatting, style, types and import contracts
	@$(BIN)/ruff format --check --quiet . || { echo "Format it: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install  ## Format the source
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix-only .

bench: install  ## Measure beside the peers; writes docs/benchmarks.md
	@$(BIN)/python -m bench

clean:  ## Remove what make install made
	rm -rf $(VENV) build *.egg-info
