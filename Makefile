# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A name on PATH may be a shim that does not run, so each is tried; pyenv knows the interpreters behind its shims.
NEWEST ?= $(or $(shell for python in python3.14 python3.13 $$(pyenv whence --path python3.14 2>/dev/null; \
	pyenv whence --path python3.13 2>/dev/null); do \
	$$python -c "import ensurepip" 2>/dev/null && echo $$python && break; done),$(PYTHON))
PIP_NEWEST := .venv-newest/bin/python -m pip install --quiet --disable-pip-version-check

# Half of the tests, each package of the nine among them, in a quarter of the time: few whole trainings.
SHORT := tests/loops tests/networks tests/ops tests/storage tests/envs tests/data tests/cli tests/runs/display \
	$(addprefix tests/runs/test_,config.py plan.py policy.py session.py) \
	$(addprefix tests/algorithms/test_,a2c.py cloning.py constants.py fqe.py iql.py sac.py td3.py) \
	tests/test_fields.py tests/test_refusals.py

.PHONY: demo test check slow mutants newest peers benchmark reproduce figures clean

demo: .venv/demo
	$(BIN)/duologue train a2c CartPole-v1 --seed $(SEED) --config examples/demo.yaml

test: .venv/dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --durations=10

check: .venv/dev  # style, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(MAKE) test

slow: .venv/dev  # learning tests of minutes
	$(BIN)/python -m pytest -m slow

mutants: .venv/dev  # planted bugs, each of which must die
	$(BIN)/python tests/mutants.py

newest:  # the newest of everything, gymnax and rlax left out: the core alone, then a short half of the tests
	@echo "newest Python that runs: $(NEWEST), $$($(NEWEST) --version)"
	$(NEWEST) -m venv --clear .venv-newest
	$(PIP_NEWEST) --editable . "gymnasium>=1.4"
	.venv-newest/bin/python examples/cartpole.py --steps 20000
	$(PIP_NEWEST) --editable ".[dev-newest]"
	.venv-newest/bin/python -m pip list --disable-pip-version-check
	.venv-newest/bin/python -m pytest -m "not slow" -rs --numprocesses 2 --dist worksteal --durations=10 $(SHORT)

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
