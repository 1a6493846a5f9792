# make demo | test | check | coverage | lint | docs | plots | bench | starter | starter-mpnet: each sets up .venv first, on a machine with nothing but Python and a package index.
#
#   PYTHON=python3.12     the Python that .venv is made with
#   TORCH_INDEX=URL       where torch comes from; https://download.pytorch.org/whl/cpu has builds without CUDA
#   WORKERS=4             test processes, each with up to 3 GB of memory, and 8 GB of /dev/shm for all (3)
#   LOCOMO=FILE           locomo10.json, for `make bench` without a network
#   CORPUS='A.csv B.csv'  persona chats (Synthetic-Persona-Chat), for `make starter` and the cold start in `make bench`
#   MODEL=NAME=URL        a language model at an OpenAI-compatible endpoint, for the answers in `make bench`

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test check fast coverage lint docs plots bench starter starter-mpnet setup clean

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 3
LOCOMO ?=
CORPUS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
STAMP := $(VENV)/.installed
# Processes take tests from one another's end, so that none is idle and a file's costly fixtures are rarely made twice.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Nothing here needs a model hub or reports to anybody.
export HF_HUB_OFFLINE := 1
export MEM0_TELEMETRY := False
export TOKENIZERS_PARALLELISM := false
# Set in most images of containers: every process of the tests would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

demo: setup
	$(BIN)/hins demo

test: setup
	$(PYTEST) --durations=10

# Before each commit: lint, types, and the tests that are not marked slow. mypy has one process: tests run beside it.
check: setup
	$(MAKE) --jobs 2 lint fast

fast: setup
	$(PYTEST) -q -m "not slow"

coverage: setup
	$(PYTEST) --cov --cov-report=term

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/: strict, and without a network.
docs: setup
	$(BIN)/python tools/site/cli_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# The documentation's plots, from docs/results/*.json, and its figures.
plots: setup
	$(BIN)/python tools/plots.py
	$(BIN)/python tools/site/figures.py

bench: setup
	@for script in benchmarks/[a-z]*.py; do \
		echo "== $$script"; \
		data=(); \
		if [[ "$$script" == */fusion.py ]] && ! $(BIN)/python -c "import fastembed, spacy" 2> /dev/null; then \
			echo "skipped: it needs \`pip install -e .[hybrid]\`"; continue; fi; \
		if [[ -n "$(LOCOMO)" ]] && $(BIN)/python "$$script" --help | grep -q -- --data; then data=(--data "$(LOCOMO)"); fi; \
		if $(BIN)/python "$$script" --help | grep -q -- --corpus; then \
			if [[ -z "$(CORPUS)" ]]; then echo "skipped: CORPUS=FILE.csv names persona chats"; continue; fi; \
			data+=(--corpus $(CORPUS)); \
		fi; \
		if [[ "$$script" == */answers.py ]]; then \
			if [[ -z "$(MODEL)" ]]; then echo "skipped: MODEL=NAME=URL names a language model"; continue; fi; \
			data+=(--model "$(MODEL)"); \
		fi; \
		$(BIN)/python "$$script" --quick "$${data[@]}"; \
	done

# The encoder that new users begin with, from freely licensed text; the names and wordings of LOCOMO are kept out of it.
starter: setup
	$(BIN)/python benchmarks/start.py --corpus $(CORPUS) $(if $(LOCOMO),--data $(LOCOMO)) --seeds 1 \
		--work $(VENV)/starter --json $(VENV)/starter/result.json
	$(BIN)/python tools/starter/write_starter.py --work $(VENV)/starter --result $(VENV)/starter/result.json \
		--to hins_memory/data/starter.safetensors

# The same of a base of 109M weights, which is not in the wheel: HINS_BASE=$(VENV)/starter-mpnet/seed-0/model.
starter-mpnet: setup
	test -d $(VENV)/mpnet || $(BIN)/python tools/mpnet.py $(VENV)/mpnet
	$(BIN)/python benchmarks/start.py --corpus $(CORPUS) $(if $(LOCOMO),--data $(LOCOMO)) --seeds 1 --base $(VENV)/mpnet \
		--share 1 --first-share 0 --learning-rate 2e-4 --distillation 5 \
		--work $(VENV)/starter-mpnet --json $(VENV)/starter-mpnet/result.json

setup: $(STAMP)

# torch first and pinned, so that no dependency pulls another build of it. memoryos-pro without its dependencies: it
# pins versions of what is here already.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV); the first time takes some minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) -e ".[agent-framework,graphiti,langgraph,mem0,memoryos,onnx,s3,serve,synthesis,bench,mteb,docs,dev]"
	$(PIP) --no-deps memoryos-pro
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
