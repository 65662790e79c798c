# Each target sets up what it needs in a virtual environment of this folder; a second call reuses it.
# One thread: networks here are tiny, and threads that wait for each other are slower than none.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test lint types imports check docs wheel clean

demo: $(VENV)/.installed  ## train on digits, adapt online with every method, compare
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.demo

test: $(VENV)/.installed  ## the whole test suite
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist worksteal

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed
	$(VENV)/bin/mypy tta models datamodules

imports: $(VENV)/.installed
	$(VENV)/bin/lint-imports

check: lint types imports test  ## everything that CI asks for

docs: $(VENV)/.installed  ## the table of methods, from the code
	$(RUN) -m tta.adapters.catalogue docs/adapters.md

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@
