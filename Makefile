# make demo: set everything up and run the main job on the embedded default.
# make test: set everything up and pass the tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip
PACKAGING := $(wildcard packaging/*/*)

.PHONY: demo test check setup oracles browser hosts binder lock clean format

demo: setup ## the main job: bundled sample, packaged model, two engines, early stop
	$(BIN)/bertkit demo

test: setup oracles browser hosts ## all tests and notebooks, with the independent references they compare with
	BERTKIT_QUICK=1 $(BIN)/pytest --durations=25 --nbmake --nbmake-timeout=900 tests notebooks

check: setup ## the quick ones: format, lint, types, arrows between rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/nbstripout notebooks/*.ipynb

setup: $(VENV)/.set-up

# What the machine lacks is said before anything large is fetched.
$(VENV)/.set-up: pyproject.toml requirements.lock $(PACKAGING)
	$(PYTHON) packaging/horovod/build_horovod.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(UV) install --quiet --compile-bytecode --requirements requirements.lock
	$(UV) install --quiet --no-deps ./packaging/minilm
	@echo "Compiling Horovod for this machine (two minutes on two cores, once; later set-ups reuse it)"
	$(UV) install --quiet --no-deps ./packaging/horovod
	$(UV) install --quiet --no-deps --editable .
	touch $@

# References to compare with: by pip, never among the product's own dependencies.
oracles: $(VENV)/.oracles

$(VENV)/.oracles: $(VENV)/.set-up $(wildcard tests/oracles/*.txt)
	$(UV) freeze --quiet --exclude-editable | grep -v ' @ ' > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement tests/oracles/requirements.txt --constraint $(VENV)/constraints.txt
	$(UV) install --quiet --upgrade \
		--target .oracles/transformers-4 --requirement tests/oracles/transformers-4.txt
	$(UV) install --quiet --upgrade --constraint $(VENV)/constraints.txt \
		--target .oracles/optax --requirement tests/oracles/optax.txt
	touch $@

# A real browser drives JupyterLab in tests/browser.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
		echo "Installing Debian's chromium for the browser tests" && \
		apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes --no-install-recommends chromium > /dev/null; } || \
		echo "No Chromium here, so the browser tests will skip: sudo apt install chromium"

# tests/hosts makes several hosts out of network namespaces, with an ssh server in each.
hosts:
	@command -v ip > /dev/null && test -x /usr/sbin/sshd || { \
		test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
		echo "Installing Debian's iproute2 and openssh-server for the tests with several hosts" && \
		apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes --no-install-recommends \
			iproute2 openssh-client openssh-server > /dev/null; } || \
		echo "No sshd or ip here, so tests/hosts will skip: sudo apt install iproute2 openssh-server"

binder: setup ## replay binder/ as Binder would: a clean environment by pip, a server, the demo notebook
	$(BIN)/python -m benchmarks.binder_replay --out benchmarks/results/binder_replay.json

lock: setup ## pin every dependency anew
	$(UV) compile --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
		--group dev --no-emit-package horovod --no-emit-package bertkit-minilm \
		pyproject.toml --output-file requirements.lock

clean: ## remove what set-up and runs made here; the compiled Horovod stays in ~/.cache/bertkit
	rm -rf $(VENV) .oracles runs build dist .pytest_cache .mypy_cache .ruff_cache
