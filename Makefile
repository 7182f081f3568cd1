# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer, pip and make.
# Another Python or torch: `make test PYTHON=python3.11 TORCH=torch`.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
BIN    := .venv/bin
PEERS  := .venv-peers/bin

.PHONY: demo test lint peers clean

.venv/installed: pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'gno: expected Python 3.11 or newer, got '+sys.version)"
	@echo "installing into .venv, which takes a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install -qq --disable-pip-version-check -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/gno demo

# Two processes of one thread each: more threads than cores would get in each other's way.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-modules gno --ignore=gno/kernels

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What gno is compared with, in an environment of its own; `make peers TORCH=torch==2.13.0` with another torch.
.venv-peers/installed: pyproject.toml benchmarks/peers-requirements.txt
	$(PYTHON) -m venv .venv-peers
	echo "$(TORCH)" > .venv-peers/constraints.txt
	$(PEERS)/pip install --quiet --disable-pip-version-check "$(TORCH)" setuptools wheel ninja
	$(PEERS)/pip install --quiet --disable-pip-version-check -c .venv-peers/constraints.txt \
		-r benchmarks/peers-requirements.txt -e .
	MAX_JOBS=1 $(PEERS)/pip install --quiet --disable-pip-version-check --no-build-isolation torch-scatter==2.1.2
	touch $@

peers: .venv-peers/installed

clean:
	rm -rf .venv .venv-peers build dist *.egg-info demo
