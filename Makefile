# Everything that a person does with this repository. Each target does its own set-up.
PYTHON ?= python3.11
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: setup setup-convert setup-serve demo serve test prove fuzz check bench overload soak browser protos dashboards
.PHONY: prometheus pictures lock clean
.DELETE_ON_ERROR:

# One environment for development: serving, conversion, checks and tests.
setup: $(VENV)/.dev
# The two environments that the image is made of.
setup-convert: $(VENV)/.convert
setup-serve: $(VENV)/.serve

$(VENV)/.%: locks/%.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps -r $<
	$(PIP) install --no-deps --no-build-isolation $(if $(filter dev,$*),--editable) .
	touch $@

demo: setup
	$(BIN)/python -m examples.demo

serve: setup
	$(BIN)/segue-server

test: setup check
	$(BIN)/python -m pytest

# The long forms of the tests that have a short one.
prove: setup
	$(BIN)/python -m pytest -m prove

# Coverage-guided fuzzing, SECONDS for each target; what is found is kept in tests/corpus/fuzz.
SECONDS ?= 600
TARGETS ?= predict_request predict_response examples config messages texts arrays encoder
fuzz: setup
	for target in $(TARGETS); do $(BIN)/python -m tests.fuzz $$target -max_total_time=$(SECONDS) || exit 1; done

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# PERF_ANALYZER=/path/to/perf_analyzer has NVIDIA's program ask in place of our own load generator.
bench: setup
	$(BIN)/python -m benchmarks.request_path

# Three times the load that the server can bear.
overload: setup
	$(BIN)/python -m benchmarks.overload

# Under load for about an hour, part by part; done parts are not done again. What is shown: benchmarks/soak/__main__.py.
soak: setup
	$(BIN)/python -m benchmarks.soak

# What tests use of Debian's packages.
TOOLS = .cache/tools

# The browser in which the status page is tested, from Debian's packages and beside the system: nothing is installed.
browser: $(TOOLS)/chromium-headless-shell
$(TOOLS)/chromium-headless-shell:
	mkdir -p $(TOOLS)/debs $(TOOLS)/chromium
	cd $(TOOLS)/debs && apt-get download $$(apt-get -s install --no-install-recommends chromium-headless-shell | sed -n 's/^Inst \([^ ]*\).*/\1/p')
	for package in $(TOOLS)/debs/*.deb; do dpkg -x $$package $(TOOLS)/chromium || exit 1; done
	rm -r $(TOOLS)/debs
	printf '#!/bin/sh\nusr=%s/$(TOOLS)/chromium/usr\nlib=$$usr/lib/$$(uname -m)-linux-gnu\nLD_LIBRARY_PATH=$$lib:$$lib/pulseaudio exec $$usr/lib/chromium/chromium-headless-shell "$$@"\n' "$$PWD" > $@
	chmod +x $@

protos: setup
	$(BIN)/python -m protos.generate

# Grafana's dashboards as JSON, from the code beside them.
dashboards: setup
	$(BIN)/python -m deploy.grafana

# A real Prometheus and its promtool for the tests, on machines with Debian's packages: fetched and unpacked, not installed.
prometheus: $(TOOLS)/usr/bin/prometheus
$(TOOLS)/usr/bin/prometheus:
	mkdir -p $(TOOLS)
	cd $(TOOLS) && apt-get download prometheus
	dpkg -x $(TOOLS)/prometheus_*.deb $(TOOLS)

# The pictures in docs/images, by Grafana's panels from npm and a real Prometheus; needs node. About ten minutes.
PICTURES = .cache/pictures
pictures: setup browser prometheus $(PICTURES)/node_modules/.package-lock.json
	$(BIN)/python -m examples.dashboard_pictures
$(PICTURES)/node_modules/.package-lock.json: deploy/grafana/picture/package-lock.json
	mkdir -p $(PICTURES)
	cp $(addprefix deploy/grafana/picture/,package.json package-lock.json .npmrc) $(PICTURES)
	cd $(PICTURES) && npm ci && touch node_modules/.package-lock.json

# Choose versions again, within pyproject.toml's bounds. The development lock decides; the others follow it.
lock: setup
	$(BIN)/python -m locks.compile

clean:
	rm -rf $(VENV) .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
