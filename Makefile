# Everything a newcomer needs: `make demo`, `make test`. Both set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: help setup demo play test check docs bench fuzz clean

help:
	@echo "make demo    sample the embedded model and print the picture's path"
	@echo "make play    open the playground on http://127.0.0.1:7860 (FOLDERS='runs' for your own)"
	@echo "make test    run the tests, side by side (12 minutes on two cores)"
	@echo "make check   lint, formatting and types"
	@echo "make docs    build the pages of docs/ as a site in out/site"
	@echo "make bench   print the tables of speed and memory, and the targets (GUIDED_DIFFUSION=, GLIDE=, BSRGAN=checkouts to compare with)"
	@echo "make fuzz    damage files and ask for the absurd, for a minute (SECONDS=…, SEED=…), and tell what is not refused well"
	@echo "make setup   make .venv with everything for development"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lodestar needs Python 3.11 or newer; $(PYTHON) is older (make PYTHON=python3.12 …)"; exit 2; }
	@echo "setting up .venv: PyTorch and the libraries of constraints.txt, once, a minute or more …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo ".venv is ready: $(BIN)/lodestar --help"

demo: $(STAMP)
	@$(BIN)/lodestar demo --out out

play: $(STAMP)
	@$(BIN)/lodestar play $(FOLDERS)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/zensical build --strict

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(if $(GUIDED_DIFFUSION),--guided-diffusion $(GUIDED_DIFFUSION)) $(if $(GLIDE),--glide $(GLIDE)) $(if $(BSRGAN),--bsrgan $(BSRGAN))

SECONDS ?= 60
SEED ?= $(shell date +%s)

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

clean:
	rm -rf .venv out build dist
