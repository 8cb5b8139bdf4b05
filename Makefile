# `make serve` and `make test` each set everything up on a fresh machine and run.
# The lock is a list of names and hashes; any index that pip is configured for will do.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Browsers, networks and decoding do the same on either database.
DATABASE_TESTS := $(filter-out $(addprefix tests/app/test_,$(addsuffix .py,batching browser browser_worklist cli_importing \
	cli_quality cli_training decoding inference outgoing viewer_browser)),$(wildcard tests/app/test_*.py))
# A process a core, each with one thread: most of the suite is small networks and waiting.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Behind a proxy with a certificate of its own, uv must trust what the system trusts, as pip does.
export UV_SYSTEM_CERTS := 1

.PHONY: help setup serve test test-postgres lint bench bench-detector bench-kept soak lock clean

help:
	@echo "make serve   the dashboard at http://127.0.0.1:8000 (research use, not for diagnosis)"
	@echo "make test    the whole suite        make lint   ruff and mypy"
	@echo "make bench   ratios, side by side   make setup  the installing part alone"
	@echo "make bench-detector   trains, calibrates and judges what the detector is judged on (hours, resumable)"
	@echo "make bench-kept       the tables of what was judged, from the records in bench/judged (seconds)"
	@echo "make soak    kills server and worker at random, and counts (long)"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip -q
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q uv
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/python -m uv pip install -q --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/python -m uv pip install -q --no-deps -e .
	@touch $@

serve: setup
	$(BIN)/overread serve

test: setup
	$(PYTEST)

# What touches the database, once more on a throwaway PostgreSQL server; says so and passes where none is installed.
test-postgres: setup
	@.ci/with-postgres env $(PYTEST) $(DATABASE_TESTS) || { code=$$?; test $$code = 77 && \
		echo "make test-postgres: skipped, nothing was tested on PostgreSQL."; exit $$((code == 77 ? 0 : code)); }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m bench

# DATA: a folder in ChestX-ray14's layout. OUT: where runs and judgements are kept; what is there is not done again.
DATA ?= $(or $(OVERREAD_REAL_DATA),../shared)/chestxray14
OUT ?= runs/detector
JOBS ?= 1
bench-detector: setup
	$(BIN)/python -m bench.detector --data $(DATA) --out $(OUT) --jobs $(JOBS)

bench-kept: setup
	$(BIN)/python -m bench.detector --data $(DATA) --kept

soak: setup
	$(BIN)/python -m bench.soak
	$(BIN)/python -m bench.soak_training

lock:
	$(BIN)/python -m uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --all-extras pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist
