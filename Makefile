# The commands of this project. Bare `make` lists them.

# Which Python the environment gets, such as `make PYTHON=python3.13`; by default the first that is new enough.
PYTHON ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
SEED ?=
ONLY ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARSER := .ci/asyncapi/node_modules/.package-lock.json
CACHES := .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

# Hundreds of processes start in the tests. Without compiled modules each would take seconds to import them anew.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo up ha test chaos bench bench-short lint format asyncapi dist try-dist try-image try-upgrade lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Create the environment, .venv (the other commands do so by themselves)

demo: $(INSTALLED) ## Start everything, send commands, show what comes of them, stop
	@$(BIN)/enrollment demo

up: $(INSTALLED) ## Start everything and leave it running until Ctrl-C
	@$(BIN)/enrollment up

ha: $(INSTALLED) ## Start all that is highly available, kill one thing after another while commands flow, count, stop
	@$(BIN)/python -m tests.acceptance.faults.highly_available

test: $(INSTALLED) ## Run all tests; PYTEST_ARGS="-k word" for some of them
	@$(BIN)/pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: $(INSTALLED) ## Measure beside other queues, and write docs/performance.*: ten minutes on a quiet machine
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-short: $(INSTALLED) ## The same in five minutes, one round; BENCH_ARGS="--only profile" for parts of it
	@$(BIN)/python -m benchmarks --short $(BENCH_ARGS)

chaos: $(INSTALLED) ## Break everything again and again for half an hour; SEED=7 to repeat, ONLY=Redis for some of it
	@$(BIN)/python -m tests.acceptance.faults --only "$(ONLY)" $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED) ## Check style, format, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED) ## Format the code, and repair what can be repaired safely
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

asyncapi: $(PARSER) ## Validate docs/asyncapi.json with AsyncAPI's own parser (needs node and npm)
	@node .ci/asyncapi/validate.mjs docs/asyncapi.json

LOCKED := --no-emit-package enrollment-client --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet

lock: ## Write constraints.txt anew: the newest versions pyproject.toml allows (needs uv)
	@command -v uv > /dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --upgrade \
		$(LOCKED) --output-file constraints.txt
	@uv pip compile pyproject.toml --extra gateway --extra flower --universal --python-version 3.11 --generate-hashes \
		--constraints constraints.txt $(LOCKED) --output-file deploy/docker/requirements.txt

dist: $(INSTALLED) ## Build both distributions, wheel and sdist, into dist/
	@rm -rf dist build enrollment/build
	@for project in enrollment .; do $(BIN)/python -m build --no-isolation --outdir dist $$project > /dev/null; done

try-dist: dist ## As a stranger: install both into fresh environments, and run the main job there (needs uv)
	@command -v uv > /dev/null || { echo "make try-dist needs uv: pip install uv"; exit 1; }
	@$(BIN)/pytest --quiet -o pythonpath=.ci/wheels -o timeout=600 .ci/wheels --ignore=.ci/wheels/test_image.py

try-image: dist ## As root on Debian: build the image without an engine, and run the main job in it (needs uv, buildah, debootstrap)
	@$(BIN)/pytest --quiet -o pythonpath=.ci/wheels -o timeout=900 .ci/wheels/test_image.py

try-upgrade: $(INSTALLED) ## Kill workers of an older commit (OLD=b9fab5c) and of this one, around the migration (needs uv)
	@OLD=$(OLD) $(BIN)/pytest --quiet -o timeout=600 .ci/upgrade

clean: ## Remove the environment, the local servers with their data, and all caches
	@for link in .local/postgres/elsewhere .local/bench/servers/postgres/elsewhere; do \
		if [ -L $$link ]; then rm -rf "$$(readlink $$link)"; fi; \
	done
	@rm -rf $(VENV) .local $(CACHES) *.egg-info enrollment/*.egg-info enrollment/build .ci/asyncapi/node_modules examples/node/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PARSER): .ci/asyncapi/package-lock.json
	@cd .ci/asyncapi && npm ci --silent
	@touch $@

# Exact versions checked by their hashes, then this project, built by the setuptools that has just been checked.
$(INSTALLED): pyproject.toml enrollment/pyproject.toml constraints.txt
	@rm -rf $(VENV)
	@if command -v uv > /dev/null; then $(with_uv); else $(with_pip); fi
	@touch $@

HASHED := --require-hashes --no-deps --requirement constraints.txt
OURSELVES := --no-deps --no-build-isolation --editable enrollment --editable .

define with_uv
	set -e; \
	uv venv --quiet --python "$(or $(PYTHON),>=3.11)" $(VENV); \
	uv pip install --quiet --python $(BIN)/python $(HASHED); \
	uv pip install --quiet --python $(BIN)/python $(OURSELVES)
endef

define with_pip
	set -e; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2> /dev/null; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or later is needed, and $(or $(PYTHON),python3) is none: make PYTHON=/path/to/python"; exit 1; \
	fi; \
	if ! "$$python" -m venv $(VENV); then \
		rm -rf $(VENV); \
		echo "$$python cannot create environments; on Debian and Ubuntu: apt install python3-venv. Or install uv."; exit 1; \
	fi; \
	echo "Installing into $(VENV) with pip; this takes a minute."; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(HASHED); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(OURSELVES)
endef
