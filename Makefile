# `make demo` and `make test` make what they need: a virtual environment with pinned and hashed packages.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COMPILED := .cache/compiled
RELEASED := .cache/released
PIP_OF = $(1)/python -m pip --disable-pip-version-check --quiet
PIP := $(call PIP_OF,$(BIN))
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade

# The newest patch of each line that docs/kafka-versions.md has.
KAFKA_VERSIONS ?= 2.8.2 3.9.2 4.0.2 4.4.0

RUN_TESTS := $(BIN)/python -m pytest -n 2 --dist worksteal
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
QUICK := smoke or not (slow or kafka or oracle or chaos)

.DEFAULT_GOAL := help
.PHONY: help demo test test-rest test-all test-oracle first-hour oracle-url test-compiled compiled wheels chaos fuzz membership lint format audit sbom sql bench compare screenshots image compose-check run kube kafka-versions requirements site release-check clean

help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ifeq ($(DATABASE),oracle)
demo: $(VENV)/development
	@$(BIN)/python -m tests.oracle.oracle_demo
else
demo: $(VENV)/runtime ## the whole path on embedded parts, live, in a minute; DATABASE=oracle: an emulated one (java 17 and maven)
	@$(BIN)/kafka-webhooks demo
endif

test: $(VENV)/development ## the quick tests, in about seven minutes; some start a real Kafka and an emulated Oracle (java 17 and maven), or are skipped visibly
	$(RUN_TESTS) -m '$(QUICK)' $(PYTEST)

test-rest: $(VENV)/development ## the tests that `make test` leaves out: long ones, and those on a real Kafka or an emulated Oracle
	$(RUN_TESTS) -m 'not chaos and not ($(QUICK))' -p tests.golden.golden_check $(PYTEST)

test-all: test test-rest ## all tests but for `make chaos` and `make membership`

test-oracle: $(VENV)/development oracle-url ## the database's tests on a real Oracle: ORACLE_URL names a user with an empty schema of its own
	$(BIN)/python -m pytest -m oracle $(PYTEST)

first-hour: $(VENV)/development oracle-url ## what only a real Oracle shows, each with a verdict (ORACLE_URL as above; ROWS, a million)
	@status=0; \
	$(BIN)/python -m pytest -n 0 -m oracle tests/ledger/test_key_order.py tests/oracle/test_binds.py || status=1; \
	$(BIN)/python -m tests.first_hour $(ROWS) || status=1; \
	exit $$status

oracle-url:
	@test -n "$$ORACLE_URL" || { echo "set ORACLE_URL, for example: oracle+oracledb://user:password@host:1521/?service_name=FREEPDB1"; exit 2; }

test-compiled: $(COMPILED)/venv ## the quick tests of compiled packages, and the whole path with compiled workers on a real Kafka (gcc, java 17, maven)
	TEST_PROGRAM_PYTHON=$(abspath $(COMPILED))/venv/bin/python $(RUN_TESTS) --override-ini 'pythonpath=$(COMPILED)/wheel .' \
		-m 'not (chaos or oracle or interpreted) and (compiled or not (slow or kafka))' \
		$(patsubst %,tests/%,delivery events http intake loop matching schemas sending simulation telemetry worker) \
		$(patsubst %,tests/end_to_end/test_%.py,calm_delivery limits options_by_sql ordering) \
		tests/cli/test_command.py::test_version_needs_no_heavy_imports $(PYTEST)

chaos: $(VENV)/development ## workers, Kafka and the database hurt at random (java 17 and maven; CHAOS_SECONDS, CHAOS_RUNS, CHAOS_SEED, CHAOS_PROCESSES)
	KAFKA_TEST_REQUIRED=1 $(BIN)/python -m pytest -m chaos tests/chaos/test_chaos_long.py $(PYTEST)

fuzz: $(VENV)/development .cache/fuzz/atheris ## inputs that break what reads bytes of others, guided by coverage (FUZZ: targets; FUZZ_SECONDS for each; Linux)
	PYTHONPATH=.cache/fuzz/atheris $(BIN)/python -m tests.fuzz.search --seconds=$(or $(FUZZ_SECONDS),60) $(FUZZ)

