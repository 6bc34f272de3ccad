# Two commands for a fresh machine with Python, make and a package index: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Tests by two processes, a file by one of them: runs that tests of a file share are made once. One thread each.
AT_ONCE := -n 2 --dist loadfile
export OMP_NUM_THREADS ?= 1

# What someone without PyTorch has, installed as they would: tests/test_light.py runs the program in it.
LIGHT := .light/serve.done .light/head.done
SOURCES := pyproject.toml constraints.txt $(shell find src -type f -not -name '*.pyc' -not -path '*.egg-info/*')

.PHONY: demo test test-long test-all check bench bench-peers clean

demo: .venv/tune.done
	$(BIN)/rehead demo

test: .venv/dev.done $(LIGHT)
	$(BIN)/python -m pytest -m "not slow and not long" $(AT_ONCE)

test-long: .venv/dev.done $(LIGHT)
	$(BIN)/python -m pytest -m "long and not slow" $(AT_ONCE)

test-all: .venv/dev.done $(LIGHT)
	$(BIN)/python -m pytest $(AT_ONCE)

check: .venv/dev.done
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: .venv/dev.done
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/kept_epoch.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/unfamiliar.py
	$(BIN)/python benchmarks/few.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/predicting.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/variants.py
	$(BIN)/python benchmarks/cluster.py
	$(BIN)/python benchmarks/cost.py

# Other tools on the same photos, each in an environment of its own in .peers/; hours. One that is stopped goes on.
bench-peers: .venv/dev.done
	$(BIN)/python benchmarks/peers/measure.py
	$(BIN)/python benchmarks/peers/report.py

# A stamp is newer than what it was installed from, so a second call installs nothing.
.venv/tune.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[tune]"
	touch $@

.venv/dev.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@ .venv/tune.done

.light/%.done: $(SOURCES)
	test -x .light/$*/bin/python || $(PYTHON) -m venv .light/$*
	rm -rf build
	.light/$*/bin/pip install -q -c constraints.txt ".[$*]"
	rm -rf build
	touch $@

clean:
	rm -rf .venv .light build dist src/*.egg-info
