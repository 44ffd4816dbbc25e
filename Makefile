# Every target sets up what it needs from the lock files. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONTRACTS_VENV := .venv-contracts
BENCH_VENV := .venv-bench

# Everything Sluice writes. A landing area of your own gets a home of its own, so that two never mix in one lake.
ifdef LANDING
SLUICE_HOME ?= .sluice-$(notdir $(patsubst %/landing,%,$(patsubst %/,%,$(LANDING))))
else
SLUICE_HOME ?= .sluice
endif
export SLUICE_HOME
export DAGSTER_HOME = $(abspath $(SLUICE_HOME))/dagster
export DBT_SEND_ANONYMOUS_USAGE_STATS = false
export DO_NOT_TRACK = 1
# An unactivated environment: dbt and dagster are found beside its Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

PORT ?= 3000
KAFKA_PORT ?= 9092
DEMO_ARGS ?=
# Three, for two cores: the end-to-end tests wait half of their time for Dagster's daemon. A file's tests share what is
# costly to make, and stay together (tests/conftest.py). In the order of the files: the end-to-end tests, which take
# longest, come early. A worker that dies ends all at once: xdist was seen to wait for ever for one it had replaced.
# Empty for one process.
WORKERS ?= -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14
	@echo
	@echo "LANDING=<folder>   demo: load this landing area instead of a simulated shop's"
	@echo "SLUICE_HOME=<dir>  demo, dev: where lake and instance live ($(SLUICE_HOME))"
	@echo "CONTRACTS_SINCE=<revision>  lint: what the contracts are compared with ($(CONTRACTS_SINCE))"
	@echo "PORT=<n>           dev: port of the web UI ($(PORT))"
	@echo "KAFKA_PORT=<n>     kafka: port of the broker ($(KAFKA_PORT)); it takes the next one, too"
	@echo 'BENCH_ARGS="..."   bench: history daily facts ingest overhead year stream latency; --runs 3 --size 1 --rows 1000000; --help'

$(VENV)/python-checked:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else 1)' 2>/dev/null || \
	  { echo "Sluice needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo 'not there')." \
	  "Choose another: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Installing the project itself builds nothing: it makes the `sluice` command point here.
