#!/usr/bin/env bash
# Verifies and times the GPU code on this machine: `make gpu-check`. Writes benchmarks/results/gpu_<name of the GPU>.json.
# GPU_CHECK_WHEELS: a folder to install from instead of the network (see requirements.txt); large wheels may lie there in
# parts. GPU_CHECK_BUNDLE: the bundle to time, else a small random network. Bounded to 10 minutes, of which setting up
# may take 3.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
venv=.venv-gpu

"$python" - <<'DETECT' || exit 1
import ctypes, sys
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit("gpu-check: nothing was run: this machine has no CUDA driver (libcuda.so.1), and so no NVIDIA GPU to check")
count = ctypes.c_int()
if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
    sys.exit("gpu-check: nothing was run: the CUDA driver is installed but finds no GPU; see nvidia-smi")
DETECT

source=()
if [[ -n "${GPU_CHECK_WHEELS:-}" ]]; then
    benchmarks/gpu_check/join_wheels.sh "$GPU_CHECK_WHEELS" $venv/wheels
    source=(--no-index --find-links "$GPU_CHECK_WHEELS" --find-links $venv/wheels)
fi
# For building PyCUDA from its source.
cuda=${CUDA_HOME:-/usr/local/cuda}
export CUDA_ROOT=$cuda CPATH=$cuda/include${CPATH:+:$CPATH} PATH=$cuda/bin:$PATH
export LIBRARY_PATH=$cuda/lib64/stubs:$cuda/lib64${LIBRARY_PATH:+:$LIBRARY_PATH}
test -x $venv/bin/python || "$python" -m venv $venv
pip() { timeout "${limit:-180}" $venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
# First what builds, then what is built with it: PyCUDA and the native core take this environment as it is.
pip install "${source[@]}" --upgrade setuptools wheel numpy pybind11
pip install "${source[@]}" --no-build-isolation -r benchmarks/gpu_check/requirements.txt
pip install --no-index --no-build-isolation --no-deps --editable .
# What runs networks on the GPU, each if it can be had: the report says which were.
for engine in onnxruntime-gpu tensorrt-rtx-cu13 tensorrt; do
    limit=60 pip install "${source[@]}" $engine || echo "gpu-check: goes on without $engine"
done
exec timeout --signal=INT 400 $venv/bin/python "benchmarks/gpu_check/${1:-check}.py"
