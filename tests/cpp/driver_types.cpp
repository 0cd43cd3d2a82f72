// Compiled, not run: the driver's functions, struct and constants as src/cuda/driver.hpp declares them are cuda.h's.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "cuda/driver.hpp"

namespace {

/// Types that are passed alike: enums as int, handles and other pointers as pointers, integers by size and sign.
template <typename T, typename = void>
struct Passed {
    using type = std::conditional_t<std::is_signed_v<T>, std::integral_constant<int, -static_cast<int>(sizeof(T))>,
                                    std::integral_constant<int, static_cast<int>(sizeof(T))>>;
};
template <typename T>
struct Passed<T, std::enable_if_t<std::is_enum_v<T>>> : Passed<int> {
    static_assert(sizeof(T) == sizeof(int), "an enum like an int");
};
template <typename T>
struct Passed<T, std::enable_if_t<std::is_pointer_v<T>>> {
    using type = void*;
};

template <typename... Types>
struct List {};

template <typename Result, typename... Parameters>
List<typename Passed<Parameters>::type...> passed(Result (*)(Parameters...));

}  // namespace

namespace atrous::core::cuda {

#define ATROUS_COMPARE(name, ...)                                                                                \
    static_assert(                                                                                               \
        std::is_same_v<decltype(passed(static_cast<int (*)(__VA_ARGS__)>(nullptr))), decltype(passed(&::name))>, \
        #name);
ATROUS_DRIVER_FUNCTIONS(ATROUS_COMPARE)

static_assert(sizeof(Copy2d) == sizeof(CUDA_MEMCPY2D));
static_assert(offsetof(Copy2d, source_device) == offsetof(CUDA_MEMCPY2D, srcDevice));
static_assert(offsetof(Copy2d, source_pitch) == offsetof(CUDA_MEMCPY2D, srcPitch));
static_assert(offsetof(Copy2d, target_type) == offsetof(CUDA_MEMCPY2D, dstMemoryType));
static_assert(offsetof(Copy2d, target_device) == offsetof(CUDA_MEMCPY2D, dstDevice));
static_assert(offsetof(Copy2d, target_pitch) == offsetof(CUDA_MEMCPY2D, dstPitch));
static_assert(offsetof(Copy2d, height) == offsetof(CUDA_MEMCPY2D, Height));

static_assert(kDeviceMemory == CU_MEMORYTYPE_DEVICE);
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kPointerMemoryType == CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
static_assert(kPointerDevice == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(kNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);

}  // namespace atrous::core::cuda
