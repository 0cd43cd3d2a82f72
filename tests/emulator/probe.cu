// Kernels for the tests of devices.
#include <cstdint>

namespace atrous {

extern "C" __global__ void scale(const float* from, float factor, int count, float* to) {
    const int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) to[i] = factor * from[i];
}

extern "C" __global__ void count_up(uint32_t* value, const void* nothing) {
    if (threadIdx.x == 0 && nothing == nullptr) *value += 1;
}

}  // namespace atrous
