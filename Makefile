# Everything needs only make and Python 3.11 or later: the first target that asks for it builds .venv.
PYTHON ?= python3
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
VENV := .venv/.installed
DIST ?= dist
# Where `make protos` writes.
OUT ?= .
N ?= 300

PROTOS := $(sort $(wildcard protos/pipelinehost/v1/*.proto))
SERVICES := $(shell grep -l '^service ' $(PROTOS))
RELEASED := protos/released.binpb

##@ Use it

.PHONY: help
help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { print "\n" substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV) ## build .venv with everything in it (again only after a change of dependencies)

.PHONY: demo
demo: $(VENV) ## watch a solution travel development, QA, production; SOLUTION=file.zip takes your own
	@$(BIN)/python demo/run.py $(SOLUTION)

##@ Work on it

.PHONY: test
test: $(VENV) ## run all tests; ARGS='-k name' goes to pytest
	@# Most tests of processes wait rather than work: four at once take half the time, also on two cores.
	@$(BIN)/python -m pytest -n 4 --dist loadfile $(ARGS)

.PHONY: lint
lint: $(VENV) protos-check ## check style, layers and protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

.PHONY: type
type: $(VENV) ## check types, strictly
	$(BIN)/mypy

.PHONY: breaking
breaking: $(VENV) ## check that the protos break no client of the last release
	$(BIN)/buf breaking --against $(RELEASED)

.PHONY: bench
bench: $(VENV) ## measure against bare gRPC, sockets and parsers on this machine
	$(BIN)/python -m benchmarks

.PHONY: crash
crash: $(VENV) ## kill the host N=300 times at random moments, and count what was lost or done twice
	$(BIN)/python -m tests.crash $(N)

.PHONY: canary
canary: $(VENV) ## hand over 200 secrets in 5,000 operations, and look whether one comes out anywhere
	$(BIN)/python -m tests.canary

##@ Make parts of it anew

.PHONY: protos
protos: $(VENV) ## stubs and reference pages, from the protos
	@mkdir -p $(OUT)/client $(OUT)/docs
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT)/client --pyi_out=$(OUT)/client $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=$(OUT)/client \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(OUT)/client $(SERVICES)
	$(BIN)/python docs/generate.py $(OUT)/docs

# Part of lint: what is committed must be what `make protos` writes, no file more and no file less.
.PHONY: protos-check
protos-check: $(VENV)
	@rm -rf build/protos && $(MAKE) -s protos OUT=build/protos
	@cp client/pipelinehost/v1/__init__.py build/protos/client/pipelinehost/v1/
	@( diff -r -q -x __pycache__ client/pipelinehost/v1 build/protos/client/pipelinehost/v1 && \
	  for page in api errors findings; do diff -q docs/$$page.md build/protos/docs/$$page.md || exit 1; done ) \
	  || { echo "What is committed is not what the sources say: run make protos and commit the result." >&2; exit 1; }

.PHONY: release-image
release-image: $(VENV) ## at a release only: the protos that `make breaking` compares with
	$(BIN)/buf build --exclude-source-info -o $(RELEASED)

.PHONY: constraints
constraints: ## the newest exact versions that pyproject.toml allows
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet --upgrade pip
	build/constraints/bin/python -m pip install --quiet --editable '.[cli,server]' --group dev
	@{ echo "# The exact versions that development and CI use. Made by: make constraints"; \
	  build/constraints/bin/python -m pip freeze --all --exclude-editable; } > constraints.txt

.PHONY: dist
dist: $(VENV) ## sdist, and the wheel built from it
	@rm -rf $(DIST)
	$(BIN)/python -m hatchling build -t sdist -d $(DIST)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) $(DIST)/*.tar.gz

.PHONY: clean
clean: ## remove everything that is not committed but .venv
	rm -rf build dist .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find client server tests docs demo benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null \
	  || { echo "$(PYTHON) was not found. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "PipelineHost needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	       "Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments: its module venv or ensurepip is missing." \
	       "Install it (on Debian and Ubuntu the package python3-venv)." >&2; exit 1; }
	@echo "Installing into .venv (once) ..."
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --upgrade pip
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt \
	  --editable '.[cli,server]' --group dev
	@touch $@
