# Every target sets up what it needs; Python 3.11 or later and make are enough.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
UV_VENV := .cache/uv
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

.DEFAULT_GOAL := help
.PHONY: help setup demo test up tools prometheus jaeger bench bench-limiter bench-overload bench-tails history stack stack-check fuzz audit check lint type proto proto-check docs docs-check breaking lock-check lock clean

# .venv keeps the Python it was made with until another one is asked for.
ifneq ($(origin PYTHON),undefined)
ifneq ($(shell cat $(VENV)/.python 2>/dev/null),$(PYTHON))
.PHONY: $(STAMP)
endif
endif
PYTHON ?= $(or $(shell cat $(VENV)/.python 2>/dev/null),python3)

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything, at the locked versions

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "The venv module of Python is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@test "$$($(BIN)/python --version 2>&1)" = "$$($(PYTHON) --version 2>&1)" || $(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/dev.txt
	$(PIP_INSTALL) --no-build-isolation --editable .
	@echo '$(PYTHON)' > $(VENV)/.python
	@touch $@

demo: $(STAMP) ## Ask a real question of a real local model, through all four services
	@$(BIN)/ensemble demo

up: $(STAMP) ## Run the four services on 127.0.0.1:50051-50054
	@$(BIN)/ensemble up

test: $(STAMP) ## Run all tests, with branch coverage
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov

tools: $(STAMP) ## Build Jaeger, grpc_health_probe, grpcurl and ghz at the versions of tools/versions.toml into .cache/tools, with Go
	@$(BIN)/python scripts/tools.py

prometheus: $(STAMP) ## Unpack Prometheus and promtool from a package of Debian or Ubuntu into .cache/tools
	@$(BIN)/python scripts/tools.py prometheus

jaeger: $(STAMP) ## Run Jaeger on loopback, with spans in memory; docs/tracing.md says what one sees
	@$(BIN)/python scripts/tools.py jaeger
	@echo 'Jaeger runs until Ctrl-C: OTLP on 127.0.0.1:'$${JAEGER_OTLP_GRPC_PORT:-4317}' (gRPC) and :'$${JAEGER_OTLP_HTTP_PORT:-4318}' (HTTP), its API on 127.0.0.1:'$${JAEGER_QUERY_HTTP_PORT:-16686}' (no page: it is not in the Go module).'
	@echo 'Point the services at it:  ENSEMBLE__TELEMETRY__ENDPOINT=http://127.0.0.1:'$${JAEGER_OTLP_GRPC_PORT:-4317}' make up'
	@echo 'Read what came:            $(BIN)/python scripts/trace_tree.py'
	@exec .cache/tools/bin/jaeger --config tools/jaeger.yaml

bench: $(STAMP) ## Measure the main job beside a naive client
	@$(BIN)/python -m bench

bench-limiter: $(STAMP) ## Measure the limiter beside a bare echo, with its state in memory and in Redis
	@$(BIN)/python -m bench.limiter

bench-overload: $(STAMP) ## Measure what comes out of a gateway that is asked ten times too much
	@$(BIN)/python -m bench.overload

bench-tails: $(STAMP) ## Measure what quorum and hedges do to heavy tails
	@$(BIN)/python -m bench.tails

OPS ?= 1500
REPLICAS ?= 2
history: $(STAMP) ## Drive several limiters over one Redis, with crashes and kills, and check the history (OPS=1500 REPLICAS=2)
	@$(BIN)/python -m bench.history --ops $(OPS) --replicas $(REPLICAS)

REQUESTS ?= 2000
SEED ?= 1
fuzz: $(STAMP) ## Send a running gateway what strangers may send, and hold all it says against the rules (REQUESTS=2000 SEED=1)
	@$(BIN)/python -m bench.fuzz --requests $(REQUESTS) --seed $(SEED) $(ARGS)

audit: $(STAMP) ## Look for dangerous code, and for known vulnerabilities of what is depended on (AUDIT=required: fail where they cannot be known)
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive services scripts bench
	@$(BIN)/python scripts/audit.py requirements/runtime.txt requirements/dev.txt

COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
stack: ## Run the services, Redis, a local model and Jaeger in containers, the gateway on 127.0.0.1:50051
	@deploy/secrets.sh
	$(COMPOSE) up --detach --build

stack-check: ## Prove on a real engine what the image and the compose file promise (STAND_INS=1 without a registry of images)
	@deploy/verify.sh

check: lint type proto-check docs-check breaking lock-check ## Everything that guards main except the tests

lint: $(STAMP) ## Style of the Python code and of the protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

type: $(STAMP) ## Static types, strictly
	$(BIN)/mypy

proto: $(STAMP) ## Generate the code of the protos
	$(BIN)/python scripts/generate.py protos

proto-check: $(STAMP) ## Check that the generated code is fresh
	$(BIN)/python scripts/generate.py --check protos

docs: $(STAMP) ## Write the generated parts of docs/errors.md
	$(BIN)/python -m scripts.error_page

docs-check: $(STAMP) ## Check that the generated parts of docs/errors.md are fresh
	$(BIN)/python -m scripts.error_page --check

breaking: $(STAMP) ## Check that the protos still understand callers of main
	$(BIN)/python scripts/breaking.py

lock-check: $(STAMP) ## Check that the lock files name no host and cover pyproject.toml
	$(BIN)/python scripts/lock_check.py

lock: $(STAMP) ## Resolve the lock files anew (add ARGS=--upgrade for newer versions)
	@test -x $(UV_VENV)/bin/uv || { $(BIN)/python -m venv $(UV_VENV) && $(UV_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	$(BIN)/python scripts/lock.py $(UV_VENV)/bin/uv $(ARGS)

clean: ## Remove everything that was made
	rm -rf $(VENV) .cache build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
