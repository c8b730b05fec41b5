# Everything a newcomer types. Needs Linux or macOS, make and Python >= 3.11; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOST ?= 127.0.0.1
PORT ?= 8080
BENCH_ROUNDS ?= 3
BENCH_PEER ?=

.PHONY: sweep test test-browser test-cluster check validate-metrics bench bench-check dashboard install clean
.DEFAULT_GOAL := sweep

sweep: $(STAMP)  ## a sweep on the sandbox; run it again to continue it
	$(BIN)/python -m sweep -m

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest

test-browser: $(STAMP)  ## the pages in Debian's chromium: apt install chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser,report]'
	$(BIN)/python -m pytest -m browser

test-cluster: $(STAMP)  ## trials through a real SLURM of one node, and ray: see docs/cluster.md
	$(BIN)/python -m pytest -m cluster

check: $(STAMP)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/mypy

validate-metrics: $(STAMP)  ## prove the metrics on fresh pictures and trainings; writes the tables of metrics/README.md
	$(BIN)/python tests/metrics/validate.py --write --trainings

bench: $(STAMP)  ## a sweep against the peer's script and a plain loop, side by side; bench/README.md
	$(BIN)/python -m bench.speed --rounds $(BENCH_ROUNDS) $(if $(BENCH_PEER),--peer $(BENCH_PEER))

bench-check: $(STAMP)  ## one round; fails if a ratio fell by more than a fifth
	$(BIN)/python -m bench.speed --rounds 1 --check $(if $(BENCH_PEER),--peer $(BENCH_PEER))

dashboard: $(STAMP)  ## optuna-dashboard on the newest study, on this machine only
	$(BIN)/python -m sweep.dashboard --host $(HOST) --port $(PORT)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stylesweep needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no environment could be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q conf hydra_plugins metrics sweep trainer  # Python would, unless it may not write
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m sweep --help >/dev/null  # so that the first one asked for is there at once
	@touch $@

clean:  ## removes the environment, never a study
	rm -rf $(VENV)
