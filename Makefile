# engram: every target is a line or two that you could type by hand. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# The newest supported interpreter first in the list that has everything pinned; set PYTHON=... for another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
# Tests run side by side, file by file. They mostly wait (for clusters, processes, deadlines): four for two cores.
# Each worker has a control plane of its own. By hand, `.venv/bin/pytest FILE` runs one after the other.
# Tests start hundreds of processes: without byte code each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo test check test-unit test-cluster test-slow test-sedna chaos fuzz e2e e2e-kubeedge cluster-up cluster-down images deploy undeploy \
	docs generate pictures format benchmark benchmark-reference benchmark-training benchmark-federation benchmark-operator \
	benchmark-scrape benchmark-install clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-zA-Z0-9_-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with everything for development (respects PIP_FIND_LINKS)

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py engram/federation/_kernel.c
	@test -n "$(PYTHON)" || { echo "engram needs Python 3.11 or newer: install it, or say where: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "no venv module: on Debian and Ubuntu 'apt-get install python3-venv'"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -c 'from engram.federation.kernel import COMPILED; raise SystemExit(not COMPILED)' || \
		echo "numpy does the aggregator's sums; for compiled ones install a C compiler and Python's headers (Debian: gcc python3-dev) and touch hatch_build.py"
	@touch $(INSTALLED)

demo: install ## Run examples/01-digits.yaml for finetune, replay and icarl; print the leaderboard and the report's path
	$(BIN)/engram run examples/01-digits.yaml --vary algorithm.name=finetune,replay,icarl

test: check ## Everything but slow tests and real nodes: linters, types, layers, units, processes, control plane
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not nodes"

check: install ## Linters, types, layers, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m engram.spec.generate --check
	$(BIN)/python -m charts.generate --check

test-unit: install ## The fast tests only: no processes, no browser, no cluster
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not process and not browser and not control and not nodes"

test-cluster: install ## The operator and the CRD on a real control plane (etcd, API server, controllers, scheduler)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "control and not slow"

e2e: install ## Real jobs in real containers on three real nodes, with faults (root; builds images)
	$(BIN)/pytest -m "nodes and not kubeedge" --timeout 1200

e2e-kubeedge: install ## The same on two clusters whose edge nodes run KubeEdge's edgecore (builds KubeEdge once); not part of e2e
	$(BIN)/python -m tests.cluster build --kubeedge
	$(BIN)/pytest -m kubeedge -n 2 --dist loadfile --timeout 1200

cluster-up: install ## Start a three-node Kubernetes on this machine and put its context into the kubeconfig
	$(BIN)/python -m tests.cluster up --nodes 3

cluster-down: install ## Stop it, whatever state it is in
	$(BIN)/python -m tests.cluster down

images: install ## Build the runtime and operator images; where cluster-up runs, without a registry and into its nodes
	@if $(BIN)/python -m tests.cluster status >/dev/null; \
	then $(BIN)/python -m tests.cluster.base_image && $(BIN)/python -m tests.cluster load; \
	else images/build; fi

deploy: ## CRD, roles and operator into the cluster of the kubeconfig in use
	kubectl apply --server-side -f crds -f deploy
	kubectl -n engram-system rollout status deployment/engram-operator --timeout 120s

undeploy: ## Take the operator out again; jobs and the CRD stay
	kubectl delete --ignore-not-found -f deploy/operator.yaml

test-slow: install ## Long trainings with their reference figures; steps blocked and networks cut for minutes
	$(BIN)/pytest -m slow --timeout 3600

test-sedna: install ## KubeEdge's Sedna library against ours; SEDNA_PYTHON=an interpreter that has it (docs/sedna.md)
	$(BIN)/pytest -m sedna -rs

fuzz: install ## A million mutated messages: no crash, no hang, memory flat (stops after ten minutes)
	$(BIN)/python -m tests.fuzz

chaos: install ## A job of 90 rounds under 100 SIGKILLs gives the same matrix as without (minutes)
	$(BIN)/python -m tests.chaos

docs: install ## The documentation as a site in site/, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

generate: install ## Make the CRD and the field reference again from the types, the manifests of deploy/ from the chart
	$(BIN)/python -m engram.spec.generate
	$(BIN)/python -m charts.generate

pictures: install ## Draw the dashboards of docs/ again, from a real run that a real Prometheus watches
	ENGRAM_PICTURES=docs/images $(BIN)/pytest tests/observability/test_run.py -k picture

format: install ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmark: install ## Every algorithm at five label ratios with five seeds (hours; resumes what runs/fashion-fcil-20 holds)
	$(BIN)/python benchmarks/fashion_fcil_20.py --keep runs/fashion-fcil-20 \
		--json docs/benchmark/fashion-fcil-20.json --page docs/benchmark.md

benchmark-reference: install ## Accuracy and forget rate of every algorithm against the bars of the README
	$(BIN)/python benchmarks/reference.py

benchmark-training: install ## CPU time of a local step of most algorithms beside a bare PyTorch loop, samples a second
	$(BIN)/python benchmarks/training.py --json docs/benchmark/training.json --page docs/benchmark.md

benchmark-federation: install ## Seconds a federated round beside the limit of the loopback, CPU time, memory
	$(BIN)/python benchmarks/federation.py --peers --json docs/benchmark/federation.json --page README.md

benchmark-operator: install ## Apply to pods, API writes, memory and idle CPU of the operator with 1,000 jobs
	$(BIN)/python benchmarks/operator.py

benchmark-scrape: install ## Milliseconds and series of a scrape of an aggregator
	$(BIN)/python benchmarks/scrape.py

benchmark-install: install ## Seconds from an empty machine to a job with report and full dashboards (root)
	$(BIN)/python benchmarks/install.py --json docs/benchmark/install.json

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
