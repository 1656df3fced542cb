# `make` alone lists the targets. Set PYTHON to choose the interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --constraint constraints.txt

.PHONY: help quickstart install test lint types docs screenshots bench clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

quickstart: $(VENV)/.installed-quickstart ## Train a small model, then show the recorded run
	$(VENV)/bin/python docs/examples/quickstart.py

install: $(VENV)/.installed-dev ## Install everything that developing Tracelet needs into .venv

test: install ## Run the tests; ARGS="-k journal -n 2" is handed to pytest
	$(RUN) pytest $(ARGS)

lint: install ## Check style and formatting
	$(RUN) ruff check
	$(RUN) ruff format --check

types: install ## Check the types of the four packages
	$(RUN) mypy

docs: install ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

screenshots: install ## Make the pictures of the page in docs/images; needs Debian's chromium and chromium-driver
	$(RUN) tests.ui.screenshots

bench: install ## Run the benchmarks; ARGS are handed on
	$(RUN) benchmarks $(ARGS)

clean: ## Remove what was built and cached; .venv and recorded runs stay
	rm -rf build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Tracelet needs Python 3.11 or later, and '$(PYTHON)' is not. Name another one: make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Both install the same editable package, so that either may come first. Torch goes first and alone: see constraints.txt.
$(VENV)/.installed-quickstart: EXTRAS := .[lightning,media] scikit-learn
$(VENV)/.installed-dev: EXTRAS := .[dev]
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch
	$(INSTALL) --editable $(EXTRAS)
	@touch $@
