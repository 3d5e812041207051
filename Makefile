# poetd: `make demo` shows it, `make test` checks it. Both work from a bare checkout: they make .venv from the lock files.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint types lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: .venv/.run ## control a simulated building over real sockets (DEMO_SECONDS=30 ends it by itself)
	@$(BIN)/poetd demo

test: .venv/.dev ## every check: style, types, layers, tests
	@.ci/checks

lint: .venv/.dev ## style and layers only
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check --output-format concise .
	@$(BIN)/lint-imports --no-logo

types: .venv/.dev ## types only
	@$(BIN)/mypy

lock: .venv/.run ## write the lock files anew from pyproject.toml
	@.ci/lock

clean: ## remove .venv and everything that was built
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second run start at once; pyproject.toml matters because it names the commands that are installed.
.venv/.run: requirements.lock pyproject.toml .ci/venv
	@.ci/venv $(PYTHON) requirements.lock
	@touch $@

.venv/.dev: requirements-dev.lock pyproject.toml .ci/venv
	@.ci/venv $(PYTHON) requirements-dev.lock
	@touch $@ .venv/.run
