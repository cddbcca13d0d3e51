# Two commands do all set-up: `make demo` and `make test`. pip is the user's own, with its settings.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

.PHONY: demo test check slow cookbooks clean

# What a user needs, at the versions that constraints.txt records.
$(VENV)/.stamp-user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

# The same and what a developer needs.
$(VENV)/.stamp-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(VENV)/.stamp-user $@

demo: $(VENV)/.stamp-user
	$(BIN)/python examples/demo.py

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest

slow: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -m "slow or browser"

check: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

cookbooks: $(VENV)/.stamp-dev
	$(BIN)/python cookbooks/execute.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
