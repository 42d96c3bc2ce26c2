# Everything that a user types. `make demo` and `make test` need Python 3.11 and make; they install the rest in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest
# Two processes of one thread each, a file of tests in one of them: half as long on two cores.
PYTEST := -m pytest --numprocesses 2 --dist loadfile
test test-oldest: export OMP_NUM_THREADS := 1
# Progress bars and no telemetry; the demo and the tests fetch nothing at run time.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test test-oldest lint bench real clean

help:
	@echo "make demo   train on the mini corpus and answer a question, under 5 minutes on 2 cores with bf16"
	@echo "make test   the whole test suite, at most 8 minutes on 2 cores"
	@echo "make test-oldest   the same on the oldest versions that setup.cfg allows; torch brings its CUDA packages, 8 GB on disk"
	@echo "make lint   ruff"
	@echo "make bench  the encoder against the padded way and a matrix product, under 10 minutes"
	@echo "make real   the figures on ../shared/real/tvqa_plus: 3 seeds and the question-only twin, about 1 hour"

# torch first and alone: the pinned version has a CPU build, and an open requirement would fetch the CUDA packages.
$(INSTALLED): setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py --output_dir runs/demo

test: $(INSTALLED)
	$(BIN)/python $(PYTEST)

# Every floor of setup.cfg, as name==version. They are read from there: no second list.
$(OLDEST)/.installed: setup.cfg
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	sed -n 's/^    \([A-Za-z0-9_-]*\)>=\(.*\)/\1==\2/p' setup.cfg | sort -u > $(OLDEST)/floors.txt
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip setuptools
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/floors.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/cpu.py

real: $(INSTALLED)
	$(BIN)/python examples/train.py --recipe examples/recipes/tvqa_plus_text.yaml \
		--data_dir ../shared/real/tvqa_plus --output_dir runs/tvqa_plus --seeds 0 1 2

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info
