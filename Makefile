# `make demo` and `make test` need Python 3.11 or newer and make; they set up everything else in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a worker: more threads than cores make small matrix products many times slower. One worker more than cores,
# as tests wait for services and processes that they start.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 3 ] && echo 4 || echo $$((n + 1)))
# A file's tests stay together, so that services and models that they share are made once.
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test check lint slow bench profile figures clean

demo: $(STAMP)  ## train on the embedded shop and measure
	$(BIN)/gru4rec demo

test: $(STAMP)  ## run the tests
	$(PYTEST) $(SPREAD) tests

check: $(STAMP) lint  ## lint, types, doctests and tests
	$(PYTEST) $(SPREAD) tests
	$(PYTEST) --doctest-modules gru4rec

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict gru4rec

slow: $(STAMP)  ## reproduce the published figures on the real logs (about ten minutes)
	$(PYTEST) -m slow tests/parity

bench: $(STAMP)  ## measure speed and memory on this machine, to benchmarks/results
	$(BIN)/python benchmarks/bench.py

profile: $(STAMP)  ## where a training step's time goes
	$(BIN)/python benchmarks/profile_step.py

figures: $(STAMP)  ## draw img/ from benchmarks/results (needs matplotlib: pip install -e '.[bench]')
	$(BIN)/python benchmarks/figures.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; call: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
