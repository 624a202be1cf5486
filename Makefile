# The verbs of the project. Everything lands in .venv; a second call is quick.
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= demo-out

.DEFAULT_GOAL := help
.PHONY: help install demo test faults soak serve lint bench clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch alone and first: a later resolution must not pull in another build of it
.venv/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[record3d]'
	@touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[test]'
	@touch $@

install: .venv/.installed ## make .venv with the service and the core

demo: .venv/.installed ## make a capture, upload it, watch it become a scene, download the novel views
	$(BIN)/python -m worker.demo --out $(DEMO_OUT)

serve: .venv/.installed ## the service on http://127.0.0.1:8000, embedded
	$(BIN)/dpdy serve

test: .venv/.installed-test browser ## the whole suite, in two processes; a file is not divided
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: browser
browser: # the page is tested in a real browser
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| { echo "chromium is missing: install it (Debian: apt-get install chromium)"; exit 1; }

faults: .venv/.installed-test ## all fault tests, and their table in docs/reliability.md (some 20 minutes)
	FAULT_TABLE=1 $(BIN)/python -m pytest -m '(fault or faults) and not soak'

soak: .venv/.installed-test ## half an hour of random faults on a whole service; SOAK_SEED=N repeats their order
	FAULT_TABLE=1 $(BIN)/python -m pytest tests/faults/test_soak.py -m soak

lint: .venv/.installed-test ## ruff, mypy, import arrows, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit

bench: .venv/.installed-test ## tables of speed; never pass or fail
	$(BIN)/python -m tests.bench

clean: ## remove .venv and what runs left behind
	rm -rf .venv demo-out dpdy-data
