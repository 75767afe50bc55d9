# `make run` serves, `make test` tests; both build the virtual environment they need from the lock files.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help run test lint format test-slow bench browser screenshots lock clean
.DEFAULT_GOAL := help

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.serve ## Serve on 127.0.0.1:8000 (HOST, PORT and SPHEREID_* change that)
	@exec $(BIN)/sphereid serve

test: $(VENV)/.dev ## Install what the tests need and run them all but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.dev ## Run the long tests
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.dev $(PEERS)/.ready ## Measure against other projects; writes docs/benchmarks.md (10 minutes)
	$(BIN)/python -m benchmarks --peers $(PEERS) $(BENCH)

lint: $(VENV)/.dev ## Format check, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

browser: ## Install Chromium, which the console's tests drive (Debian, as root)
	apt-get update -q
	apt-get install -y -q --no-install-recommends chromium

screenshots: $(VENV)/.dev ## Take the console's pictures in docs/img anew
	CONSOLE_SCREENSHOTS=docs/img $(BIN)/python -m pytest tests/e2e/console/test_looks.py

format: $(VENV)/.dev ## Format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## Renew the lock files from pyproject.toml
	$(COMPILE) --output-file requirements/serve.txt pyproject.toml
	$(COMPILE) --constraint requirements/serve.txt --output-file requirements/gpu.txt requirements/gpu.in
	$(COMPILE) --extra train --extra dlib --extra mobilefacenet --extra dev --constraint requirements/serve.txt --constraint requirements/constraints.in \
		--output-file requirements/dev.txt pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' requirements/dev.txt

clean: ## Remove the virtual environment and caches; galleries under data/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.txt pyproject.toml | $(BIN)/python
	@echo "Installing what serving needs into $(VENV) …"
	$(PIP) -r requirements/serve.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/serve.txt requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing what training and the tests need into $(VENV) …"
	$(PIP) -r requirements/dev.txt
	$(PIP) --no-deps --editable .
	@touch $@ $(VENV)/.serve

$(PEERS)/.ready: benchmarks/peers/requirements.txt benchmarks/peers/requirements-nodeps.txt
	@echo "Installing what ours is measured against into $(PEERS) …"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers/requirements-nodeps.txt
	@touch $@
