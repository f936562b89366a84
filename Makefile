# One door to all commands. Every target sets up what it needs by itself; a second call is fast.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
APT := DEBIAN_FRONTEND=noninteractive apt-get
unexport PYTHONDONTWRITEBYTECODE # tests start dozens of processes, each of which would compile our modules

.PHONY: help demo test tests check unit slow chaos gpu bench lock snapshots chart-readme clean e2e kind-up kind-demo kind-down
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY) curl ## one file to one autoscaled endpoint, on real data, on this machine
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/demo.py

test: $(READY) ## style, types, layers, and all tests but the slow ones
	@$(MAKE) --no-print-directory --jobs 2 check tests

# The long files first, so that the short ones fill up what one process has left over at the end.
tests: $(READY) chromium
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" \
		tests/integration tests/contract tests/chart tests/unit

slow: $(READY) iproute ## what takes minutes by itself: runs on a Ray cluster of two nodes, a release in pods
	$(BIN)/python -m tests.mlflow_server
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not alone" tests
	$(BIN)/python -m pytest -m alone tests

chaos: $(READY) ## thirty kills and pauses over several searches; SEED=… repeats a run
	$(BIN)/python -m tests.chaos $(addprefix --seed ,$(SEED))

gpu: $(READY) ## what only a GPU shows; skipped, with the reason, where there is none
	$(BIN)/python -m pytest -rs tests/gpu
	$(BIN)/python -m benchmarks.gpu

check: $(READY) ## style, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(READY) ## the fast tests alone
	$(BIN)/python -m pytest tests/unit

e2e: $(READY) ## the whole stack, step by step, on the cluster of KUBECONFIG; see tests/e2e/README.md
	$(BIN)/python -m tests.e2e

kind-up: $(READY) ## a cluster on this machine: kind, KubeRay's operator, our image
	$(BIN)/python examples/kind.py up

kind-demo: $(READY) ## search, endpoint, load and scaling on that cluster
	$(BIN)/python examples/kind.py demo

kind-down: $(READY) ## delete that cluster
	$(BIN)/python examples/kind.py down

bench: $(READY) wrk ## every claim against its peer; a line of JSON for each
	$(BIN)/python benchmarks/help.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.labels
	$(BIN)/python -m benchmarks.transform
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/ddp.py
	$(BIN)/python benchmarks/driver.py
	$(BIN)/python benchmarks/asha.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python -m benchmarks.connection
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.rpc
	$(BIN)/python benchmarks/queueing.py
	$(BIN)/python -m benchmarks.autoscale
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python -m benchmarks.rollout
	$(BIN)/python -m benchmarks.replicas
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/folds.py
	$(BIN)/python -m benchmarks.ties
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.watches
	$(BIN)/python -m benchmarks.recommend
	$(BIN)/python -m benchmarks.quality

lock: $(READY) ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --extra local --extra mlflow --extra otel --extra dev \
		--no-annotate --no-header $(addprefix --find-links ,$(PIP_FIND_LINKS)) \
		pyproject.toml | sed 's/+cpu$$//' > requirements.lock.new
	mv requirements.lock.new requirements.lock
	echo mlflow | $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 \
		--no-annotate --no-header --output-file tests/mlflow_server.txt -

snapshots: $(READY) ## render the chart's examples anew into tests/chart/snapshots
	$(BIN)/python -m tests.chart.snapshots

chart-readme: $(READY) ## write the chart's README anew from its values
	$(BIN)/python helm/readme.py

clean: ## remove what the other targets made
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .eagleray *.egg-info

$(READY): requirements.lock pyproject.toml tests/helm_programs.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "EagleRay needs Python 3.11: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m tests.helm_programs
	@touch $@

.PHONY: curl wrk iproute chromium
iproute:
	@command -v ip > /dev/null || { $(APT) update -qq && $(APT) install -y -qq iproute2 > /dev/null; }
curl wrk chromium:
	@command -v $@ > /dev/null || { $(APT) update -qq && $(APT) install -y -qq $@ > /dev/null; }
