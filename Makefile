# make demo   renders a few films, indexes them and finds moments by sentences
# make ui     shows the demo library in a browser
# make test   runs the tests
# make check  formatting, lint, types, layers, tests: what CI runs
# make bench  prints the figures of docs/benchmarks.md
# Each makes .venv first where it is not there; a second run starts at once.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# the gpu extra where an NVIDIA driver answers, else cpu; `make demo FAISS=cpu` decides by hand
FAISS  ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: demo ui test check lint bench clean

demo: $(READY)
	$(BIN)/scanonce demo

ui: demo/index/manifest.json
	$(BIN)/scanonce ui --index demo/index

demo/index/manifest.json: | $(READY)
	$(BIN)/scanonce demo

test: $(READY)
	# decord's native threads stay out of the process in which torch encodes from several threads, as in the indexer
	$(BIN)/python -m pytest tests/test_indexer_decoders.py
	$(BIN)/python -m pytest --ignore=tests/test_indexer_decoders.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

bench: $(READY)
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.encoders

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.2"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(FAISS),dev]"
	touch $@

clean:
	rm -rf $(VENV) demo bench
