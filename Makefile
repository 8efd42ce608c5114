# Every set-up step leaves a stamp in .venv, so a second call starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
  --annotation-style line --custom-compile-command "make lock"

# The order is that of tests/conftest.py: slow files first.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast lint lock clean browser

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' \
	  $(MAKEFILE_LIST)

quickstart: $(VENV)/.core ## set up, train, evaluate and make a report
	@$(BIN)/python experiments/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.full $(VENV)/.tpu browser lint ## set up, check style, run every test
	@$(BIN)/python -m pytest $(SPREAD)

test-fast: $(VENV)/.full $(VENV)/.tpu browser ## run the quick test files of every package
	@$(BIN)/python -m pytest $(SPREAD) -m "not soak and not slow"

lint: $(VENV)/.full ## check style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright

lock: $(VENV)/.uv ## renew requirements*.txt from requirements.in and setup.py
	@$(COMPILE) requirements.in setup.py --extra gemma --extra test \
	  --output-file requirements.txt > /dev/null
	@$(COMPILE) setup.py --constraints requirements.txt \
	  --output-file requirements-core.txt > /dev/null
	@$(COMPILE) setup.py --extra tpu --constraints requirements.txt \
	  --output-file requirements-tpu.txt > /dev/null

clean: ## remove .venv and caches; runs/ stays
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "error: jaxsae needs Python 3.11 or newer, and $(PYTHON) is not;" \
	  "name one, e.g. make PYTHON=python3.12" >&2; exit 2; }
	@echo "Making $(VENV) with $(PYTHON)."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@touch $@

$(VENV)/.core: $(VENV)/.uv requirements-core.txt setup.py
	@echo "Installing the light core, 40 packages."
	@$(INSTALL) --requirements requirements-core.txt
	@$(INSTALL) --no-deps --editable .
	@touch $@

# Plain pip goes first with torch, and brings what that machine's wheel needs,
# be it the CPU build or the CUDA packages that the lock leaves out. From Python
# 3.12 on the lock has no torch, and tests that need it say so and are skipped.
$(VENV)/.full: $(VENV)/.uv requirements.txt setup.py
	@echo "Installing the locked environment, up to 270 packages."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint requirements.txt "torch ; python_version < '3.12'"
	@$(INSTALL) --requirements requirements.txt
	@$(INSTALL) --no-deps --editable .
	@touch $@

# The TPU's compiler, for the tests that compile for a TPU without one. It lies
# apart: where JAX finds it, JAX looks for a TPU and complains if there is none.
$(VENV)/.tpu: $(VENV)/.uv requirements-tpu.txt
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  echo "Fetching the TPU compiler."; \
	  $(INSTALL) --target $(VENV)/tpu --no-deps \
	    --constraints requirements-tpu.txt libtpu; \
	fi
	@touch $@

# The report is tested in a real browser; without one, those tests fail.
browser:
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null \
	|| if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing Chromium for the tests of the report."; \
	  apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	    chromium chromium-driver > /dev/null; \
	else \
	  echo "The tests of the report will fail: there is no Chromium; install" \
	    "chromium and chromedriver, and put both on PATH." >&2; \
	fi
