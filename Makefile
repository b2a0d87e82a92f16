# make run    install what is missing, then run the default experiment on real Xen and judge it
# make test   install what is missing, then all checks and tests, those on real Xen among them
# make specs  all models of the specs in TLC, against specs/manifest.json
# make mutants  all mutants of Libxenvchan.tla, against tests/specs/mutation/mutants.json
# make places  where both ends of a channel may be with which page, by TLC: specs/places.json
# make matrix  each fault at each action of the spec, against tests/matrix/cells.json
# make conforming  ten thousand random runs, none of which may be rejected
# make pausing  two thousand random runs that pause, none of which may be taken for one that hangs
# make hangs  each reproducer of a reported hang, 20 times, and how often it came out as it is meant
# make siege  a traced end under a million stores of garbage, at each end, in each manner
# make setup  only install what is missing
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TESTS ?= tests

EXTENSION_SOURCES := pyproject.toml setup.py $(wildcard bindings/build_*.py bindings/declarations.py \
  tracer/build_*.py tracer/core/*.c tracer/core/*.h tracer/preload/*.c)

.PHONY: run test specs mutants places matrix conforming pausing hangs siege setup packages lint \
  clean

run: setup
	$(BIN)/vchan-testbed run $(ARGS)

# Two at once: one worker has what boots Xen, the other one all else (tests/conftest.py).
test: lint
	$(BIN)/pytest -n 2 --no-loadscope-reorder $(TESTS)

specs: setup
	$(BIN)/vchan-testbed specs $(ARGS)

mutants: setup
	$(BIN)/python tests/specs/mutation/sweep.py $(ARGS)

places: setup
	$(BIN)/python tests/specs/places/make.py $(ARGS)

matrix: setup
	$(BIN)/python tests/matrix/detection.py $(ARGS)

conforming: setup
	$(BIN)/python tests/matrix/conforming.py $(ARGS)

pausing: setup
	$(BIN)/python tests/matrix/pausing.py $(ARGS)

hangs: setup
	$(BIN)/python tests/matrix/hangs.py $(ARGS)

siege: setup
	VCHAN_TESTS_STORES=1000000 $(BIN)/pytest tests/tracer/test_hostile.py $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: packages $(VENV)/installed

packages:
	@guests/packages/install.sh guests/packages/machine.list

$(VENV)/installed: $(EXTENSION_SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "$(PYTHON) is older than 3.11. Next: make PYTHON=python3.11, or another one that is newer")'
	@echo "Python packages: into $(VENV), with the project itself; this can take a minute ..."
	@began=$$(date +%s); \
	$(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'; \
	touch $@; \
	echo "Python packages: installed in $$(( $$(date +%s) - began )) s"

clean:
	rm -rf $(VENV) build src/*.egg-info
	find bindings tracer -name '*.so' -delete