$(VENV)/runtime: $(VENV)/python-checked requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: $(VENV)/runtime requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(CONTRACTS_VENV)/ready: requirements-contracts.lock
	$(PYTHON) -m venv $(CONTRACTS_VENV)
	$(CONTRACTS_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-contracts.lock
	@touch $@

$(BENCH_VENV)/ready: requirements-bench.lock
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

.PHONY: demo
demo: $(VENV)/runtime ## load a month of a simulated shop (or LANDING=<folder>) into a published warehouse
	@$(BIN)/python demo.py $(if $(LANDING),--landing '$(LANDING)') $(DEMO_ARGS)

.PHONY: dev
dev: $(VENV)/runtime ## start the Dagster UI, sensors and schedules on 127.0.0.1
	@$(BIN)/python -m resources.instance $(PORT)
	$(BIN)/dagster dev --host 127.0.0.1 --port $(PORT) --workspace workspace.yaml

# Java and Maven of the machine; what Kafka needs comes through Maven and stays in its cache.
.PHONY: kafka
kafka: $(VENV)/python-checked ## run a Kafka broker on 127.0.0.1, its data under SLUICE_HOME, to stream from
	@$(BIN)/python deploy/kafka_broker.py --folder $(SLUICE_HOME)/kafka --port $(KAFKA_PORT)

.PHONY: test
test: $(VENV)/dev ## run the tests, but for those of test-slow
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

.PHONY: test-slow
test-slow: $(VENV)/dev ## run the tests that take long: backfills, captures, a whole year, random facts
	$(BIN)/python -m pytest $(WORKERS) -m slow

.PHONY: test-all
test-all: $(VENV)/dev ## run both at once, as .ci/run does: what they share is made once, and no worker waits for the last file twice
	$(BIN)/python -m pytest $(WORKERS)

.PHONY: test-deep
test-deep: $(VENV)/dev ## SCD_EXAMPLES random histories (1000), the real year in YEAR_PIECES pieces (20), anew each time; latency
	SCD_EXAMPLES=$(or $(SCD_EXAMPLES),1000) YEAR_PIECES=$(or $(YEAR_PIECES),20) $(BIN)/python -m pytest \
	  -n 2 --dist worksteal --durations=10 tests/scd tests/test_online_retail.py tests/test_any_order.py \
	  tests/benchmarks/test_latency_benchmark.py

.PHONY: test-fuzz
test-fuzz: $(VENV)/dev ## FUZZ_FILES spoilt files (10000) from FUZZ_SEED (a new one each time), and files that unpack to much
	FUZZ_FILES=$(or $(FUZZ_FILES),10000) $(if $(FUZZ_SEED),FUZZ_SEED=$(FUZZ_SEED)) $(BIN)/python -m pytest -rP tests/fuzz

.PHONY: test-faults
test-faults: $(VENV)/dev ## kill FAULT_KILLS processes (200) from FAULT_SEED (a new one each time); full disks, lost files, wrong clocks
	@seed=$(or $(FAULT_SEED),$$RANDOM$$RANDOM); echo "FAULT_SEED=$$seed"; \
	FAULT_KILLS=$(or $(FAULT_KILLS),200) FAULT_SEED=$$seed $(BIN)/python -m pytest -rP $(WORKERS) \
	  tests/faults tests/e2e/test_daemon_killed.py tests/sluice/test_verification.py tests/sluice/capture/test_exactly_once.py

.PHONY: test-streams
test-streams: $(VENV)/dev ## STREAM_EVENTS events (1000000), STREAM_CHANGES changes (100000), STREAM_KILLS kills (24) from FAULT_SEED, all real
	@seed=$(or $(FAULT_SEED),$$RANDOM$$RANDOM); echo "FAULT_SEED=$$seed"; \
	STREAM_EVENTS=$(or $(STREAM_EVENTS),1000000) STREAM_CHANGES=$(or $(STREAM_CHANGES),100000) \
	STREAM_KILLS=$(or $(STREAM_KILLS),24) FAULT_SEED=$$seed $(BIN)/python -m pytest -rP tests/faults/test_streams.py

# What the contracts are compared with: the commit before, or for instance origin/main. A shallow clone may have neither.
CONTRACTS_SINCE ?= HEAD^

.PHONY: lint
lint: $(VENV)/dev $(CONTRACTS_VENV)/ready ## check Python, SQL, contracts, and dependencies for known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd dbt_project && ../$(BIN)/sqlfluff lint --disable-progress-bar models tests
	cd dbt_project && ../$(BIN)/sqlfluff lint --disable-progress-bar --config .sqlfluff ../examples/*/dbt_project/models
	@$(BIN)/python .ci/audit.py requirements-dev.lock
	@for contract in contracts/*.odcs.yaml examples/*/contracts/*.odcs.yaml; do \
	  $(CONTRACTS_VENV)/bin/datacontract lint $$contract > /tmp/datacontract.$$$$ 2>&1 || { cat /tmp/datacontract.$$$$; exit 1; }; \
	done; rm -f /tmp/datacontract.$$$$; echo "contracts: valid ODCS"
	@if git rev-parse --quiet --verify "$(CONTRACTS_SINCE)^{commit}" > /dev/null 2>&1; then \
	  $(BIN)/python -m sluice contracts diff "git:$(CONTRACTS_SINCE)"; \
	else echo "contracts: no revision $(CONTRACTS_SINCE) here to compare them with"; fi

.PHONY: format
format: $(VENV)/dev ## rewrite Python and SQL in the house style
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	cd dbt_project && ../$(BIN)/sqlfluff fix --disable-progress-bar models tests
	cd dbt_project && ../$(BIN)/sqlfluff fix --disable-progress-bar --config .sqlfluff ../examples/*/dbt_project/models

.PHONY: bench
bench: $(VENV)/dev $(BENCH_VENV)/ready ## measure against peers (BENCH_ARGS: which, and options)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# The numbers of docs/benchmarks.md: what is measured replaces what was kept under its name. BENCH_ARGS=render only
# writes page and charts anew.
.PHONY: bench-docs
bench-docs: $(VENV)/dev $(BENCH_VENV)/ready ## likewise, and keep the results in docs/
	$(BIN)/python -m benchmarks $(BENCH_ARGS) --json docs/benchmarks.json --markdown docs/benchmarks.md --charts docs/images

.PHONY: lock
lock: ## resolve the lock files anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --extra cdc -c requirements.lock pyproject.toml -o requirements-cdc.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --upgrade requirements-contracts.in -o requirements-contracts.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --upgrade requirements-bench.in -o requirements-bench.lock

.PHONY: clean
clean: ## remove the demo's lake and all caches, keep the environments
	rm -rf .sluice .sluice-* dbt_project/target dbt_project/logs dbt_project/models/sources/contracts.yml .pytest_cache .mypy_cache .ruff_cache .hypothesis
