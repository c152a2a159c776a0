# Nothing to do before any of these: each makes .venv, installs into it once, and runs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: help demo test check clean

help:
	@echo "make demo    watch the service explore, learn from clicks and get better (60 s)"
	@echo "make test    check the code, then run every test"
	@echo "make check   formatting, lint, types and import directions only"
	@echo "make clean   remove .venv and every cache"

demo: .venv/demo
	$(BIN)/agerank demo

test: .venv/dev
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test

check: .venv/dev
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

# Stamp files: made anew when a dependency may have changed. Compiling what is installed would take as long again as
# installing it, for modules of which most are never imported.
INSTALL := $(BIN)/pip install --no-compile --disable-pip-version-check --constraint constraints.txt --editable

INPUTS := pyproject.toml constraints.txt hatch_build.py $(wildcard service/scoring/engines/age/*)

.venv/demo: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[serve,train,demo]'
	@touch $@

.venv/dev: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[serve,train,demo,dev]'
	@touch $@ .venv/demo

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
