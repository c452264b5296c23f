# One environment in .venv, made by the first Python that is new enough; every target may be run again.
# A stamp newer than pyproject.toml means: installed, and no network is needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && command -v "$$name" && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar on
TEST_OPTIONS ?=
DEMO_OPTIONS ?=

.PHONY: help
help:  ## What can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later is needed, and none was found on PATH."; exit 2; }
	@echo "Making $(VENV) with $(PYTHON) ..."
	@shared=$$("$(PYTHON)" -c 'import importlib.util as u; print("--system-site-packages" if u.find_spec("torch") else "")'); \
	"$(PYTHON)" -m venv $$shared $(VENV) || \
		{ rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing arobust-otel into $(VENV) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing arobust-otel and its development tools into $(VENV) ..."
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@

.PHONY: install
install: $(VENV)/.installed-dev  ## The package and its development tools, in .venv.

.PHONY: demo
demo: $(VENV)/.installed  ## Break a real training job and see the culprit named.
	@$(BIN)/arobust demo $(DEMO_OPTIONS)

.PHONY: torch
torch: $(VENV)/.installed  # PyTorch for tests: the one at hand, or the one that the demo keeps in the cache.
	@$(BIN)/python -m arobust_otel.demo.torch_env

.PHONY: test
test: $(VENV)/.installed-dev torch  ## All tests, with three live cases: hang, kill and none.
	$(BIN)/python -m pytest tests $(TEST_OPTIONS)

.PHONY: test-live
test-live: $(VENV)/.installed-dev torch  ## Every fault, ranks 0 and 2, three times; a table of times to verdict.
	$(BIN)/python tests/live/matrix.py

.PHONY: stack-programs
stack-programs: $(VENV)/.installed-dev  ## Build Collector, Prometheus, Loki, Jaeger, Alertmanager for tests (needs Go).
	@$(BIN)/python -m tools.stack.programs

.PHONY: test-stack
test-stack: $(VENV)/.installed-dev torch stack-programs  ## A live hang into all of these, and the questions people ask.
	$(BIN)/python -m pytest tests/stack -o python_files="test_*.py whole_stack.py" -p no:randomly $(TEST_OPTIONS)

.PHONY: test-compose
test-compose: $(VENV)/.installed-dev torch stack-programs  ## docker-compose.yml on a real engine, Grafana aside.
	$(BIN)/python -m pytest tests/compose/whole_compose.py -s -p no:randomly $(TEST_OPTIONS)

.PHONY: lint
lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/lint-imports
	$(BIN)/python -m arobust_otel.docs --check
	$(BIN)/python -m tools.alerts --check

.PHONY: check
check: lint test  ## Format, lint, types, import contracts, documentation freshness, tests.

.PHONY: bench
bench: $(VENV)/.installed  ## What the engine costs per request and per tick.
	$(BIN)/arobust bench engine --ranks 1000,10000

.PHONY: bench-client
bench-client: $(VENV)/.installed  ## What reporting costs, beside the bare exporters.
	$(BIN)/python benchmarks/client.py

.PHONY: docs
docs: $(VENV)/.installed  ## Write the generated pages.
	$(BIN)/python -m arobust_otel.docs
	$(BIN)/python -m tools.alerts

.PHONY: dashboards
dashboards: $(VENV)/.installed-dev  ## Write the Grafana boards.
	@$(BIN)/python -m dashboards.source

.PHONY: clean
clean:  ## Remove .venv and everything that tools left.
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find arobust_otel tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
