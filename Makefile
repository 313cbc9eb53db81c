# Verbs of the project; `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin

# Arguments of the verbs.
DATA ?= digits
ENGINE ?= process
EPOCHS ?=
SEED ?=
HYPERPARAMETERS ?=
DIGITS ?= 1
OUTPUT ?= demo-output
LANE ?= cu128
BASE_IMAGE ?=
TESTS ?= tests
EXAMPLES ?= 20000
OPTIONS ?=
ENDPOINT ?= digits

demo_options = --data '$(DATA)' --engine '$(ENGINE)' --digits '$(DIGITS)' --output '$(OUTPUT)' \
	$(if $(EPOCHS),--epochs '$(EPOCHS)') $(if $(SEED),--seed '$(SEED)') \
	$(if $(HYPERPARAMETERS),--hyperparameters '$(HYPERPARAMETERS)')
build_options = --lane '$(LANE)' $(if $(BASE_IMAGE),--base-image '$(BASE_IMAGE)')

bench_options = $(if $(PEERS),--peers '$(PEERS)') $(if $(SECONDS),--seconds '$(SECONDS)') \
	$(if $(ROUNDS),--rounds '$(ROUNDS)') $(if $(QUICK),--quick) $(if $(CACHE),--cache '$(CACHE)')

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.installed ## Make the environment .venv with the commands train, serve and byoc

.venv/.installed: locks/dev.txt locks/install pyproject.toml
	@locks/install

.PHONY: demo
demo: setup ## Train, serve and ask (DATA=digits|mnist|folder ENGINE=process|docker EPOCHS= SEED= HYPERPARAMETERS="lr=0.5" DIGITS=)
	@$(if $(filter docker,$(ENGINE)),$(BIN)/byoc build $(build_options))
	@$(BIN)/python -m examples.demo $(demo_options)

.PHONY: build
build: setup ## Build both images (LANE=cu128|cu130 BASE_IMAGE=)
	@$(BIN)/byoc build $(build_options)

.PHONY: push
push: setup ## Push both images to ECR and verify them; `make build push` (LANE=cu128|cu130 OPTIONS="--immutable")
	@$(BIN)/byoc push --lane '$(LANE)' $(OPTIONS)

.PHONY: train
train: setup ## Train on SageMaker, or on `byoc local` (OPTIONS="--data training=FOLDER -p epochs=1 --wait")
	@$(BIN)/byoc train $(OPTIONS)

.PHONY: deploy
deploy: setup ## Serve a model there (OPTIONS="--job NAME --name digits")
	@$(BIN)/byoc deploy $(OPTIONS)

.PHONY: invoke
invoke: setup ## Ask an endpoint (ENDPOINT=digits OPTIONS="--random-digit FOLDER")
	@$(BIN)/byoc invoke '$(ENDPOINT)' $(OPTIONS)

.PHONY: test
test: setup ## Run the whole test suite (TESTS=path); container tests need a Docker engine
	@$(BIN)/python -m pytest $(TESTS)

.PHONY: bench-serving
bench-serving: setup ## Measure serve beside ten other servers; needs wrk (PEERS=a,b SECONDS=8 ROUNDS=2 QUICK=1 CACHE=folder)
	@PYTHONPATH=.:serving $(BIN)/python -m benchmarks.serving $(bench_options)

.PHONY: bench-training
bench-training: setup ## Measure train and the example (DATA=folder ONLY=entry,pipeline,ranks,recipes,job SEEDS=20 ROUNDS=2)
	@PYTHONPATH=.:training $(BIN)/python -m benchmarks.training --data '$(DATA)' \
		$(if $(ONLY),--only '$(ONLY)') $(if $(SEEDS),--seeds '$(SEEDS)') $(if $(ROUNDS),--rounds '$(ROUNDS)')

.PHONY: bench-training-gpu
bench-training-gpu: setup ## Measure the fast recipe on a GPU against its goal (DATA=folder SEEDS=20)
	@PYTHONPATH=.:training $(BIN)/python -m benchmarks.training.gpu --data '$(DATA)' $(if $(SEEDS),--seeds '$(SEEDS)')

.PHONY: bench-gpu
bench-gpu: setup ## Measure serve on a GPU against the goals; needs wrk (SECONDS=8 OPTIMIZE=freeze)
	@PYTHONPATH=.:serving $(BIN)/python -m benchmarks.gpu $(if $(SECONDS),--seconds '$(SECONDS)') \
		$(if $(OPTIMIZE),--optimize '$(OPTIMIZE)')

.PHONY: fuzz
fuzz: setup ## Fuzz what reads a request's bytes, each target for so long (SECONDS=60 TARGETS=json,npy)
	@PYTHONPATH=.:serving $(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds '$(SECONDS)') \
		$(if $(TARGETS),--targets '$(TARGETS)')
	@FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -q tests/serving/test_fuzz_codecs.py

.PHONY: lint
lint: setup ## Check style, types, import rules and that the locks are fresh
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@cd examples/mnist && ../../$(BIN)/mypy --config-file ../../pyproject.toml train.py inference.py
	@PYTHONPATH=.:serving:training $(BIN)/lint-imports --no-cache --no-logo
	@UV=$(BIN)/uv locks/compile --check

.PHONY: format
format: setup ## Put the code into the project's style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: lock
lock: setup ## Resolve the lock files again (UPGRADE=1 moves the pins)
	@UV=$(BIN)/uv locks/compile $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove what the demo and the tools wrote; the environment stays
	@chmod -R u+w $(OUTPUT) 2>/dev/null || true
	@rm -rf $(OUTPUT) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
