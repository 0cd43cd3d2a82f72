#!/usr/bin/env bash
# build_pycuda.sh VENV DRIVER [OPTION OF PIP]…: PyCUDA from its source, linked with the driver library DRIVER.
# Its own settings want cuRAND and the toolkit's stub of the driver, which small installations of CUDA lack and nothing
# here uses. It wraps the driver's calls: a build in half of the time loses nothing.
set -euo pipefail
venv=$1 driver=$2
shift 2
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
cuda=$("$(dirname "$0")/find_cuda.sh")
export CUDA_ROOT=$cuda CPATH=$cuda/include${CPATH:+:$CPATH} PATH=$cuda/bin:$PATH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

ln -s "$driver" "$scratch/libcuda.so"
cat > "$scratch/.aksetup-defaults.py" <<SETTINGS
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$scratch"]
CXXFLAGS = ["-O1", "-g0", "-w"]
SETTINGS
"${pip[@]}" download "$@" --no-deps --no-binary pycuda --no-build-isolation --dest "$scratch/source" 'pycuda>=2024.1'
# It looks for its settings in the home folder.
HOME=$scratch "${pip[@]}" install --no-index --no-deps --no-build-isolation "$scratch"/source/pycuda*
