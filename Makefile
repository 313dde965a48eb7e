# Everything runs in .venv, which is made when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SCALE ?= quick
STORE ?= results

.PHONY: env run test lint docs bench clean
.DEFAULT_GOAL := env

env: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[all]'
	touch $(READY)

# Every study, then one report: results/report.html.
run: $(READY)
	$(BIN)/holdfast run --all --scale $(SCALE) --store $(STORE)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python benchmarks/lab_overhead.py

clean:
	rm -rf .venv site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
