# `make help` lists the targets. Everything is installed into .venv, from requirements.lock, checked against its hashes.
# The first of these that runs and is of a version we know; a pyenv shim may be there and not run.
PYTHON3 ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PYTHON := .venv/bin/python
UV := .venv/bin/uv
BUNDLE ?= bundles/breast_cancer

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint format lock proto clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 22

demo: .venv/ready ## train breast_cancer, serve it, print a decision; CHECK=1 stops after the decision
	$(PYTHON) examples/breast_cancer/train.py $(BUNDLE)
	.venv/bin/tabserve up $(BUNDLE) $(if $(CHECK),--check)

test: lint ## everything that needs no cluster; pytest's closing line comes last
	$(PYTHON) -m pytest -m "not cluster and not long"

test-long: .venv/ready ## what takes minutes, or a machine that has nothing else to do
	$(PYTHON) -m pytest -m "long and not cluster"

lint: .venv/ready ## ruff, mypy --strict, import contracts
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

format: .venv/ready ## let ruff format the code
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lock: .venv/ready ## resolve pyproject.toml again into requirements.lock
	$(UV) pip compile pyproject.toml --universal --all-extras --group dev --group bench --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" --upgrade -q -o requirements.lock

proto: .venv/ready ## generate the gRPC messages again
	$(PYTHON) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. tabserve/inference/grpc/open_inference.proto

clean: ## remove what the other targets made, except the cluster
	rm -rf .venv bundles .mypy_cache .pytest_cache .ruff_cache *.egg-info build

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON3) -m venv .venv || { apt-get update -q && apt-get install -qy python3-venv && $(PYTHON3) -m venv .venv; }
	sed -n '/^uv==/,/[0-9a-f]$$/p' requirements.lock > .venv/uv.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(UV) pip sync -q --python $(PYTHON) --require-hashes requirements.lock
	$(UV) pip install -q --python $(PYTHON) --no-deps --no-build-isolation --editable .
	touch $@

-include charts/chart.mk benchmarks/bench.mk loadtest/loadtest.mk tests/cluster/cluster.mk
