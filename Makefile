# Two commands do everything, set-up included: `make demo` and `make test`.
#
# Nothing here can reach AWS: the targets set PPE_CLOUD=local, drop AWS_* and point the shared AWS files at
# /dev/null. Their local cloud lives under build/, apart from the user's own, and is taken down at the end.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON      ?= python3
VENV        := .venv
BIN         := $(VENV)/bin
BUILD       := $(CURDIR)/build
SUDO        := $(if $(filter 0,$(shell id -u)),,sudo)

# debootstrap to dnsmasq: the local cloud. r-base-core to zlib1g-dev: rpy2, which compiles against R.
APT := debootstrap lxc nftables iproute2 dnsmasq-base openssh-client debian-archive-keyring ca-certificates \
       python3-venv python3-dev gcc g++ make r-base-core r-recommended libblas-dev libtirpc-dev libpcre2-dev liblzma-dev libbz2-dev libicu-dev zlib1g-dev

CLEAN_ENV := env $(foreach v,$(filter AWS_% PPE_%,$(.VARIABLES)),-u $(v)) \
  PPE_CLOUD=local PPE_CONFIG=$(BUILD)/ppe-config AWS_EC2_METADATA_DISABLED=true \
  AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_CONFIG_FILE=/dev/null

# The browser tests' browser; `make demo` does without it.
test test-all: APT += chromium

# Most of a test's time is waiting for machines. Each of two processes has a local cloud of its own.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

LABEXTENSION := $(wildcard labextension/src/* labextension/style/* labextension/*.json labextension/*.js labextension/*.py)

.PHONY: demo test test-all lint types bench lab setup apt image clean
.DEFAULT_GOAL := demo

demo: setup  ## the main job on the local cloud: launch, run R on all of it, terminate
	@$(call with_local_cloud,demo,$(BIN)/python notebooks/run.py notebooks/quickstart.ipynb $(BUILD)/quickstart.html)
	@echo "The same in JupyterLab: make lab"

test: setup lint types  ## everything that ends within 15 minutes
	@$(call with_local_cloud,test,$(BIN)/python -m pytest $(PARALLEL) -m 'not slow')

test-all: setup lint types  ## the slow tests too
	@$(call with_local_cloud,test,$(BIN)/python -m pytest $(PARALLEL))

bench: setup  ## ratios measured in one run, peers among them
	@$(BIN)/pip install -q --no-deps --target $(BUILD)/peers pyRserve==1.0.4
	@$(call with_local_cloud,bench,PYTHONPATH=$(BUILD)/peers $(BIN)/python tests/bench)

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed
	$(BIN)/mypy

lab: setup  ## JupyterLab with the extension, on your own local cloud
	$(BIN)/jupyter lab $(if $(SUDO),,--allow-root) notebooks/quickstart.ipynb

setup: apt
	@$(MAKE) --no-print-directory -j2 $(VENV)/.installed image

apt:
	@missing=$$(for p in $(APT); do dpkg-query -Wf '$${Status}' $$p 2>/dev/null | grep -q ' installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then \
	    echo "Debian packages are missing and there is neither root nor sudo; ask an administrator for: apt-get install" $$missing >&2; exit 1; \
	  fi; \
	  echo "Installing Debian packages:" $$missing; \
	  $(SUDO) apt-get -q update >/dev/null; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends $$missing >/dev/null; \
	fi

# What the image's builder imports; so the image is built while the rest is installed.
$(VENV)/.started: | apt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q -c .constraints.txt platformdirs tomlkit tomli
	@touch $@

$(VENV)/.installed: pyproject.toml .constraints.txt $(LABEXTENSION) | $(VENV)/.started
	@echo "Installing Python packages into $(VENV)"
	@$(BIN)/pip install -q -c .constraints.txt -e '.[local,r,dev]'
	@touch $@

image: | $(VENV)/.started
	@$(BIN)/python -m ppe_jupyter.localcloud.check
	@$(CLEAN_ENV) $(BIN)/python -m ppe_jupyter.localcloud.image

clean:
	rm -rf $(BUILD)

# $(1): a name for the state directory; $(2): the command. Whatever happens, the local cloud is taken down.
define with_local_cloud
mkdir -p $(BUILD); export PPE_STATE_DIR=$(BUILD)/$(1)-state; \
down() { for d in $$PPE_STATE_DIR $$PPE_STATE_DIR/gw?; do if [ -d $$d ]; then \
  $(CLEAN_ENV) PPE_STATE_DIR=$$d $(BIN)/ppe local down --yes >/dev/null; fi; done; }; trap down EXIT; \
$(CLEAN_ENV) PPE_STATE_DIR=$$PPE_STATE_DIR $(2)
endef
