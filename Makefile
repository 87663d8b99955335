# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check slow mutants newest peers benchmark reproduce figures clean

demo: .venv/demo
	$(BIN)/duologue train a2c CartPole-v1 --seed $(SEED) --config examples/demo.yaml

test: .venv/dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

check: .venv/dev  # style, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(MAKE) test

slow: .venv/dev  # learning tests of minutes
	$(BIN)/python -m pytest -m slow

mutants: .venv/dev  # planted bugs, each of which must die
	$(BIN)/python tests/mutants.py

newest:  # the core beside the newest Gymnasium, which gymnax forbids
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check . "gymnasium>=1.4"
	.venv-newest/bin/python examples/cartpole.py --steps 20000

peers: .peers/done  # other libraries, to be compared with

benchmark: .venv/dev
	$(BIN)/python benchmarks/speed.py

reproduce: .venv/dev
	$(BIN)/python reproductions/reproduce.py

figures: .venv/dev
	$(BIN)/python docs/make_figures.py

clean:
	rm -rf .venv .venv-newest .peers .cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Duologue needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing (once)"
	$(PIP) --editable ".[plots]"
	@touch $@

.venv/dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing (once)"
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/demo

.peers/done:
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/peers.txt \
		torch stable-baselines3 sb3-contrib sbx-rl swig "gymnasium[box2d,mujoco]" \
		gym structlog click colorama dataclasses-json scikit-learn h5py
	# Without what it asks for: it wants an old gymnasium, and learns from data without any.
	.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps d3rlpy==2.8.1
	@touch $@
