# Everything a contributor or CI runs. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
IMAGE ?= registry.local/scanloop
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/scanloop/__init__.py)
# uv does not read pip's configuration; it is told where pip finds wheels (a CPU build of torch, for example).
UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
export UV_FIND_LINKS
export UV_LINK_MODE ?= copy
# Hospitals' networks often bring certificates of their own: trust what the system trusts.
export UV_SYSTEM_CERTS ?= true

.PHONY: help setup demo run test check format compile bench bench-abstention bench-acquire bench-embed bench-calibration bench-certificates bench-consensus bench-label-errors bench-learn bench-readers bench-scale bench-select bench-serve rehearse integration image clean bench-features

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## Make .venv with everything that development needs (seconds, through uv)

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "Python 3.11 or 3.12 is needed, this is %d.%d: make setup PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[all]' || \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]'
	@touch $@

demo: setup ## Run the whole loop on synthetic slices, from install to report, in minutes
	$(BIN)/python -m pipelines run --config configs/demo.yaml --output runs/demo

run: setup ## Run a pipeline: make run CONFIG=configs/brain_mri.yaml OUTPUT=runs/brain
	$(BIN)/python -m pipelines run --config $(or $(CONFIG),configs/demo.yaml) $(if $(OUTPUT),--output $(OUTPUT))

test: setup ## Run the tests, a file on a core (under 15 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not integration and not gpu"

integration: setup ## Run the longer proofs: real servers, thirty kills of whole runs
	$(BIN)/python -m pytest -m integration

check: setup ## Format, lint, types, import rules, YAML; the same in pre-commit and CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compile: setup ## Compile the pipelines into pipelines/compiled
	$(BIN)/python -m pipelines compile

bench: setup ## Measure: each benchmark prints JSON as its last line
	@for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

bench-serve: setup ## Measure serving: every engine, TorchServe and a server as KServe documents it, side by side; ROUNDS=1 is quick
	$(BIN)/python benchmarks/bench_serve.py $(if $(ROUNDS),--rounds $(ROUNDS))

rehearse: setup ## Run the loop under simulated loss of spot nodes, planned against actual: make rehearse SLICES=40000
	$(BIN)/python benchmarks/rehearse.py $(if $(SLICES),--slices $(SLICES))

bench-embed: setup ## Measure the embedding engine against a plain loop (brain MRI below SCANLOOP_DATA)
	$(BIN)/python benchmarks/bench_embed.py

bench-scale: setup ## Ingest and embed 10,000 to 400,000 synthetic slices: time, memory, objects, euros at 4,000,000; SIZES="1000 4000" is quick
	$(BIN)/python benchmarks/bench_scale.py $(if $(SIZES),--sizes $(SIZES))

bench-select: setup ## Measure picking and the silhouette at scale against the plain ways, in about three minutes
	$(BIN)/python benchmarks/bench_select.py

bench-learn: setup ## Measure what unlabelled images add to 100 labels, on four real sets below SCANLOOP_DATA; SPLITS=3 is quick
	$(BIN)/python benchmarks/bench_learn.py $(if $(SPLITS),--splits $(SPLITS))

bench-calibration: setup ## Measure how honest probabilities are on three official test sets, each map before and after; DRAWS=3 is quick
	$(BIN)/python benchmarks/bench_calibration.py $(if $(DRAWS),--draws $(DRAWS))

bench-abstention: setup ## Measure which foreign images a brain model abstains from, and how many of its own; ARCHIVE=chest turns it round
	$(BIN)/python benchmarks/bench_abstention.py $(if $(ARCHIVE),--archive $(ARCHIVE))

bench-acquire: setup ## Measure how many labels each acquisition policy needs against random draws, on four sets of classes; SEEDS=3 is quick
	$(BIN)/python benchmarks/bench_acquire.py $(if $(SEEDS),--seeds $(SEEDS))

bench-certificates: setup ## Measure whether certificates of promoted labels hold, over 200 draws on three sets; SPLITS=20 is quick
	$(BIN)/python benchmarks/bench_certificates.py $(if $(SPLITS),--splits $(SPLITS))

bench-consensus: setup ## Measure consensus and the ranking of readers with simulated readers on three real sets; DRAWS=3 is quick
	$(BIN)/python benchmarks/bench_consensus.py $(if $(DRAWS),--draws $(DRAWS))

bench-readers: setup ## Measure 200 readers at once against PostgreSQL and SQLite, with an audit of the store; SECONDS_EACH=20 is quick
	@for store in postgresql sqlite; do $(BIN)/python benchmarks/bench_readers.py --store $$store --think 8 12 --seconds $(or $(SECONDS_EACH),60) || exit 1; done

bench-label-errors: setup ## Measure how many planted label errors are among the first proposed, on three real sets; DRAWS=3 is quick
	$(BIN)/python benchmarks/bench_label_errors.py $(if $(DRAWS),--draws $(DRAWS))

bench-features: setup ## Measure the feature repository: rows a second, bytes a row, look-ups, the join as of a time; SLICES=50000 is quick
	$(BIN)/python benchmarks/bench_features.py $(if $(SLICES),--slices $(SLICES))

image: ## Build the images of compute, page, serving and TorchServe (needs Docker)
	docker build --target compute --tag $(IMAGE)/compute-python:$(VERSION) .
	docker build --target labelling --tag $(IMAGE)/labelling-python:$(VERSION) .
	docker build --target serving --tag $(IMAGE)/serving-python:$(VERSION) .
	docker build --target torchserve --tag $(IMAGE)/torchserve-python:$(VERSION) .

clean: ## Remove the environment and the runs
	rm -rf .venv runs
