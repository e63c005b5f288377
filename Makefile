# Needs only python3 (3.11 or later), make and a C compiler. `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help demo up test test-access test-compat test-deploy test-terraform test-cluster test-integrations test-node test-api check format chaos bench
.PHONY: bench-peers lab lab-images lab-up lab-shell lab-down images clean
BIN := .venv/bin
VERSION = $(shell sed -n 's/^version: //p' deploy/helm/sie-cluster/Chart.yaml)
KUBERNETES := etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy pause
BUILD ?= docker build
BUILD_ARGS = --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE))

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## Start a local cluster scaled to zero, embed a real text through the SDK, stop it all
	@python3 tools/setup.py demo
	@$(BIN)/sie demo

up: ## Run the same cluster on port 8080 until Ctrl-C
	@python3 tools/setup.py demo
	@$(BIN)/sie up

test: ## Run the whole fast suite
	@python3 tools/setup.py dev
	@$(BIN)/pytest

test-compat: ## Run the published SDKs against this cluster (needs Python 3.12, PYTHON312=path, and PyPI)
	@python3 tools/setup.py dev
	@PYTHONPATH=tests/support $(BIN)/python tools/compat.py $(PYTHON312)

test-deploy: ## Run the suite of the Helm chart and the images (helm is built from source the first time)
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py helm
	@$(BIN)/pytest tests/deploy

test-terraform: ## Run the suite of the Terraform modules: no cloud, no credentials (OpenTofu is built where there is no Terraform)
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py helm
	@$(BIN)/pytest tests/terraform

test-cluster: test-api test-node ## Both suites that need a real Kubernetes

test-api: ## Run the suites that need a real Kubernetes API (built from source the first time) and Prometheus
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py etcd kube-apiserver kubectl helm
	@$(BIN)/pytest tests/cluster tests/prometheus

check: ## Lint, formatting, types, import contracts, generated files
	@python3 tools/setup.py dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy packages tests tools
	$(BIN)/lint-imports
	$(BIN)/python tools/unasync.py --check
	$(BIN)/python tools/models_table.py --check
	$(BIN)/python tools/chart_readme.py --check
	$(BIN)/python tools/terraform_docs.py --check

format: ## Format the code and regenerate what is generated
	@python3 tools/setup.py dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/unasync.py
	$(BIN)/python tools/models_table.py
	$(BIN)/python tools/chart_readme.py
	$(BIN)/python tools/terraform_docs.py

test-integrations: ## Run the recipes of docs/integrations with the frameworks' own packages (installed once, elsewhere)
	@python3 tools/setup.py dev
	@$(BIN)/python tools/integrations.py

test-access: ## Sign in through nginx and oauth2-proxy as the chart sets them up, with a real issuer of tokens (nginx, Go)
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py helm oauth2-proxy
	$(BIN)/pytest tests/access

test-node: lab-images ## Run our images and chart on a whole cluster: node, pods, Prometheus, KEDA (root, Debian)
	@$(BIN)/python tools/lab/inside.py $(BIN)/pytest tests/node $(NODE_OPTIONS)

lab: ## Run a real Kubernetes API on loopback until Ctrl-C
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py etcd kube-apiserver
	@PYTHONPATH=tools $(BIN)/python -m lab.run

lab-images: ## Build the images of this clone, and all that a whole cluster needs (root, Debian; the first time from source)
	@python3 tools/setup.py dev
	@$(BIN)/python tools/lab/binaries.py $(KUBERNETES) kubectl helm keda-operator keda-adapter
	@PYTHONPATH=tools $(BIN)/python -m lab.images

lab-up: lab-images ## Leave a whole cluster running: a node with pods, names, Prometheus, images (root, Debian)
	@PYTHONPATH=tools $(BIN)/python -m lab.background up

lab-shell: ## A shell in it, with kubectl and helm; tests/node run in it as well
	@PYTHONPATH=tools $(BIN)/python -m lab.background enter $${SHELL:-bash}

lab-down: ## End it
	@PYTHONPATH=tools $(BIN)/python -m lab.background down

chaos: ## Ten minutes of killed, stopped, failing and restarted processes under load; prints what clients saw
	@python3 tools/setup.py dev
	$(BIN)/pytest tests/chaos --chaos-seconds 600 --timeout 900 -s

bench: ## Measure the worker beside the hardware and sentence-transformers, the router beside other proxies
	@python3 tools/setup.py dev
	$(BIN)/python tools/bench/run.py

bench-peers: ## Measure the worker beside other servers (installs them: gigabytes, minutes, once)
	@python3 tools/setup.py dev
	$(BIN)/python tools/bench/peers.py

images: ## Build the images of router and workers with Docker or buildah (BUILD="buildah build", PYTHON_IMAGE, TORCH_CPU_FROM)
	$(BUILD) $(BUILD_ARGS) -f deploy/docker/router.Dockerfile -t sie-router:v$(VERSION) .
	$(BUILD) $(BUILD_ARGS) -f deploy/docker/worker.Dockerfile --target cpu --build-arg TARGET=cpu --build-arg TORCH_CPU_FROM="$(TORCH_CPU_FROM)" -t sie-server:v$(VERSION)-cpu-default .
	$(BUILD) $(BUILD_ARGS) -f deploy/docker/worker.Dockerfile --target cuda --build-arg TARGET=cuda -t sie-server:v$(VERSION)-cuda12-default .

clean: ## Remove the virtual environment and every cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
