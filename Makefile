# Two commands for a newcomer: 'make demo' and 'make test'. Both set themselves up in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint types clean

help:
	@echo "make demo   render a small world, extract, train, measure, draw (demo-out/report.html)"
	@echo "make test   run the tests"
	@echo "make lint   ruff"
	@echo "make types  mypy, over a copy laid out as it is installed"
	@echo "make clean  remove $(VENV) and demo-out"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/regionvlp demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .

# mypy cannot follow the folder map from the root, so it gets the packages in the place they are installed in.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types
	cp -r regionvlp build/types/regionvlp
	cp -r extract pipelines configs build/types/regionvlp/
	cd build/types && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml -p regionvlp

clean:
	rm -rf $(VENV) demo-out build
