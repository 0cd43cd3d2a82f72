// The CUDA driver's functions, found at run time: a library that was built with CUDA also loads where there is none,
// and building it needs no CUDA header. tests/cpp/driver_types.cpp compares these declarations with cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace atrous::core::cuda {

using Address = std::uint64_t;  ///< CUdeviceptr
using DeviceHandle = int;       ///< CUdevice

/// CUDA_MEMCPY2D
struct Copy2d {
    std::size_t source_x, source_y;
    int source_type;  ///< CUmemorytype
    const void* source_host;
    Address source_device;
    void* source_array;
    std::size_t source_pitch;
    std::size_t target_x, target_y;
    int target_type;
    void* target_host;
    Address target_device;
    void* target_array;
    std::size_t target_pitch;
    std::size_t width_bytes, height;
};

constexpr int kDeviceMemory = 2;        ///< CU_MEMORYTYPE_DEVICE
constexpr int kMultiprocessors = 16;    ///< CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
constexpr int kCapabilityMajor = 75;    ///< CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kCapabilityMinor = 76;    ///< CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
constexpr int kPointerMemoryType = 2;   ///< CU_POINTER_ATTRIBUTE_MEMORY_TYPE
constexpr int kPointerDevice = 9;       ///< CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
constexpr unsigned kNonBlocking = 1;    ///< CU_STREAM_NON_BLOCKING
constexpr int kCaptureThreadLocal = 1;  ///< CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr int kOutOfMemory = 2;         ///< CUDA_ERROR_OUT_OF_MEMORY

// Name, then parameters; all return a CUresult, 0 for success.
#define ATROUS_DRIVER_FUNCTIONS(F)                                                                                \
    F(cuInit, unsigned)                                                                                           \
    F(cuDriverGetVersion, int*)                                                                                   \
    F(cuGetErrorString, int, const char**)                                                                        \
    F(cuDeviceGetCount, int*)                                                                                     \
    F(cuDeviceGet, DeviceHandle*, int)                                                                            \
    F(cuDeviceGetName, char*, int, DeviceHandle)                                                                  \
    F(cuDeviceGetAttribute, int*, int, DeviceHandle)                                                              \
    F(cuDevicePrimaryCtxRetain, void**, DeviceHandle)                                                             \
    F(cuDevicePrimaryCtxRelease_v2, DeviceHandle)                                                                 \
    F(cuCtxPushCurrent_v2, void*)                                                                                 \
    F(cuCtxPopCurrent_v2, void**)                                                                                 \
    F(cuMemGetInfo_v2, std::size_t*, std::size_t*)                                                                \
    F(cuMemAlloc_v2, Address*, std::size_t)                                                                       \
    F(cuMemFree_v2, Address)                                                                                      \
    F(cuMemcpyHtoDAsync_v2, Address, const void*, std::size_t, void*)                                             \
    F(cuMemcpyDtoHAsync_v2, void*, Address, std::size_t, void*)                                                   \
    F(cuMemcpyDtoDAsync_v2, Address, Address, std::size_t, void*)                                                 \
    F(cuMemcpy2DAsync_v2, const Copy2d*, void*)                                                                   \
    F(cuMemsetD32Async, Address, unsigned, std::size_t, void*)                                                    \
    F(cuMemHostAlloc, void**, std::size_t, unsigned)                                                              \
    F(cuMemFreeHost, void*)                                                                                       \
    F(cuPointerGetAttribute, void*, int, Address)                                                                 \
    F(cuStreamCreate, void**, unsigned)                                                                           \
    F(cuStreamDestroy_v2, void*)                                                                                  \
    F(cuStreamSynchronize, void*)                                                                                 \
    F(cuStreamWaitEvent, void*, void*, unsigned)                                                                  \
    F(cuStreamGetCtx, void*, void**)                                                                              \
    F(cuStreamBeginCapture_v2, void*, int)                                                                        \
    F(cuStreamEndCapture, void*, void**)                                                                          \
    F(cuEventCreate, void**, unsigned)                                                                            \
    F(cuEventDestroy_v2, void*)                                                                                   \
    F(cuEventRecord, void*, void*)                                                                                \
    F(cuEventElapsedTime, float*, void*, void*)                                                                   \
    F(cuGraphInstantiateWithFlags, void**, void*, unsigned long long)                                             \
    F(cuGraphDestroy, void*)                                                                                      \
    F(cuGraphExecDestroy, void*)                                                                                  \
    F(cuGraphLaunch, void*, void*)                                                                                \
    F(cuModuleLoadDataEx, void**, const void*, unsigned, int*, void**)                                            \
    F(cuModuleUnload, void*)                                                                                      \
    F(cuModuleGetFunction, void**, void*, const char*)                                                            \
    F(cuLaunchKernel, void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, \
      void**)

struct Driver {
#define ATROUS_DECLARE(name, ...) int (*name)(__VA_ARGS__);
    ATROUS_DRIVER_FUNCTIONS(ATROUS_DECLARE)
#undef ATROUS_DECLARE
};

/// The driver, initialised. Throws Failure(DEVICE) where there is none.
const Driver& driver();

/// Throws Failure(DEVICE), or MEMORY, with the driver's words, unless `result` is success.
void check(int result, const char* doing);

}  // namespace atrous::core::cuda
