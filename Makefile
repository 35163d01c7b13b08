# The commands of the project. Everything happens in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
WORKERS ?= auto
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A stamp for each set of extras: installed again only when the pins or the project's dependencies change.
stamp = $(VENV)/.installed-$(1)

.PHONY: run test test-postgres test-slow e2e lint format docs bench clean help

help: ## show the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(call stamp,daily) ## install what is needed and serve the daily page on 127.0.0.1:8000 (PORT= overrides)
	@PORT=$(PORT) $(BIN)/offprint serve

# Each worker computes on one core: with a thread a core in every worker, threads wait for each other most of the time.
test test-postgres test-slow: export OMP_NUM_THREADS = 1

test: $(call stamp,test) ## the fast suite, in parallel
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

test-postgres: $(call stamp,test) ## the database and the site on a PostgreSQL server of their own (needs its programs)
	$(BIN)/python scripts/postgres.py $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q tests/store tests/daily

test-slow: $(call stamp,test) ## the heavier oracles
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -m slow --timeout 1800

e2e: $(call stamp,e2e) ## the site in a real browser (needs chromium and chromedriver)
	$(BIN)/python -m pytest -q -m e2e

lint: $(call stamp,lint) ## ruff, its formatter, and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(call stamp,lint) ## let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(call stamp,docs) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

bench: $(call stamp,bench) ## side by side with peers; writes benchmarks/results
	$(BIN)/python benchmarks/run.py

clean: ## remove the environment and everything built
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "offprint needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what '$*' needs (the first time takes a few minutes)"
	$(INSTALL) --editable '.[$*]'
	@touch $@
