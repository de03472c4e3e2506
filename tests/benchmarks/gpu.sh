#!/bin/sh
# Runs the GPU benchmark with whatever Python has torch. What that Python lacks (PyAV, omegaconf, ssvid itself) comes
# from .gpu-pack, which `make gpu-pack` filled on a machine with a network.
set -eu
cd "$(dirname "$0")/../.."
python="${GPU_PYTHON:-python3}"
if [ -d .gpu-pack/wheels ]; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --target "$site" .gpu-pack/wheels/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
elif [ -x .venv/bin/python ]; then
    python=.venv/bin/python
fi
"$python" -m tests.benchmarks.bench_gpu "$@"
