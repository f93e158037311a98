# `make demo` and `make test` set up everything they need in .venv/.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready
FEAST := .venv-feast
FEAST_READY := $(FEAST)/.ready
# The C library, which is compiled when the package is installed.
NATIVE := serving/trireme_runtime/native

.PHONY: demo test test-unit debian-packages check format bench benchmarks quality docs pictures wheels image-locks verify-images clean

$(READY): pyproject.toml client/pyproject.toml requirements.lock hatch_build.py $(wildcard $(NATIVE)/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable client --editable .
	touch $(READY)

demo: $(READY)
	$(BIN)/trireme demo

# Everything; what needs no server first, then two files at a time of what no other program on the machine can disturb: files that
# neither measure nor hold an answer to a time. The others run alone, as does every file that is not named here.
BESIDE_OTHERS := answers bad_requests fresh_features hangs healing ingest ingest_commands monitoring \
    own_modules parity replicas server stand_ins tls tracing tracker
WAITING := tests/contract $(BESIDE_OTHERS:%=tests/e2e/test_%.py)
# Threads of PyTorch wait for one another in a loop: where the other process has the other core, a training takes ten times as long.
TWO_PROCESSES := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
test: test-unit debian-packages
	$(TWO_PROCESSES) $(WAITING) --dist loadfile --cov --cov-append --cov-report=
	$(BIN)/python -m pytest tests/e2e $(WAITING:%=--ignore %) --cov --cov-append --cov-report=
	$(BIN)/python -m tests.coverage_floors

test-unit: $(READY)
	$(TWO_PROCESSES) tests/unit --cov --cov-report=

# Not of PyPI: the tests ask a real Prometheus and look at the console in a real browser.
debian-packages:
	tests/debian_packages

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What the bare computation costs, and how the plans compare with other servers of the same funnel, which get an environment of
# their own. Needs the repository of `make demo`, and an otherwise idle machine of at least two cores for an hour and a half.
bench: $(READY) $(PEERS_READY)
	$(BIN)/trireme perf limit
	$(BIN)/trireme perf goodput

# Every figure of docs/benchmarks.md, with the code of this commit: about four hours on an otherwise idle machine of two cores.
# If it is interrupted, it goes on where it was.
benchmarks: $(READY) $(PEERS_READY)
	$(BIN)/python -m docs.measured
	$(BIN)/python -m docs.generate

# How good the lists are on all three data sets, for docs/quality.md: five trainings for each split of each. TRIREME_DATA names the
# folder of the two that are not shipped. If it is interrupted, it goes on with the next data set; LABEL tells recipes apart.
LABEL := current
quality: $(READY)
	$(BIN)/python -m docs.quality --label $(LABEL)
	$(BIN)/python -m docs.generate

# The generated pages: the commands, pipeline.yaml and the benchmarks, and the tables of the quality.
docs: $(READY)
	$(BIN)/python -m docs.generate

# Of the console and of the terminal, for docs/. Needs the repository of `make demo`; takes about two minutes.
pictures: $(READY) debian-packages
	$(BIN)/python -m docs.pictures

# Of both distributions, to be installed where there is no checkout.
wheels: $(READY)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir build/wheels ./client .

# Of docker/, from requirements.lock; asks the package index.
image-locks:
	docker/lock.sh

# Builds and runs both images (docs/docker.md), which `make test` does not: needs root, docker or podman, ten minutes and the
# repository of `make demo`, or another one: make verify-images REPOSITORY=...
verify-images:
	docker/verify.sh $(REPOSITORY)

$(PEERS_READY): perf/peers/requirements.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r perf/peers/requirements.lock
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable client --editable .
	touch $(PEERS_READY)

# For `trireme perf features`.
$(FEAST_READY): perf/peers/requirements-feast.lock
	$(PYTHON) -m venv $(FEAST)
	$(FEAST)/bin/python -m pip install --quiet --disable-pip-version-check -r perf/peers/requirements-feast.lock
	touch $(FEAST_READY)

clean:
	rm -rf build $(VENV) $(PEERS) $(FEAST) $(NATIVE)/*.so
