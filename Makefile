# make demo   renders a few films, indexes them and finds moments by sentences
# make ui     shows the demo library in a browser
# make test   runs the tests
# make format formats, and repairs what ruff can repair
# make cov    the tests with coverage
# make check  formatting, lint, types, layers, tests: what CI runs
# make eval   measures the bundled checkpoints on held-out films and fails where a figure fell behind the recorded one
# make faults breaks every step of writing in every way
# make bench  prints the figures of docs/benchmarks.md
# make bench-vectors  prints recall, cost and memory of the vector index, against others from PyPI
# Each makes .venv first where it is not there; a second run starts at once.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# the gpu extra where an NVIDIA driver answers, else cpu; `make demo FAISS=cpu` decides by hand
FAISS  ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: demo ui test eval faults format cov check lint bench bench-vectors clean

demo: $(READY)
	$(BIN)/scanonce demo

ui: demo/index/manifest.json
	$(BIN)/scanonce ui --index demo/index

demo/index/manifest.json: | $(READY)
	$(BIN)/scanonce demo

test: $(READY)
	$(BIN)/python -m pytest

eval: $(READY)
	$(BIN)/python -m scanonce.training.bundled.gate

faults: $(READY)
	# every fault at every step of writing; `make test` tries a part of them
	FAULT_STRIDE=1 NUM_HISTORIES=4 $(BIN)/python -m pytest -n0 tests/test_crashes.py tests/test_storage_history.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

cov: $(READY)
	$(BIN)/python -m pytest --cov=scanonce --cov-report=html --cov-report=term:skip-covered

check: lint test

bench-vectors: $(READY)
	$(BIN)/python -m benchmarks.vectors

bench: $(READY)
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.api
	$(BIN)/python -m benchmarks.encoders
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.torture
	$(BIN)/python -m benchmarks.fuzz

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.2"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(FAISS),dev]"
	touch $@

clean:
	rm -rf $(VENV) demo bench
