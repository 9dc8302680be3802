# `make help` lists what there is. Every target sets up what it needs first.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUNDLE := bundles/demo/manifest.json

.DEFAULT_GOAL := help
.PHONY: help setup bundle demo serve test test-slow soak test-gpu lint bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY)  ## make .venv with everything installed (about 6 GB)
$(READY): pyproject.toml constraints.txt scripts/setup
	scripts/setup $(VENV)
	touch $@

bundle: $(BUNDLE)  ## build the demo bundle: small random weights, no download
$(BUNDLE): $(READY) $(wildcard export/*.py)
	$(BIN)/python -m export demo --out bundles/demo
	touch $@

demo: $(BUNDLE)  ## edit the sample pictures on a real tritonserver; results in demo-output/
	$(BIN)/python -m frontend.demo

serve: $(BUNDLE)  ## run the frontend on port 8080 and Triton on 8000 to 8002 until Ctrl-C
	$(BIN)/artmancer serve

test: lint $(BUNDLE)  ## lint, then all tests but the slow ones
	$(BIN)/pytest

test-slow: $(BUNDLE)  ## the tests that take minutes
	$(BIN)/pytest -m slow

soak: $(BUNDLE)  ## thousands of jobs with cancels and faults
	$(BIN)/pytest -m soak

test-gpu: $(BUNDLE)  ## the tests that need an NVIDIA GPU
	$(BIN)/pytest -m gpu

lint: $(READY)  ## ruff, mypy --strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for model in model_repository/*/1/model.py; do $(BIN)/mypy $$model || exit 1; done
	$(BIN)/lint-imports

bench: $(BUNDLE)  ## measure; results in benchmarks/results/
	$(BIN)/python -m benchmarks

clean:  ## remove what was built or written; keeps .venv
	rm -rf bundles demo-output .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis
