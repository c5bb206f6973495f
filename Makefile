.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python
STUDY ?=
NAME ?=
ARGS ?=
WORKERS ?= 2
FACTOR ?= 40
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup sweep demo table macs preflight figures report results peers sweep-time halving fronts chaos test slow fuzz lint format wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,figures,report,postgresql,slurm]'
	@touch $@

setup: $(VENV)/.installed ## install retsweep and its tools into .venv

sweep: setup ## train the 31 variants once on two cores and print the table (ARGS="scale=tiny ...")
	$(RUN) -m retsweep +sweep=ar_ratio seeds=1 $(ARGS)

demo: setup ## a handful of tiny variants, the whole loop to a printed table, under a minute
	$(RUN) -m retsweep +sweep=smoke $(ARGS)

table: setup ## tables of a finished or running study (STUDY=name; default: the newest)
	$(RUN) -m analysis.table $(STUDY)

macs: setup ## the 31 published models at paper scale: published against full against decode MACs
	$(RUN) -m retsweep +sweep=ar_ratio scale=paper task=count study=macs tracker=none

preflight: setup ## check every variant of the table for causality, equal forms, counts, gradients
	$(RUN) -m retsweep +sweep=ar_ratio task=preflight tracker=none

figures: setup ## svg, png and pdf of a study (STUDY=name; default: the newest)
	$(RUN) -m analysis.figures $(ARGS) $(STUDY)

report: setup ## one HTML page of a study, or of several (STUDY="a b"; default: the newest)
	$(RUN) -m analysis.report $(STUDY)

results: setup ## publish a study as small text in results/NAME (STUDY=name NAME=name)
	$(RUN) -m analysis.results $(STUDY) $(NAME) $(ARGS)

$(VENV)/.peers: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[peers]'
	@touch $@

peers: $(VENV)/.peers ## training and decoding against other people's models on one core (ARGS="--device=cuda")
	$(RUN) -m benchmarks.peers $(ARGS)

sweep-time: setup ## a sweep's time against a bare loop over the same models (ARGS="scale=tiny ...")
	$(RUN) -m benchmarks.sweep $(ARGS)

halving: setup ## what successive halving would have saved on the recorded curves of STUDY (ARGS="--eta=2 ...")
	$(RUN) -m benchmarks.halving $(STUDY) $(ARGS)

fronts: setup ## two studies' fronts at equal trained steps (STUDY="grid search")
	$(RUN) -m benchmarks.fronts $(STUDY) $(ARGS)

chaos: setup ## faults at random in a study on PostgreSQL: what is lost, doubled, different (ARGS="--faults=12")
	$(RUN) -m benchmarks.chaos $(ARGS)

test: setup ## the test suite, in two processes (WORKERS=n)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

slow: setup ## the tests that build a wheel, or start agents, jobs, a browser, whole sweeps
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) -m slow

lint: setup ## ruff, mypy, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

fuzz: setup ## malformed command lines, configs and sweeps by the thousand (FACTOR=n: so many times the tests' own)
	OMP_NUM_THREADS=1 RETSWEEP_FUZZ=$(FACTOR) $(RUN) -m pytest tests/safety --timeout=0

wheel: setup ## build the wheel into dist/
	$(RUN) -m build --wheel

clean: ## remove .venv and build products (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
