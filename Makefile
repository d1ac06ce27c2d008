# Everything a contributor runs. `make demo` and `make test` need nothing but Python 3.11, 3.12 or 3.13.
PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: demo up down test check bench bench-link clean lint types imports lock

demo: .venv/.installed
	$(BIN)/carespine demo

up: .venv/.installed
	$(BIN)/carespine up

down: .venv/.installed
	$(BIN)/carespine down

test: .venv/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types imports test

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/mypy

imports: .venv/.installed
	$(BIN)/lint-imports

bench: .venv/.installed
	$(BIN)/python -m tests.load

bench-link: .venv/.installed
	$(BIN)/python -m tests.load.link

# The environment is exactly the lock: every file with its hash, then this checkout on top of it.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Takes the newest versions that the ranges of pyproject.toml admit.
lock:
	$(PYTHON) -m venv var/lock
	var/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	var/lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock

# Removes what can be made again; the data of a running installation (var/) stays.
clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -not -path './var/*' -exec rm -rf {} +
