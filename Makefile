# The table of contents: `make help` lists every target.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
# Spark's workers must run the environment's Python whatever else is on PATH.
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export PYSPARK_DRIVER_PYTHON := $(PYSPARK_PYTHON)

.PHONY: help setup airflow data demo test test-slow lint bench bench-models bench-media bench-training bench-fusion bench-topk bench-scale bench-world clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup:  ## install everything into .venv (about 5 minutes the first time, a second afterwards)
	@$(PYTHON) avrec_spark/doctor.py --before-setup
	@scripts/install.sh

airflow: setup  ## Airflow in an environment of its own, .venv-airflow
	@scripts/install_airflow.sh

data: setup  ## public data for tests and yardsticks into .cache/data
	@$(BIN)/python scripts/fetch_data.py $(AVREC_DATA)

demo: setup  ## the whole flow on a small rendered world; ends with the path of the report
	@$(BIN)/avrec demo

# In two processes, each with all tests of a file: much of the time is spent waiting for a JVM or a cluster to start.
test: setup data airflow  ## every test but the slow ones
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup data airflow  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

lint: setup  ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup data  ## measure everything, and write docs/benchmarks.md (most of an hour)
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt implicit
	$(BIN)/python -m benchmarks

bench-models: setup data  ## measure the models on published protocols, and write their sections of docs/benchmarks.md (half an hour)
	$(BIN)/python -m benchmarks models-lf-100k models-last-out-100k models-cold-100k models-tiktok

bench-media: setup data  ## measure media to features, and write its section of docs/benchmarks.md
	$(BIN)/python -m benchmarks media-pool media-pass media-incremental media-memory media-cnn media-size

bench-training: setup  ## measure training on one and two ranks, and write its section of docs/benchmarks.md
	$(BIN)/python -m benchmarks training

bench-fusion: setup data  ## measure fusion, its modalities and its speed, and write their sections of docs/benchmarks.md (an hour)
	$(BIN)/python -m benchmarks fusion-films fusion-videos fusion-kept fusion-speed

bench-topk: setup  ## measure the top-K engine against MLlib and implicit, and write its section of docs/benchmarks.md
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt implicit
	$(BIN)/python -m benchmarks topk

bench-scale: setup  ## measure 1, 3 and 10 million events from ingest to figures, and write their section of docs/benchmarks.md
	$(BIN)/python -m benchmarks scale

bench-world: setup  ## measure probes and fusion against the oracle of the rendered world, and write their section of docs/benchmarks.md
	$(BIN)/python -m benchmarks world

clean:  ## remove environments, caches and what runs left behind
	rm -rf .venv .venv-airflow .cache build dist *.egg-info lakehouse spark-warehouse mlruns
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
