# Every target builds what it needs from nothing, in .venv; a second call finds it done.
# Another interpreter: make test PYTHON=/path/to/python3.12
# Tests of one room: make test ROOM=shards

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := scratch/demo
BENCHES := $(sort $(wildcard bench/*.py))
ROOMS := $(patsubst tests/%/,%,$(filter-out %/__pycache__/,$(sort $(wildcard tests/*/))))
# An environment of Python 3.12 with LeRobot, of 5.6 GB: made if it is not there.
LEROBOT ?= /tmp/peers-lerobot
# Whichever process is idle takes tests over from the other.
PYTEST := $(BIN)/pytest -n auto --dist worksteal tests$(ROOM:%=/%)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

ifneq ($(ROOM),$(filter $(ROOM),$(ROOMS)))
$(error ROOM: expected one of $(ROOMS); got '$(ROOM)')
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-lerobot check hooks bench docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.test ## sample -> compile -> inspect -> verify -> audit -> show -> train laq -> train vla, in scratch/demo
	rm -rf $(DEMO)
	$(BIN)/oxcart sample rlds $(DEMO)/src
	$(BIN)/oxcart compile $(DEMO)/src/oxcart_kitchens/1.0.0 $(DEMO)/out --val-fraction 0.2
	$(BIN)/oxcart inspect $(DEMO)/out
	$(BIN)/oxcart verify $(DEMO)/out
	$(BIN)/oxcart audit $(DEMO)/out -o $(DEMO)/audit.html
	$(BIN)/oxcart show $(DEMO)/out -o $(DEMO)/strip.png
	$(BIN)/oxcart train laq preset=tiny data.datasets=[$(DEMO)/out] run.dir=$(DEMO)/laq train.steps=150
	$(BIN)/oxcart sample vlm $(DEMO)/vlm
	$(BIN)/oxcart train vla preset=tiny model=$(DEMO)/vlm data.datasets=[$(DEMO)/out] data.laq=$(DEMO)/laq \
		run.dir=$(DEMO)/vla train.steps=30 val.samples=64 val.baselines=256

test: $(VENV)/.test ## the fast tests, in minutes
	$(PYTEST) -m "not system"

test-system: $(VENV)/.test ## Ray, kills, the wheel, long trainings; every property and fuzzer at full depth
	$(PYTEST) -m "system or hypothesis" --hypothesis-profile full || test $$? -eq 5  # 5: the room has none

test-lerobot: $(VENV)/.test $(LEROBOT)/READY ## LeRobot itself opens exports; LEROBOT=DIR says where its environment is
	PYTHONPATH=tests $(BIN)/python tests/opened_by_lerobot.py $(LEROBOT)/bin/python

check: $(VENV)/.dev ## lint, format, types, generated docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python docs/generate_cli.py --check

hooks: $(VENV)/.dev ## run those checks before every commit
	$(BIN)/pre-commit install

bench: $(VENV)/.test ## measure: every script of bench/
	set -e; for script in $(BENCHES); do echo "$$script"; $(BIN)/python "$$script"; done

docs: $(VENV)/.test ## write docs/cli.md anew
	$(BIN)/python docs/generate_cli.py

clean: ## remove caches, build products and the demo; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(DEMO)
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Stamps: each is newer than whatever it was installed from.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "oxcart needs Python 3.11 or newer, '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.created
	$(INSTALL) -e '.[test,train,flow,quantizers,vla,lora,ray]'
	@touch $@

$(LEROBOT)/READY:
	python3.12 -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check 'lerobot[dataset]==0.6.1'
	touch $@

# On top of .test, so that two installs never run at once under make -j.
$(VENV)/.dev: $(VENV)/.test
	$(INSTALL) -e '.[test,train,flow,quantizers,vla,lora,dev]'
	@touch $@