.cache/fuzz/atheris: requirements-fuzz.txt $(VENV)/development
	@$(PIP) install --upgrade --target $@ --require-hashes --requirement requirements-fuzz.txt

membership: $(VENV)/development ## workers that join, leave, die and change their protocol, and topics that change under them (java 17 and maven; MEMBERSHIP_ROUNDS)
	KAFKA_TEST_REQUIRED=1 $(BIN)/python -m pytest -m chaos tests/membership $(PYTEST)

kube: $(VENV)/development ## the chart on a real API server: installed, upgraded, rolled back (Go; the first time it is built, in some minutes)
	HELM_TEST_REQUIRED=1 KUBE_TEST_REQUIRED=1 $(BIN)/python -m pytest --verbose -m chaos tests/deploy $(PYTEST)

kafka-versions: $(VENV)/development ## the whole path and rebalances on each of KAFKA_VERSIONS, with the group protocols that it has (java 17 and maven)
	@status=0; \
	for version in $(KAFKA_VERSIONS); do \
		echo "Kafka $$version"; \
		KAFKA_TEST_VERSION=$$version KAFKA_TEST_REQUIRED=1 MEMBERSHIP_ROUNDS=1 $(RUN_TESTS) -m 'kafka and not oracle' \
			-k 'not several_rounds or ((leave or killed) and (sticky or consumer))' tests/kafka tests/membership \
			$(patsubst %,tests/end_to_end/test_%.py,calm_delivery several_workers faults) \
			$(patsubst %,tests/intake/test_%.py,membership topic_made_anew topics truncation) \
			tests/ops/test_check.py tests/ops/test_lag.py $(PYTEST) || status=1; \
	done; \
	exit $$status

lint: $(VENV)/development ## style, types, and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github

format: $(VENV)/development ## what a linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sql: $(VENV)/development ## write docs/sql anew: all SQL that Oracle gets (java 17 and maven)
	$(BIN)/python -m tests.golden.golden_statements

bench: $(VENV)/development ## throughput, latency, ten thousand in flight, bad receivers, rows, filters and records (needs Go, java 17 and maven); look-ups and parking on SQLite; decoding; compression and HTTP/2
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.batches
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.in_flight
	$(BIN)/python -m benchmarks.isolation
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.lookups
	$(BIN)/python -m benchmarks.attempts
	$(BIN)/python -m benchmarks.parking
	$(BIN)/python -m benchmarks.schemas
	$(BIN)/python -m benchmarks.compression
	$(BIN)/python -m benchmarks.http2

compare: $(VENV)/development ## this service beside its peers, three times, in about 95 minutes; writes docs/performance.md (needs Go, java 17 and maven)
	$(BIN)/python -m benchmarks.compare --rounds 3 $(COMPARE)

run: $(VENV)/runtime ## one worker, with the settings of the environment or .env
	@exec $(BIN)/kafka-webhooks run

screenshots: $(VENV)/development ## write docs/console/*.png: the console before a real deployment (java 17, maven, chromium); each page, wide and narrow, light and dark: CONSOLE_GALLERY=/tmp/console
	KAFKA_TEST_REQUIRED=1 CONSOLE_SCREENSHOTS=docs/console $(BIN)/python -m pytest -m "" tests/end_to_end/test_console_incident.py tests/end_to_end/test_supports_question.py tests/console/test_backtest_form.py tests/console/test_delivery_audit_page.py $(PYTEST)

compiled: $(COMPILED)/venv ## a wheel whose hot modules mypyc has compiled (gcc), for this Python, in .cache/compiled; and it installed

