# One command for each thing a developer does. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMP := .venv/stamp
# What the type checker reads; a folder that is not there yet is left out.
TYPED := $(wildcard remediator bench tests)
# Most tests wait for a real server: two workers keep two cores busy. Each has a control plane of its own.
WORKERS ?= 2

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/uv.txt requirements/dev.txt pyproject.toml scripts/venv.sh scripts/uv-settings.sh
	@scripts/venv.sh

.PHONY: venv
venv: $(STAMP) ## make .venv from the locks, every package checked by its hash

.PHONY: lock
lock: $(STAMP) ## write the locks anew from pyproject.toml (UPGRADE=1: with the newest versions)
	@scripts/lock.sh

.PHONY: check
check: $(STAMP) ## format, lint, types, imports, generated files
	$(BIN)/ruff format --check --output-format concise .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports --no-logo
	@$(MAKE) generated-check

.PHONY: generate
generate: $(STAMP) ## write CRDs, schemas, RBAC and reference pages anew
	$(BIN)/remediator generate

.PHONY: generated-check
generated-check: $(STAMP) ## are the generated files what the model makes of them?
	$(BIN)/remediator generate --check

.PHONY: fix
fix: $(STAMP) ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: unit
unit: $(STAMP) ## pure decisions and models, no network
	@scripts/tests.sh unit

.PHONY: arch
arch: $(STAMP) ## the gates themselves, and what no linter checks
	@scripts/tests.sh arch

.PHONY: contract
contract: testbed-ready ## the adapters, and what is installed, against a real API server
	@scripts/tests.sh contract

.PHONY: playbooks
playbooks: $(STAMP) ## every shipped playbook against its golden plan
	@scripts/tests.sh playbooks

.PHONY: manifests
manifests: $(STAMP) ## everything that is installed: CRDs, RBAC, policies, alerts
	@scripts/tests.sh deploy

.PHONY: e2e
e2e: testbed-ready ## the whole program against a real control plane
	@scripts/tests.sh e2e

.PHONY: test
test: check testbed-ready ## everything: check, then all tests (WORKERS=1: one after the other)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: test-long
test-long: testbed-ready ## what takes too long for every change: every crash point, long outages
	$(BIN)/python -m pytest -m long

.PHONY: chaos
chaos: $(STAMP) ## the long run on the simulator: 500 histories, all crash points, many pairs, 256 orders
	$(BIN)/remediator chaos run --seeds 1..500 --workers 2
	$(BIN)/remediator chaos crash-points --pairs 200 --workers 2
	$(BIN)/remediator chaos interleavings --depth 4 --workers 2
	$(BIN)/remediator chaos scenario --variants --workers 2

.PHONY: test-oldest
test-oldest: export REMEDIATOR_TESTBED_KUBERNETES = oldest
test-oldest: testbed-ready ## what needs a real API server, on the oldest Kubernetes that is supported
	@scripts/tests.sh contract deploy e2e -- -m "not long and not watch_list"

.PHONY: testbed-build
testbed-build: $(STAMP) ## build the real control plane from its Go modules, once
	$(BIN)/python -m remediator.testbed build

# Without Go and without a control plane built before, the tests that need one are left out; they say
# so themselves at the end of the run, and with CI=true that is a failure (tests/conftest.py).
.PHONY: testbed-ready
testbed-ready: $(STAMP)
	@if command -v go >/dev/null 2>&1; then $(MAKE) testbed-build; fi

.PHONY: demo
demo: $(STAMP) ## a simulated fleet and what goes wrong in it, in a minute
	$(BIN)/remediator demo

.PHONY: demo-real
demo-real: $(STAMP) ## three incidents on a real control plane on this machine
	$(BIN)/remediator demo --real

.PHONY: bench
bench: $(STAMP) ## measure the figures of the design; results as JSON
	$(BIN)/python -m bench

.PHONY: image
image: $(STAMP) ## build the container image with buildah (PYTHON_IMAGE=name@digest: over that base)
	@PYTHON_IMAGE="$(PYTHON_IMAGE)" scripts/image.sh remediator:dev

.PHONY: image-test
image-test: testbed-ready ## start the built image against a real control plane; needs podman and root
	@scripts/image-test.sh

.PHONY: rules
rules: ## check and try the alert rules with promtool
	@tools=$$(scripts/prometheus-tools.sh) && cd deploy/components/prometheus \
	  && "$$tools/promtool" check rules alerts.yaml && "$$tools/promtool" test rules alerts_test.yaml \
	  && "$$tools/amtool" check-config alertmanager-route.yaml

.PHONY: clean
clean: ## remove the environment, caches and results; the built control plane stays
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf build dist htmlcov .coverage .coverage.* bench/results test-results
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
