# `make` alone lists what there is. Each target does its own set-up: python3 with pip and venv is
# all that has to be there. Everything is made below .venv/ and build/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready-for-state-bundler
# What is passed on to pytest or to the demonstration, as in: make test ARGS="-k guard -x"
ARGS ?=
# pytest keeps the compiled tests; what the tests start writes no byte code (tests/conftest.py).
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
# How many test modules run at once: as many as there are idle cores.
WORKERS ?= 2

# Thousands of small repositories are made faster in memory, if a gigabyte of it is free.
FREE_KIB = $(shell df --output=avail -k /dev/shm 2>/dev/null | tail -1)
IN_MEMORY = $(shell [ $(or $(FREE_KIB),0) -gt 1000000 ] && echo TMPDIR=/dev/shm)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) ## the whole of it on a sample project with a loopback API, in ./state-bundler-demo
	@$(BIN)/state-bundler demo $(ARGS)

.PHONY: quick
quick: $(READY) ## the unit tests: no engine, no Dagster, no network
	$(IN_MEMORY) $(PYTEST) -n $$(($(WORKERS) + 1)) -m 'not slow' --hypothesis-profile quick \
		-o tmp_path_retention_count=1 tests/unit $(ARGS)

# A slip that a linter finds does not keep the tests from running, but it fails the target, too.
.PHONY: test
test: $(READY) ## everything that must hold before a commit: linters, types, all tests
	tests/support/install-debian-packages
	@linted=0; $(MAKE) --no-print-directory check || linted=$$?; $(PYTEST) -n $(WORKERS) $(ARGS); exit $$linted

.PHONY: check
check: $(READY) ## only the linters and the types: seconds
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(READY) ## sort imports, fix what can be fixed, format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: pex-matrix
pex-matrix: $(READY) ## every way to make a PEX, tried: most of an hour; writes docs/evidence/pex-matrix.md
	$(BIN)/python -m tests.campaigns.pex_matrix $(ARGS)

.PHONY: faults
faults: $(READY) ## break refreshes at every system call, cut the power: most of an hour, as root; writes docs/evidence/faults.md
	tests/support/install-debian-packages
	$(BIN)/python -m tests.campaigns.fault_campaign --write docs/evidence/faults.md $(ARGS)
	$(BIN)/python -m tests.campaigns.artifact_faults --write docs/evidence/faults.md $(ARGS)

.PHONY: integrations
integrations: $(READY) ## every vendor, endpoint and fault, with the real libraries: most of an hour; writes docs/evidence/integrations.md
	$(BIN)/python -m tests.campaigns.integration_matrix --engine $(ARGS)

.PHONY: first-contact
first-contact: $(READY) ## every command in the root of each kind of repository, into build: minutes
	$(BIN)/python -m tests.campaigns.first_contact --record build/first-contact.json

.PHONY: bodies
bodies: $(READY) ## every answer that is not data, every HTTP client: minutes; writes docs/evidence/answers.md
	$(BIN)/python -m tests.campaigns.body_matrix $(ARGS)

.PHONY: docs
docs: $(READY) ## write the pages that are made from the program, and the schemas
	$(BIN)/python -m tests.support.reference
	$(BIN)/python -m bundler.project.schema
	$(BIN)/python -m bundler.cli.documents.schemas

.PHONY: site
site: $(READY) ## the documentation as a site that works offline, into build/site
	@NO_MKDOCS_2_WARNING=1 $$($(BIN)/python -m tests.support.environments site) -m mkdocs build --quiet --strict

.PHONY: diagrams
diagrams: $(READY) ## draw the diagrams of the documentation; needs npm and chromium
	$(BIN)/python docs/theme/diagrams.py

.PHONY: screenshot
screenshot: $(READY) ## take the README's picture of the status page; needs chromium
	$(BIN)/python docs/theme/screenshot.py

.PHONY: scale
scale: $(READY) ## 100 projects with 1,000 keys, built on this machine: minutes
	$(BIN)/python benchmarks/scale.py $(ARGS)

# What meets each dependency: click, docker, GitPython, msgspec, platformdirs, pex, …
FLOOR := tests/unit tests/dagster/test_refresh.py tests/dagster/test_status.py \
	tests/engine/test_docker_reading.py tests/pex/test_pexbuild.py tests/registry/test_registry.py
.PHONY: floor
floor: $(READY) ## the tests with the lowest versions that pyproject.toml allows
	rm -rf build/floor
	$(BIN)/uv venv --quiet build/floor
	$(BIN)/uv pip install --quiet --compile-bytecode --python build/floor --resolution lowest-direct --editable '.[pex,schema,store,zstd]' --group dev
	build/floor/bin/pytest $(if $(ARGS),$(ARGS),$(FLOOR))

# A pytest for each engine, at a time.
NEWER := tests/engine/newer_docker.py tests/engine/newer_builders.py tests/engine/test_docker_builders.py
NEWER_CONTAINERD := $(NEWER) $(patsubst %,tests/engine/test_docker_%.py,secrets contexts places reading)
.PHONY: docker-newer newer-containerd newer-classic newer-podman
docker-newer: $(READY) ## images in Debian's next Docker, with both of its image stores, and in podman: minutes
	@$(MAKE) --no-print-directory --keep-going --jobs=3 --output-sync newer-containerd newer-classic newer-podman
newer-containerd: $(READY)
	$(BIN)/python -m tests.support.newer_engine --store containerd -- $(NEWER_CONTAINERD) $(ARGS)
newer-classic: $(READY)
	$(BIN)/python -m tests.support.newer_engine --store classic -- $(NEWER) $(ARGS)
newer-podman: $(READY)
	$(BIN)/pytest tests/engine/newer_podman.py $(ARGS)

.PHONY: clients
clients: $(READY) ## what podman, buildah, skopeo, umoci and crane read and write: a minute
	$(BIN)/pytest tests/campaigns/other_clients.py $(ARGS)

.PHONY: executors
executors: $(READY) ## the Dagster job on Celery, Docker and Kubernetes' executors: minutes
	$(BIN)/pytest tests/campaigns/dagster_executors.py $(ARGS)

.PHONY: build
build: $(READY) ## sdist and wheel, into build/dist
	$(BIN)/uv build --quiet --out-dir build/dist

.PHONY: release-check
release-check: $(READY) ## build what would be published, twice, install it and start it: a minute
	$(BIN)/python -m tests.support.release_check $(ARGS)

# No host stands in these files: whoever installs from them asks the registry of their own.
COMPILE := uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-annotate
.PHONY: lock
lock: $(READY) ## renew the pinned requirements: of the development, of the tests' projects, of the sample
	$(BIN)/$(COMPILE) --all-extras --group dev pyproject.toml -o requirements-dev.txt
	for list in tests/requirements/*.in; do $(BIN)/$(COMPILE) "$$list" -o "$${list%.in}.txt"; done
	cp tests/requirements/dagster.txt templates/shop/requirements.txt

.PHONY: clean
clean: ## remove all that was made here
	rm -rf .venv build dist state-bundler-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Compiled at once: the tests start thousands of processes, and PYTHONDONTWRITEBYTECODE would let each
# of them compile all that it imports.
# uv comes from the registry too: it is not expected to be installed.
$(READY): requirements-dev.txt pyproject.toml
	@echo "Making the development environment in .venv …" >&2
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed")'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements-dev.txt)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements-dev.txt --editable .
	@$(BIN)/python -m compileall -q bundler
	@touch $@
