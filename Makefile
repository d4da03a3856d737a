# The only preparation is Python 3.11 or later: every target makes its own environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.docs-installed
PORT ?= 8000
NBS ?= nbs
# Found by its path: setuptools' own way would let a folder named minidl beside a script, such as this clone, come first.
EDITABLE := --config-settings editable_mode=compat

.PHONY: help run test lab export bench peers docs docs-serve release-check clean

help:    ## what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "make %-14s %s\n", $$1, $$2}'

run: $(STAMP)    ## run the chapters on the samples and leave them as HTML in _run/ (some: make run CHAPTERS="03 04")
	$(BIN)/python tools/run_chapters.py $(CHAPTERS)

# Tests run on the samples; two processes with one thread each.
test: export OMP_NUM_THREADS = 1
test: export MPLBACKEND = agg
test: export MINIDL_DATA = sample
# Deprecated things are errors where a cell (__main__) or a module of minidl uses them; Python wants their whole names.
MODULES := __main__ $(patsubst %.py,minidl.%,$(notdir $(wildcard minidl/*.py)))
STRICT := $(foreach m,$(MODULES),error::DeprecationWarning:$(m),error::FutureWarning:$(m),)
test: $(STAMP)    ## the notebooks, the tests, and whether minidl/ is what nbs/ exports
	$(BIN)/python tools/check_export.py
	PYTHONWARNINGS="$(STRICT)" $(BIN)/nbdev_test --n_workers 2 --timing --do_print
	$(BIN)/python -m pytest -q -n 2 tests

lab: $(STAMP)    ## open the chapters in JupyterLab (a copy to write in: make lab NBS=mine)
	@test -e $(NBS) || cp -r nbs $(NBS)
	$(BIN)/jupyter lab --notebook-dir=$(NBS)

export: $(STAMP)    ## write minidl/ from nbs/ and clean the notebooks
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

bench: $(STAMP)    ## speed against plain PyTorch, and against other libraries if there is a .venv-bench
	$(or $(wildcard .venv-bench/bin/python),$(BIN)/python) bench/run.py

# The peers want versions of their own of some things, so only torch is held; pip stops where one asks for another torch.
peers:    ## .venv-bench: an environment for the bench, with the libraries of bench/peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q -c constraints.txt $(EDITABLE) -e '.[text]'
	.venv-bench/bin/python -m pip install -q "$$(grep '^torch==' constraints.txt)" -r bench/peers.txt

docs: $(DOCS_STAMP)    ## the website, built from the notebooks into _docs/
	$(BIN)/python tools/build_docs.py

docs-serve: docs    ## build the website and show it on http://localhost:8000 (another port: make docs-serve PORT=8001)
	@echo "http://localhost:$(PORT), until Ctrl-C"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _docs

release-check:    ## build sdist and wheel, look into them, run the README's example with the wheel in an environment of its own
	$(PYTHON) tools/release_check.py $(RELEASE)

clean:    ## remove what was generated, the environment too
	rm -rf .venv .venv-bench _run _docs build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): settings.ini constraints.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "minidl needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt $(EDITABLE) -e '.[dev,text]'
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt $(EDITABLE) -e '.[docs]'
	@touch $(DOCS_STAMP)
