# `make help` lists what there is. Every target sets up what it needs first.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUNDLES := bundles/demo/manifest.json bundles/fastsam/manifest.json

# Tests run in so many processes at once; each may start a tritonserver. WORKERS=0: in one, in order.
WORKERS ?= 3
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup bundle demo serve check test test-random test-proof test-slow soak fuzz test-gpu \
  test-containers coverage lint docs audit hashes bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY)  ## make .venv with everything installed (2.4 GB, with CUDA 7)
$(READY): pyproject.toml constraints.txt scripts/setup
	rm -f $@
	scripts/setup $(VENV)
	pwd -P >$@
# A stamp that names another folder came along with it: what is installed here runs that one's code.
ifneq "$(or $(shell cat $(READY) 2>/dev/null),$(shell pwd -P))" "$(shell pwd -P)"
.PHONY: $(READY)
endif

bundle: $(BUNDLES)  ## build the demo bundles, for edits and for masks: no download
bundles/demo/manifest.json: $(READY) $(wildcard export/*.py export/demo_edits/*.py) export/demo_edits/weights/manifest.json
	$(BIN)/python -m export demo --out bundles/demo
	touch $@
# Keeps another network that lies there, such as the real FastSAM.
bundles/fastsam/manifest.json: $(READY) $(wildcard export/*.py export/fastsam/*.py export/demo_masks/weights/*)
	$(BIN)/python -m export fastsam-demo --out bundles/fastsam
	touch $@

demo: $(BUNDLES)  ## edit the sample pictures on a real tritonserver; results in demo-output/
	$(BIN)/python -m frontend.demo

serve: $(BUNDLES)  ## run the frontend on port 8080 and Triton on 8001 until Ctrl-C
	$(BIN)/artmancer serve

# Left out: what starts an app or another program, loads a network's weights, or waits.
check: lint  ## lint, then the fast tests
	$(PYTEST) -q $(addprefix --ignore=tests/frontend/, pictures/test_killed_workers.py \
	  $(addprefix jobs/test_, conformance.py pictures.py postgres.py store_properties.py)) \
	  tests/contract tests/docs tests/model_kit tests/models/edit_conditions tests/frontend/test_*.py \
	  $(addprefix tests/frontend/, domain http/schemas jobs masks pictures triton)

test: lint $(BUNDLES)  ## lint, then all tests but the slow ones
	$(PYTEST)

test-random: $(BUNDLES)  ## the same tests in random order; SEED=N repeats the order of a run
	$(PYTEST) -p randomly $(if $(SEED),--randomly-seed=$(SEED))

test-proof: $(BUNDLES)  ## the same tests five times: alone, beside busy processes, in random order
	scripts/prove-tests

test-slow: $(BUNDLES)  ## the tests that take minutes
	$(BIN)/pytest -m "slow and not soak"

soak: $(BUNDLES)  ## thousands of jobs with cancels and faults
	$(BIN)/pytest -m soak

fuzz: $(READY)  ## damaged pictures and requests for 10 minutes; SECONDS=N, SEED=N
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

test-gpu: $(READY)  ## the tests that need an NVIDIA GPU; without one they do not run
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/pytest -m gpu; else echo "no NVIDIA GPU here: the GPU tests did not run"; fi

test-containers: $(READY)  ## build the images and try the stack on a Docker engine
	$(BIN)/pytest -m containers tests/containers

coverage: $(BUNDLES)  ## the fraction of lines that the tests run, without the integration tests
	$(PYTEST) -m "not soak and not gpu and not containers" --ignore=tests/integration \
	  --cov --cov-report=term --cov-report=html:reports/coverage

lint: $(READY)  ## ruff, mypy --strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for model in model_repository/*/1/model.py; do $(BIN)/mypy $$model || exit 1; done
	PYTHONPATH=$$(echo model_repository/*/1 | tr ' ' :) $(BIN)/lint-imports

docs: $(READY)  ## write docs/settings.md, tensors.md, openapi.json and the architecture's picture
	$(BIN)/python -m scripts.generated_docs

audit: $(READY)  ## hashes and known weaknesses of what is installed; its parts in reports/sbom.json
	$(BIN)/python -m scripts.audit

hashes: $(READY)  ## write hashes.txt, after a change of constraints.txt
	$(BIN)/python -m scripts.audit hashes

bench: $(BUNDLES)  ## measure; dated results in benchmarks/results/
	$(BIN)/python -m benchmarks --keep

clean:  ## remove what was built or written; keeps .venv
	rm -rf bundles demo-output reports .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis
