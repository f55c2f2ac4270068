# `make` lists the commands. Everything is installed into .venv, at pinned versions with hashes.

VENV := .venv
PYTHON := $(VENV)/bin/python
OVERLAY ?= eks-a100
IMAGE ?= docs/pictures/scene.jpg
export DAGSTER_HOME ?= $(CURDIR)
export PYTHONWARNINGS ?= ignore::DeprecationWarning

# Every stage is a process of its own: without cached bytecode each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install quickstart chat ui language-share new-crawl k8s-render preflight test lint types format lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## install everything into .venv

$(VENV)/.installed: requirements.lock
	python3.11 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet uv
	$(VENV)/bin/uv pip sync --quiet --require-hashes --compile-bytecode --python $(PYTHON) requirements.lock
	@touch $@

quickstart: install ## the whole chain on this machine, in minutes: a crawl goes in, a scored bilingual model comes out
	$(VENV)/bin/dagster job execute -m jobs -j quickstart

chat: install ## talk with the quickstart's model about an image: make chat IMAGE=my.png
	$(PYTHON) -m pipelines.chat --model data/quickstart/finetuned/blend --image $(IMAGE)

ui: install ## the Dagster web UI on http://127.0.0.1:3000
	$(PYTHON) -m jobs.prepare
	$(VENV)/bin/dagster dev -m jobs

language-share: install ## how much Chinese does tuning need? (the MpM paper's Fig. 5; after the quickstart)
	$(VENV)/bin/dagster job execute -m jobs -j language_share

new-crawl: install ## one more weekly crawl of the small world; the sensor of the web UI ingests it
	$(PYTHON) -m pipelines.world.crawl --world data/quickstart/world --name week-2 --rows 400 --seed 2 --output crawls/week-2

k8s-render: install ## all Kubernetes manifests of an overlay: make k8s-render OVERLAY=eks-a100
	@$(PYTHON) -m pipelines.deploy $(OVERLAY)

preflight: install ## what will a recipe cost, and is all there? make preflight RECIPE=recipe.yaml CLUSTER=cluster.yaml
	@$(PYTHON) -m jobs.preflight $(if $(RECIPE),--recipe $(RECIPE)) $(if $(CLUSTER),--cluster $(CLUSTER))

test: install ## all tests
	$(PYTHON) -m pytest

lint: install ## ruff: lint and format, nothing is changed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install ## mypy
	$(VENV)/bin/mypy

format: install ## ruff: mend what can be mended
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: install ## compile requirements.lock anew from pyproject.toml
	$(VENV)/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --extra dev --python-version 3.11 pyproject.toml -o requirements.lock
	for image in orchestrator gpu; do $(VENV)/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -c requirements.lock k8s/images/$$image.in -o k8s/images/$$image.lock; done

clean: ## remove the quickstart's data and Dagster's history; .venv stays
	rm -rf data/quickstart .dagster
