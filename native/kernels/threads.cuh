// Which of a launch's threads runs. Kernels loop from their number on, by the number of all.
#pragma once

#include "native/kernels/grid.cuh"

namespace atrous {

__device__ inline int global_thread() {
    return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__device__ inline int all_threads() {
    return static_cast<int>(gridDim.x * blockDim.x);
}

}  // namespace atrous