$(COMPILED)/venv: $(VENV)/development pyproject.toml $(shell find consumer models alembic -name '*.py')
	rm -rf $(COMPILED)
	mkdir -p $(COMPILED)/source
	cp -r consumer models alembic pyproject.toml README.md LICENSE $(COMPILED)/source
	cd $(COMPILED)/source && HATCH_BUILD_HOOK_ENABLE_MYPYC=true $(abspath $(BIN))/python -m hatchling build --target wheel --directory .. >../log 2>&1 || { tail -n 30 ../log; exit 1; }
	$(PYTHON) -m venv $(COMPILED)/new
	$(call PIP_OF,$(COMPILED)/new/bin) install --require-hashes --requirement requirements.txt
	$(call PIP_OF,$(COMPILED)/new/bin) install --no-deps $(COMPILED)/*.whl
	$(PYTHON) -m zipfile --extract $(COMPILED)/*.whl $(COMPILED)/wheel
	mv $(COMPILED)/new $@

wheels: $(COMPILED)/venv ## the wheels of a release, in dist: compiled for this Python and platform (gcc), and the pure one for others
	mkdir -p dist
	cp $(COMPILED)/*.whl dist
	$(BIN)/python -m hatchling build --target wheel --directory dist

image: ## the image kafka-webhooks:local: with Docker, else as root (by sudo) with buildah and debootstrap, in about five minutes
	deploy/image/build

compose-check: $(VENV)/development ## the services of docker-compose.yml in containers of the image, as root (by sudo; podman, crun, java 17, maven)
	deploy/image/build podman
	$(AS_ROOT) env PATH="$$PATH" $${JAVA_HOME:+JAVA_HOME="$$JAVA_HOME"} PYTHONDONTWRITEBYTECODE=1 \
		unshare --mount $(BIN)/python -m tests.image.compose_check

release-check: $(VENV)/development ## before a tag: versions, builds with equal bytes in build/release, the wheel in an empty environment on a real Kafka (TAG=v1.2.3; Go, java 17, maven)
	$(BIN)/python -m tests.project.release "$(TAG)"
	$(PYTHON) -m venv --clear $(RELEASED)
	$(call PIP_OF,$(RELEASED)/bin) install --require-hashes --requirement requirements.txt
	$(call PIP_OF,$(RELEASED)/bin) install --no-deps build/release/*.whl
	KAFKA_TEST_REQUIRED=1 TEST_PROGRAM_PYTHON=$(abspath $(RELEASED))/bin/python $(RUN_TESTS) \
		tests/docs/test_tutorial.py tests/end_to_end/test_calm_delivery.py $(PYTEST)

site: ## the documentation as a site, in build/site
	$(PYTHON) -m venv .cache/site
	$(call PIP_OF,.cache/site/bin) install --require-hashes --requirement requirements-site.txt
	.cache/site/bin/python -m mkdocs build --config-file deploy/site/mkdocs.yml

requirements: $(VENV)/development ## pin the newest packages that pyproject.toml allows
	$(COMPILE) pyproject.toml --output-file requirements.txt
	$(COMPILE) pyproject.toml --extra http2 --extra otel --extra schemas --constraint requirements.txt --output-file requirements-image.txt
	$(COMPILE) pyproject.toml --extra dev --constraint requirements.txt --output-file requirements-dev.txt
	printf 'hatchling\neditables\n' | $(COMPILE) - --no-annotate --constraint requirements-dev.txt --output-file requirements-build.txt
	printf 'hatch-mypyc\nhatchling\ntypes-requests\n' | $(COMPILE) - --no-annotate --constraint requirements-dev.txt --output-file requirements-compile.txt
	printf 'mike\nmkdocs-material\n' | $(COMPILE) - --no-annotate --output-file requirements-site.txt
	printf 'openapi-python-client\n' | $(COMPILE) - --no-annotate --output-file requirements-client.txt
	printf 'atheris<3.1\n' | $(COMPILE) - --no-annotate --constraint requirements-dev.txt --output-file requirements-fuzz.txt

audit: $(VENV)/development ## look the pinned packages up in the database of known vulnerabilities (needs a network)
	$(BIN)/uv tool run pip-audit --require-hashes --disable-pip --requirement requirements-image.txt

sbom: $(VENV)/development ## write build/sbom.json: the packages of the image, as a CycloneDX document
	mkdir -p build
	$(BIN)/uv tool run --from cyclonedx-bom cyclonedx-py requirements requirements-image.txt --output-file build/sbom.json

clean: ## remove what these targets made
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing packages into $(VENV) ..."
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(PIP) install --require-hashes --requirement requirements-build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	@echo "installing development packages into $(VENV) ..."
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@
