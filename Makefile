# make demo | test | test-ray | check | bench | bench-gpu | sanitize | diagrams | agreement | results; each sets up
# what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
SOURCES := $(shell find grokfast kernels csrc -type f \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.inc' -o -name '*.json' -o -name '*.mplstyle' -o -path '*/templates/*' \) 2>/dev/null)

.PHONY: demo test test-ray check bench bench-gpu sanitize diagrams agreement results setup clean

setup: $(VENV)/.package

$(VENV)/.deps: constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "grokfast needs $(PYTHON) (3.11 or newer)" >&2; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "grokfast needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=python3.11" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "grokfast needs Python's venv module (Debian: apt install python3-venv)" >&2; exit 3; }
	@command -v c++ >/dev/null || echo "no C++ compiler (c++) found: the native engine will be missing (Debian: apt install g++)" >&2
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || echo "no Python headers found: the native engine will be missing (Debian: apt install python3-dev)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q '.[test]'
	@touch $@ $(VENV)/.package

# Not built a second time where .deps has just done it: make would, whatever the times say.
$(VENV)/.package: $(VENV)/.deps setup.py $(SOURCES)
	@test -z "$$(find $^ -newer $@ 2>/dev/null || echo none)" || { rm -rf build && \
	  PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q --no-deps --force-reinstall .; }
	@touch $@

# From outside the tree: with the root on the path, kernels/ would shadow the installed package.
# A file of tests stays with one worker, for what its tests share.
TEST_WORKERS ?= 2
test: setup
	@cd $(VENV) && $(BIN)/pytest -q -n $(TEST_WORKERS) --dist loadfile ../tests --ignore=../tests/ray

# On a cluster of three local nodes, in minutes; Ray comes with it.
test-ray: setup $(VENV)/.ray
	@cd $(VENV) && OMP_NUM_THREADS=1 $(BIN)/pytest -q ../tests/ray

$(VENV)/.ray: constraints.txt | setup
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q ray
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: setup
	@mkdir -p demo
	$(BIN)/grokfast run addition-classification --lr=logspace:-5:-2:11 --weight-decay=linspace:0:16:9 \
	  --steps=12000 --out=demo/addition-classification.h5
	$(BIN)/grokfast plot demo/addition-classification.h5 --out=demo/addition-classification.png

bench: setup
	$(BIN)/python bench/run.py

bench-gpu: setup
	$(BIN)/python bench/gpu.py

CHECKERS := $(addprefix sanitize-,valgrind address thread)
.PHONY: $(CHECKERS)
sanitize:
	@$(MAKE) -j2 --no-print-directory --output-sync=target $(CHECKERS)

$(CHECKERS): sanitize-%:
	csrc/sanitize.sh build/sanitize $*

# The published diagrams, in shards: resumable, about an hour a task on two 2.4 GHz cores. The panels
# of other activations: make diagrams ACTIVATION=relu (or leaky_relu).
DIAGRAMS := addition-classification addition-regression
ACTIVATION ?= tanh
diagrams: setup
	@for task in $(DIAGRAMS); do \
	  file=bench/results/$$task$(patsubst .tanh,,.$(ACTIVATION)); \
	  for i in 1 2 3 4; do \
	    $(BIN)/grokfast run $$task --activation=$(ACTIVATION) --record=curves:60 --shard=$$i/4 --out=$$file.shard-$$i-of-4.h5 || exit; \
	  done; \
	  $(BIN)/grokfast merge $$file.shard-[1-4]-of-4.h5 --out=$$file.h5 --overwrite || exit; \
	  $(BIN)/grokfast plot $$file.h5 --out=$$file.png || exit; \
	done

# What the tables of agreement are read from; reference takes an hour a task and core, MNIST
# needs its files.
agreement: setup
	@for engine in compiled reference; do \
	  $(BIN)/grokfast run addition-classification --engine=$$engine --lr=logspace:-5:-2:5 \
	    --weight-decay=linspace:0:20:5 --out=bench/results/addition-classification.5x5.$$engine.h5 || exit; \
	  $(BIN)/grokfast run addition-regression --engine=$$engine --lr=logspace:-5:-2:5 \
	    --weight-decay=linspace:0:10:5 --out=bench/results/addition-regression.5x5.$$engine.h5 || exit; \
	done; \
	for dtype in float32 float64; do \
	  $(BIN)/grokfast run mnist-original --steps=2500 --dtype=$$dtype \
	    --out=bench/results/mnist-original.2500-steps.$$dtype.h5 || exit; \
	done

# bench/RESULTS.md, from the files in bench/results.
results: setup
	$(BIN)/python bench/report.py

# Hostile worlds, with a seed; the counts are kept. Minutes each, of kills and damage half an hour.
CAMPAIGNS := campaign-kills campaign-faults campaign-fuzz campaign-signals campaign-damage
.PHONY: $(CAMPAIGNS)
$(CAMPAIGNS): campaign-%: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns/$*.py --out=bench/results/campaigns.jsonl

clean:
	rm -rf $(VENV) build demo
