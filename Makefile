# make demo      serve the app on http://127.0.0.1:7860
# make test      lint and test, as continuous integration does
# make test-all  the slow tests, too
# PYTHON=python3.12 make ... chooses the interpreter; .venv is made once and updated when the requirements change.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all

demo: .venv/.demo
	$(BIN)/python app.py --host 127.0.0.1 --port 7860

test: .venv/.test
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/.test
	$(BIN)/python -m pip install -q -e ".[cluster]"
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ""

.venv/.demo: requirements.txt | $(BIN)/pip
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/.test: requirements.txt pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install -e ".[test]"
	touch $@ .venv/.demo

# Some systems ship Python without the module that puts pip into a new environment; their own pip can do it.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || \
		{ echo "Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python $(BIN)/python install pip; }
