#!/usr/bin/env bash
# run.sh check|bench: sets up .venv-gpu, then verifies (check.py) or times (bench.py) the GPU code on this machine, all
# within eight minutes; what was set up once is kept. Writes benchmarks/results/gpu_<name of the GPU>_<check|bench>.json.
#   PYTHON                what to make .venv-gpu from: the packages it has are used, and not fetched
#   GPU_CHECK_WHEELS      a folder to install from instead of the network (requirements.txt says how to fill it)
#   GPU_CHECK_BUNDLE      the bundle to run, else a small random network
#   GPU_CHECK_REHEARSAL=1 runs the same without a GPU, on the emulator, at small sizes; writes out/gpu_rehearsal
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benchmarks/gpu_check venv=.venv-gpu what=${1:-check} python=${PYTHON:-python3}
seconds=480 setup_seconds=270

say() { echo "gpu-$what: $*"; }
fail() { say "nothing was run: $*" >&2; exit 1; }

# once NAME FILE… -- COMMAND…: unless it was done with these files as they are.
once() {
    local name=$1 files=() digest
    shift
    while [[ $1 != -- ]]; do files+=("$1") && shift; done
    shift
    digest=$(cat "${files[@]}" | sha256sum)
    [[ -f $venv/done/$name && $(<"$venv/done/$name") == "$digest" ]] && return
    timeout $((SECONDS < setup_seconds ? setup_seconds - SECONDS : 1)) "$@" || return
    mkdir -p $venv/done && echo "$digest" > "$venv/done/$name"
}

# Where the driver is; in a rehearsal a stand-in, which is enough to link with.
if [[ -n ${GPU_CHECK_REHEARSAL:-} ]]; then
    say "REHEARSAL: no GPU is used. Kernels run in an emulator on the CPU, and nothing below says a thing of a GPU"
    driver=$PWD/$venv/link/libcuda.so.1
else
    driver=$("$python" $here/find_driver.py "gpu-$what") || exit 1
fi

$here/make_venv.sh "$python" $venv
source=()
if [[ -n ${GPU_CHECK_WHEELS:-} ]]; then
    $here/join_wheels.sh "$GPU_CHECK_WHEELS" $venv/wheels
    source=(--no-index --find-links "$GPU_CHECK_WHEELS" --find-links "$venv/wheels")
fi

cuda=$($here/find_cuda.sh) || fail "the kernels and PyCUDA have to be compiled"
export CUDA_HOME=$cuda PATH=$cuda/bin:$PATH

pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
once needed $here/requirements.txt -- "${pip[@]}" "${source[@]}" -r $here/requirements.txt ||
    fail "what $here/requirements.txt lists could not be installed"

# What is built, and what runs networks or is a peer, each if it can be had: the report says which were.
if [[ -n ${GPU_CHECK_REHEARSAL:-} ]]; then
    mkdir -p $venv/link
    once link tests/emulator/driver.cpp -- g++ -std=c++17 -fPIC -shared -Wl,-soname,libcuda.so.1 \
        tests/emulator/driver.cpp -o "$driver" -ldl
fi
once pycuda $here/build_pycuda.sh -- $here/build_pycuda.sh $venv "$driver" "${source[@]}" > $venv/pycuda.log 2>&1 &
pycuda=$!
once native setup.py pyproject.toml ./*/csrc/* -- \
    "${pip[@]}" --no-index --no-build-isolation --no-deps --editable . > $venv/native.log 2>&1 &
native=$!
optional() {
    once "$1" $here/requirements.txt -- timeout 120 "${pip[@]}" "${source[@]}" --retries 1 "$1" > "$venv/$1.log" 2>&1 ||
        say "goes on without $1; $venv/$1.log says why"
}
optional pydensecrf2 &
if [[ -z ${GPU_CHECK_REHEARSAL:-} ]]; then  # gigabytes that do nothing without a GPU
    for engine in onnxruntime-gpu tensorrt-rtx-cu13 tensorrt; do optional $engine & done
fi
wait $pycuda || fail "PyCUDA could not be built: $(tail -n 20 $venv/pycuda.log)"
wait $native || fail "the native core could not be built: $(tail -n 20 $venv/native.log)"
wait
say "set up in $SECONDS s"

script=("$here/$what.py")
[[ -z ${GPU_CHECK_REHEARSAL:-} ]] || script=("$here/rehearse.py" "$here/$what.py")
left=$((seconds - SECONDS))
# The steps end by themselves; the margin is for what they started, and for the report.
export GPU_CHECK_SECONDS=$((left - 15))
exec timeout --signal=INT --kill-after=10 $left $venv/bin/python "${script[@]}"
