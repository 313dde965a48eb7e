# Everything runs in .venv, which is made when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SCALE ?= quick
STORE ?= results
GPU_OPTIONS ?=

.PHONY: env run test lint docs bench dist gpu gpu-packages clean
.DEFAULT_GOAL := env

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo 'Making .venv: this downloads PyTorch and everything else that is used.'
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[all]'
	touch $(READY)

# Every study, then one report: results/report.html. It says first what each study takes.
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

# Every bench that a CPU serves, in twenty minutes at most.
bench: $(READY)
	$(BIN)/python -m holdfast.benches --device cpu --no-tests --budget 1200

# Sdist and wheel in dist/, their metadata checked, and the wheel tried in an environment that has it alone, no extras.
dist:
	rm -rf dist build/release build/fresh
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --constraint constraints.txt build twine
	build/release/bin/python -m build --outdir dist
	build/release/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/fresh && bin/holdfast --version && bin/holdfast list && bin/holdfast lists check builtins:sorted
	cd build/fresh && bin/python -c 'import holdfast.lab, holdfast.errors, sys; assert "torch" not in sys.modules'
	cd build/fresh && bin/python -c 'import holdfast.nn, holdfast.optim, holdfast.lists, holdfast.probes'
	du -sk dist/* build/fresh

# The GPU tests and every bench that a GPU serves, in six minutes, with the Python that has torch and Triton: there is
# no environment to make on a GPU machine without a network. To rehearse: GPU_OPTIONS='--device cpu --toy'.
gpu:
	PYTHONPATH=src:build/gpu-packages $(PYTHON) -m holdfast.benches $(GPU_OPTIONS)

# What `make gpu` needs beside torch, numpy and pytest, for a machine that lacks it: pure Python, of any version.
gpu-packages:
	$(PYTHON) -m pip install --quiet --upgrade --no-deps --target build/gpu-packages jaxtyping wadler-lindig

clean:
	rm -rf .venv site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
