// The dense CRF's kernels as one translation unit: one module to compile, cache and load.
#include "embed.cuh"
#include "filter.cuh"
#include "lattice.cuh"
#include "mean_field.cuh"
#include "sort.cuh"
