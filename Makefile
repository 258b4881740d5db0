# rasweb: `make run` and open the address it prints.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install install-dev install-libvirt tools lab-tools run test check style types layers sound bench \
	lab lock

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes
# More processes than cores: tests of the started product wait now and then, and most of them work.
JOBS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 3)
# Each copy is a process of its own, and loads in two thirds of the time what was compiled before.
export PYTHONDONTWRITEBYTECODE :=

help:
	@echo "make run      start rasweb (installs what it needs first)"
	@echo "make install  only install what it needs, into $(VENV)"
	@echo "make test     run all tests"
	@echo "make lab      start three real libvirt hosts on this machine, known to a running rasweb (root)"
	@echo "make check    style, types, layers, settings, migrations"
	@echo "make bench    measure the engine beside other programs (ARGS=\"fanout --size 512\" …)"
	@echo "make lock     resolve the dependencies of pyproject.toml anew"

install: $(VENV)/locked

install-dev: $(VENV)/locked-dev

install-libvirt: $(VENV)/locked-libvirt

run: install
	@$(BIN)/python manage.py demo --first
	@exec $(BIN)/python manage.py up

test: install-dev tools lab-tools
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lab: install-dev lab-tools
	@exec $(BIN)/python -m tests.lab $(ARGS)

bench: install-dev lab-tools
	@$(MAKE) --no-print-directory tools TOOLS="$(PEERS)" || echo "Going on without them." >&2
	@$(BIN)/python -m tests.benchmarks $(ARGS)
	@test -n "$(ARGS)" || exec $(BIN)/python -m tests.benchmarks.scale

check: style types layers sound

style: install-dev
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	git ls-files '*/templates/*.html' | xargs -r $(BIN)/djade --check --target-version 5.2

# mypy ends without the clean-up of the settings that it loads.
types: install-dev
	folder=$$(mktemp -d) && { TMPDIR=$$folder $(BIN)/mypy; status=$$?; rm -r $$folder; exit $$status; }

layers: install-dev
	$(BIN)/lint-imports --no-logo --no-cache

sound: export DJANGO_SETTINGS_MODULE = tests.settings
sound: install-dev
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run

lock: install-dev
	$(BIN)/uv pip compile $(LOCK) --extra postgres --extra redis --output-file requirements.txt $(ARGS)
	$(BIN)/uv pip compile $(LOCK) --extra postgres --extra redis --extra dev \
		--constraint requirements.txt --output-file requirements-dev.txt $(ARGS)
	grep -o 'libvirt-python[^"]*' pyproject.toml | \
		$(BIN)/uv pip compile - $(subst pyproject.toml,,$(LOCK)) --output-file requirements-libvirt.txt $(ARGS)

LOCK := pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "rasweb needs Python 3.11 or newer. Set PYTHON to its path." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "Could not make $(VENV). On Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/locked: requirements.txt | $(VENV)/bin/python
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/locked-dev: requirements-dev.txt $(VENV)/locked
	$(PIP) -r requirements-dev.txt
	@touch $@

# Built here, against the libvirt of this machine: it has to be a part of its own.
$(VENV)/locked-libvirt: requirements-libvirt.txt | $(VENV)/bin/python
	$(PIP) -r requirements-libvirt.txt
	@touch $@

# What a lab of real libvirt hosts needs. Where it can not be had the tests of it say so; with CI set they fail.
LAB := libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-dev pkg-config gcc python3-dev \
	qemu-system-x86 qemu-utils dnsmasq-base iptables iproute2 openssh-client openssh-server
lab-tools:
	@if [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
		{ pkg-config --exists libvirt && command -v libvirtd && command -v qemu-system-x86_64 && \
			command -v dnsmasq && command -v iptables && command -v sshd && command -v gcc; } >/dev/null 2>&1 || { \
			echo "Installing $(LAB)"; \
			{ apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
				apt-get install --yes --no-install-recommends $(LAB); } >/dev/null; }; \
	fi
	@if pkg-config --exists libvirt 2>/dev/null; then $(MAKE) --no-print-directory install-libvirt; fi

# Where the headless shell can not be installed the whole browser does too.
BROWSER := $(shell { [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; } || \
	command -v chromium || command -v chromium-browser)
# Programs the tests start, and those that are measured: the Debian package of each.
TOOLS := $(if $(BROWSER),,chromium-headless-shell=chromium-headless-shell) \
	qemu-img=qemu-utils redis-server=redis-server postgres=postgresql
PEERS := nbdcopy=libnbd-bin qemu-img=qemu-utils bmaptool=bmap-tools rsync=rsync tar=tar cmp=diffutils mkfs.xfs=xfsprogs
tools:
	@PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"; missing=; for tool in $(TOOLS); do \
		command -v $${tool%=*} >/dev/null || missing="$$missing $${tool#*=}"; done; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
		echo "Installing$$missing"; \
		{ apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
			apt-get install --yes --no-install-recommends $$missing; } >/dev/null; \
	else \
		echo "Programs of these Debian packages are missing:$$missing" >&2; \
		echo "Install them with: sudo apt-get install$$missing" >&2; \
		echo "On another system install what provides the same programs." >&2; \
		exit 1; \
	fi
