# `make demo` and `make test` need nothing but Python 3.11 or newer: they install into .venv themselves,
# and again only when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format

demo: .venv/installed
	$(BIN)/finlora demo

test: .venv/installed-dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report=term-missing:skip-covered

check: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("FinLoRA needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -c constraints.txt -e .[dev,notebooks]
	@touch $@
