# Everything runs from .venv, which is made on first use: no activation needed. `make demo` is the place to start.
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.stamp
PACKAGES := isthmus.parties isthmus.psi isthmus.horizontal isthmus.vertical isthmus.transfer isthmus.flows

.DEFAULT_GOAL := demo
BENCHES := demo vertical psi heart horizontal byzantine secagg transfer network start
.PHONY: demo demo-network demo-postgres test test-unit check format chaos chaos-network chaos-operation attack-network attack-server planted-workers browser-up $(addprefix bench-,$(BENCHES))

demo: $(STAMP)
	$(BIN)/isthmus demo

# Needs root: network namespaces. ROOTLESS=1 gives each party a loopback address instead.
demo-network: $(STAMP)
	$(BIN)/python tests/network/demo_network.py

# Needs root, and Debian's postgresql and nginx-light: docs/deploy.md, block by block, on machines out of Linux namespaces.
demo-postgres: $(STAMP)
	$(BIN)/python tests/deploy/deploy_postgres.py

test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Without the whole jobs: minutes less, for while one works.
test-unit: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not whole"

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))
	PYTHONPATH=typings $(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# QUICK=1 runs a short form; DATA=folder takes the data from there. Both reach the script through the environment.
export QUICK DATA ROOTLESS
$(addprefix bench-,$(BENCHES)): bench-%: $(STAMP)
	$(BIN)/python tests/bench/bench_$*.py

chaos: $(STAMP)
	$(BIN)/pytest tests/chaos --ignore tests/chaos/network --ignore tests/chaos/operation

chaos-network: $(STAMP)
	$(BIN)/pytest tests/chaos/network

# -s: each test says what it has seen.
chaos-operation: $(STAMP)
	$(BIN)/pytest -s tests/chaos/operation

# What was tried against the network, and how often it got through: 0.
attack-network: $(STAMP)
	$(BIN)/python tests/attack/attack_network.py

# The same of a hostile Prefect server and of hijacked workers. As root, it also makes two users for a while.
attack-server: $(STAMP)
	$(BIN)/python tests/attack/attack_server.py

# Planted strings where each member has a worker, on SQLite; `make demo-postgres` looks for them on PostgreSQL.
planted-workers: $(STAMP)
	PLANTED=1 $(BIN)/pytest tests/flows/test_planted_workers.py

# `isthmus up` as people use it: its UI in Debian's Chromium (apt-get install chromium). Screenshots go where SHOTS says.
export SHOTS
browser-up: $(STAMP)
	$(BIN)/python -m pip install -qq --editable '.[browser]'
	$(BIN)/python tests/browser/browser_up.py

# The stamp is written last and holds the folder it was made for. If it does not match (an install was cut short, the checkout was
# moved) or the venv's Python no longer runs, .venv is made anew. If only pyproject.toml is newer, .venv is brought up to date.
WHOLE := $(shell $(BIN)/python -c "" 2>/dev/null && cat $(STAMP) 2>/dev/null)
ifneq ($(WHOLE),$(CURDIR))
.PHONY: $(STAMP)
endif

# The first Python of these that really runs, is 3.11 to 3.13 and can make a venv. (A version manager's shim may exist and not run.)
$(STAMP): pyproject.toml
	@if [ "$(WHOLE)" != "$(CURDIR)" ]; then \
	    for python in $(PYTHON) python3.11 python3.12 python3.13 python3 none; do \
	        "$$python" -c "import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" 2>/dev/null && break; \
	    done; \
	    if [ "$$python" = none ]; then \
	        echo "isthmus needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found here. Install one, or name it: make PYTHON=/path/to/python" >&2; \
	        exit 2; \
	    fi; \
	    "$$python" -m venv --clear .venv || exit; \
	fi
	@echo "Installing isthmus and what it needs into .venv (about 2 GB; 2 to 5 minutes the first time) ..."
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@echo "$(CURDIR)" > $@
