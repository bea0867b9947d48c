# Two commands to begin with: `make run` and `make test`. PYTHON chooses the interpreter (3.11 or newer), HOME_DIR the site's folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= site
SITE ?= sample
DATA ?=

.PHONY: run ui test test-fast lint bench clean docs

$(BIN)/.ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Gridlake needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The tests also drive what a laptop does without: Kubernetes, brokers, an object store.
$(BIN)/.ready-to-test: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,kubernetes,streams,standins]'
	@touch $@

$(HOME_DIR)/gridlake.yaml: | $(BIN)/.ready
	$(BIN)/gridlake init $(HOME_DIR) --site $(SITE) $(if $(DATA),--data $(DATA))

run: $(BIN)/.ready $(HOME_DIR)/gridlake.yaml  ## make a site if there is none, and bring it up to date
	$(BIN)/gridlake --home $(HOME_DIR) refresh

ui: $(BIN)/.ready $(HOME_DIR)/gridlake.yaml  ## the Dagster UI over the same site, on loopback
	$(BIN)/gridlake --home $(HOME_DIR) ui

test: $(BIN)/.ready-to-test  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

test-fast: $(BIN)/.ready-to-test  ## without the slow tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not slow"

lint: $(BIN)/.ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BIN)/.ready  ## the end-to-end benchmark; benchmarks/README.md lists the others
	$(BIN)/python -m benchmarks.end_to_end

docs: $(BIN)/.ready  ## write the generated documents anew
	$(BIN)/python -m tests.generated

clean:  ## remove the environment and the default site
	rm -rf $(VENV) site
