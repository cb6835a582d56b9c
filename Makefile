# Run `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INVENTORY ?= inventories/local
PLAYBOOK := $(BIN)/ansible-playbook -i $(INVENTORY)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo lint check test lab lab-programs lab-images clean-lab

help:           ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## the virtual environment with everything pinned

$(STAMP): $(wildcard constraints.txt) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

demo: venv      ## build the local cluster and deploy the reference platform on it
	$(BIN)/runbook deploy local

lint: venv      ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint     ## the same, and unit and golden tests: under a minute
	$(BIN)/pytest -q -n 2 tests/unit tests/golden

# As root the local cluster is built first; without root what needs it is skipped, and said.
# RUNBOOK_KILLS=20 kills more deploys than the usual 5; RUNBOOK_CLEAN_LAB=1 also tests that the cluster goes away whole.
test: venv      ## every test, on the local cluster
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory lab; fi
	$(BIN)/pytest --durations=15 -n 2 --dist loadfile tests/unit tests/golden tests/contract
	$(BIN)/pytest --durations=15 tests/crash tests/e2e
	@if [ -n "$$RUNBOOK_CLEAN_LAB" ]; then $(BIN)/pytest tests/lab; fi

lab: venv       ## only the local cluster
	$(PLAYBOOK) playbooks/cluster.yml

lab-programs: venv  ## only build the cluster's programs (15 min the first time)
	$(PLAYBOOK) playbooks/cluster.yml --tags programs

lab-images: venv    ## only build the cluster's images (1 min the first time)
	$(PLAYBOOK) playbooks/cluster.yml --tags programs,images

clean-lab: venv ## remove the local cluster from this machine; what was built stays
	$(PLAYBOOK) playbooks/clean-lab.yml
