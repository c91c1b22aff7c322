# `make demo` shows the workbench, `make test` runs every test; both need only Python 3.11 to 3.13, make and git.

VENV := .venv
BIN := $(VENV)/bin
CHROMIUM_NAMES := chromium chromium-browser google-chrome

# the first Python that is new and old enough; a name may be a shim that refuses to run
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$name && break; \
	done)
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo ,gpu)

# a set of extras is installed once and then remembered by a stamp
CORE := $(VENV)/.installed-$(if $(GPU),gpu,core)
LAB := $(VENV)/.installed-lab$(GPU)
TEST := $(VENV)/.installed-test,lab$(GPU)

REST := $(if $(GPU),slow or browser or gpu,(slow or browser) and not gpu)

# as many workers as cores share the cores already; threads of BLAS would only wait for one another
check rest: export OPENBLAS_NUM_THREADS := 1

.PHONY: help demo lab test check rest chromium bench peers clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(CORE)  ## install, profile a model and show what it waits for
	$(BIN)/workbench demo

lab: $(LAB)  ## install and open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

check: $(TEST)  ## style, types, layers and the quick tests
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow and not browser and not gpu" \
		--ignore=tests/benchmarks --ignore=tests/browser --ignore=tests/gpu

test: check rest  ## everything: check, then slow, browser and notebook tests, and those of the GPU where there is one

rest: check chromium
	$(BIN)/pytest -n $(if $(GPU),0,auto) --maxprocesses 2 --dist loadfile --no-loadscope-reorder -m "$(REST)" \
		--ignore=tests/benchmarks
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal -m "hypothesis and not slow and not gpu" \
		--hypothesis-profile=thorough --ignore=tests/benchmarks --ignore=tests/browser --ignore=tests/gpu

bench: $(TEST)  ## speed, as ratios against a plain baseline
	$(BIN)/pytest tests/benchmarks -s $(if $(GPU),,-m "not gpu")

peers: $(VENV)/peers/.installed  ## how quick and how exact another tool is on the events of the import benchmark
	PYTHONPATH=tests $(VENV)/peers/bin/python -m benchmarks.peer_hta

# browser tests skip without Chromium and say so; under CI a skipped browser would pass unseen, so it is an error
chromium:
	@for name in $(CHROMIUM_NAMES); do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
		echo "Installing Chromium for the browser tests …"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium \
			>/dev/null && exit 0; \
	fi; \
	echo "Chromium is missing, so browser tests cannot run: install it (Debian: apt-get install chromium)." >&2; \
	[ "$${CI:-false}" != true ]

clean:  ## remove the virtual environment, caches and builds
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "No Python from 3.11 to 3.13 was found: install one, or name it as in make PYTHON=/path/to/python." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# --no-compile: Python compiles what it imports, which is a fraction of what is installed
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "Installing the workbench$(if $(filter-out core,$*), with $*) into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.$(if $(filter-out core,$*),[$*])'
	@touch '$@'

# other tools have requirements of their own
$(VENV)/peers/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/peers
	@$(VENV)/peers/bin/pip install --quiet --disable-pip-version-check 'HolisticTraceAnalysis>=0.5'
	@touch '$@'
