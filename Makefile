# ssvid: `make` or `make help` lists what there is. Everything runs inside .venv; nothing outside this folder changes.

VENV   ?= .venv
BIN    := $(VENV)/bin
# The newest Python that is supported and present; or say `make setup PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3.14 3; do python$$v -c pass 2>/dev/null && echo python$$v && break; done || true)
READY  := $(VENV)/.ready
# torchcodec is the fastest decoder and needs the system's FFmpeg: taken where that is found.
EXTRAS := $(shell if ldconfig -p 2>/dev/null | grep -q libavcodec; then echo dev,torchcodec; else echo dev; fi)
OUT    ?= build/gpu
GPU_PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-numerics test-matrix test-all lint type format bench gpu gpu-pack docs build constraints clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(READY)  ## install ssvid and its tools into .venv (about 7 GB on disk, once)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "ssvid needs Python 3.11 to 3.14, and none was found. Install one, then: make setup PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { echo "ssvid needs Python 3.11 to 3.14, but $(PYTHON) is `$(PYTHON) --version`. Say: make setup PYTHON=/path/to/python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@echo "installing ssvid [$(EXTRAS)] into $(VENV); it takes about 7 GB on disk"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)  ## pretrain without labels, probe, export: the whole way in a few minutes
	$(BIN)/ssvid demo

test: $(READY)  ## the quick tests (offline; with the real videos where SSVID_REAL_DATA is set)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# What is compared to many digits, and so could depend on the processor and on the library that multiplies matrices.
NUMERICS := tests/golden tests/end_to_end/test_exactness.py tests/evals/linear_probe/test_probe.py tests/evals/linear_probe/test_head_bank.py \
	tests/evals/neighbors/test_knn.py tests/results/test_rows.py tests/test_ranks.py tests/backbones tests/pretext_tasks

test-numerics: $(READY)  ## the tests of numbers once more, as on a processor without AVX-512
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n auto --dist worksteal $(NUMERICS)

test-matrix: $(READY) .venv-lowest/.ready .venv-newest/.ready  ## the quick tests in six settings, also with lowest and newest versions
	$(BIN)/python -m tests.matrix

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	python3.11 -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[dev,torchcodec]'
	@touch $@

.venv-newest/.ready: pyproject.toml
	python3.13 -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e '.[dev,torchcodec]'
	@touch $@

test-all: $(READY)  ## the quick and the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not gpu'

lint: $(READY)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY)  ## mypy on both packages
	$(BIN)/mypy

format: $(READY)  ## ruff: write the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure decoding, loading, steps, start-up on this machine
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks

gpu-pack: $(READY)  ## gather what `make gpu` needs offline into .gpu-pack (under 60 MB)
	$(BIN)/python -m tests.benchmarks.gpu_pack .gpu-pack

gpu:  ## r3d_18 in fp32 and bf16 on a GPU, tables and JSON to OUT=DIR; at most 9 minutes, works offline
	GPU_PYTHON="$(GPU_PYTHON)" sh tests/benchmarks/gpu.sh --out "$(OUT)"

docs: $(READY)  ## the documentation as HTML into docs/_build/html; a warning is an error
	@$(BIN)/python -c 'import furo, ipykernel, myst_nb, sphinx' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "read docs/_build/html/index.html"

build: $(READY)  ## wheel and source archive into dist/, offline
	$(BIN)/python -m build --no-isolation --outdir dist .

constraints: $(READY)  ## write constraints.txt from what .venv holds, constraints-lowest.txt from pyproject.toml
	$(BIN)/python -m tests.packaging.pin > constraints.txt.new && mv constraints.txt.new constraints.txt
	$(BIN)/python -m tests.packaging.pin --lowest > constraints-lowest.txt.new && mv constraints-lowest.txt.new constraints-lowest.txt

clean:  ## remove what was built (not .venv, not runs)
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .ssvid-demo
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
