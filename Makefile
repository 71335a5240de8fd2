# make book and make test set everything up themselves; run them again and only what changed is done again.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON  ?= python3.11
VENV    ?= .venv
PROFILE ?= cpu
FACES   ?= synthetic
JOBS    ?= 1
PORT    ?= 8000
# Where pip finds torch without CUDA, for example TORCH_INDEX=https://download.pytorch.org/whl/cpu (see README, Troubleshooting).
TORCH_INDEX ?=
# Further arguments for pytest, for example TESTS='tests/test_cli.py -x'.
TESTS   ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help setup book test format lab serve environment picture clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or name one, make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt --editable '.[test]'
	touch $@

setup: $(INSTALLED) ## create the virtual environment and install everything

book: setup ## run the notebooks (PROFILE, FACES, JOBS) and build the book
	$(BIN)/replicate run --profile $(PROFILE) --faces $(FACES) --jobs $(JOBS)
	$(BIN)/replicate book --profile $(PROFILE) --faces $(FACES)

test: setup ## run the tests, smoke notebooks included
	$(BIN)/python -m pytest $(TESTS)

format: setup ## format the code and mend what the linter can
	$(BIN)/ruff check --fix replicate tests
	$(BIN)/ruff format replicate tests

lab: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir notebooks

serve: setup ## show the built book on http://localhost:PORT
	$(BIN)/replicate book --serve $(PORT)

environment: setup ## write environment.yml again from pyproject.toml
	$(BIN)/python -m replicate.project environment.yml

picture: setup ## draw the picture of README.md again
	$(BIN)/python -m replicate.project book/_static/faces.png

clean: ## delete the virtual environment and everything that can be made again (trained models included)
	rm -rf $(VENV) .replicate .pytest_cache .hypothesis .ruff_cache *.egg-info
	find replicate tests -name __pycache__ -type d -prune -exec rm -rf {} +
