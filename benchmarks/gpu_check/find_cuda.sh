#!/usr/bin/env bash
# find_cuda.sh: where the CUDA toolkit is, the one of CUDA_HOME first; fails if there is none with headers.
set -euo pipefail
of_nvcc=$({ nvcc --dryrun -x cu /dev/null 2>&1 || true; } | sed -n 's/^#\$ TOP=//p')
for cuda in "${CUDA_HOME:-}" "$of_nvcc" /usr/local/cuda; do
    [[ ! -f $cuda/include/cuda.h ]] || { echo "$cuda" && exit; }
done
echo "no CUDA toolkit with include/cuda.h: set CUDA_HOME" >&2
exit 1
