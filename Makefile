# Needs Python 3.11 or newer, make, a C++ compiler (for hnswlib) and a package index; nothing else.
# On Linux, pip takes torch with CUDA unless told: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := pip install -qq --disable-pip-version-check
READY := $(VENV)/.ready
SETTINGS := pyproject.toml setup.py constraints.txt
LOWEST := build/venv-lowest
OUT := build/quickstart

.DEFAULT_GOAL := help
.PHONY: help environment quickstart test torture test-lowest lint

help:
	@echo "make quickstart   environment, a small trained model, then edit, eval, query and export"
	@echo "make test         the tests"
	@echo "make torture      the store's suites of crashes, races and damage in full (some minutes)"
	@echo "make lint         ruff, mypy and the import contracts"
	@echo "make test-lowest  the tests on the oldest libraries that pyproject.toml allows"

environment: $(READY)

$(READY): $(SETTINGS)
	@echo "== Python environment in $(VENV): the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt torch
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $(READY)

quickstart: export MELO_PROJECT := $(OUT)/project
quickstart: export HF_HUB_OFFLINE := 1
# The models are tiny: more threads gain nothing, and on a busy machine they wait for each other.
quickstart test torture test-lowest: export OMP_NUM_THREADS ?= 1
quickstart: $(READY)
	@echo; echo "== A small model that knows some 400 facts, 32 of them out of date"
	$(BIN)/python data/quickstart/train.py
	@echo; echo "== Put those right"
	rm -rf $(OUT)
	$(BIN)/melo edit recipes/quickstart.yaml
	@echo; echo "== How well they hold, and what else has changed"
	$(BIN)/melo eval --task custom
	@echo; echo "== Ask: an edited question, the same in other words, and one that no edit is about"
	$(BIN)/melo query "What is the capital of Kazakhstan?"
	$(BIN)/melo query "Tell me which city is the capital of Kazakhstan."
	$(BIN)/melo query "What is the capital of Finland?"
	@echo; echo "== Take it elsewhere: PEFT adapters, a routed folder, one merged checkpoint"
	$(BIN)/melo export --format peft --to $(OUT)/peft
	$(BIN)/melo export --format routed --to $(OUT)/routed
	$(BIN)/melo export --merge --to $(OUT)/merged

torture: $(READY)
	$(BIN)/python -m pytest -q tests/store --torture

# Two processes, each with whole files, since fixtures of a file are dear.
test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy data/quickstart/train.py
	$(BIN)/lint-imports --no-cache

$(LOWEST)/.ready: $(SETTINGS) lowest-constraints.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/$(PIP_INSTALL) -c lowest-constraints.txt torch
	$(LOWEST)/bin/$(PIP_INSTALL) -c lowest-constraints.txt -e ".[dev]"
	@touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile
