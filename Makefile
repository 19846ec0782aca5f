# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo serve test check soak bench notebooks clean

help:
	@echo "make demo       train a small family, run everything on it, write a report"
	@echo "make serve      the demo's models and runs, in a browser"
	@echo "make test       lint, types and tests, the cells of the notebooks among them"
	@echo "make soak       the long counts: kill loops, big families"
	@echo "make bench      quick benchmarks"
	@echo "make notebooks  run the notebooks under Jupyter"
	@echo "make clean      remove what these made"

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/kinship demo

serve: $(READY)
	test -d demo/family || $(BIN)/kinship demo
	$(BIN)/kinship serve demo

# Bytecode is kept, whatever the environment says: workers and the programs that tests start would each compile anew.
test soak: export PYTHONDONTWRITEBYTECODE =

test: check
	$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

soak: $(READY)
	$(BIN)/python -m pytest -m soak

bench: $(READY)
	$(BIN)/python benchmarks/kinship_speed.py --quick

notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebooks]"
	$(BIN)/python -m pytest --nbmake notebooks

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache
