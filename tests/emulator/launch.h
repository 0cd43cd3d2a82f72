// How the registry of kernels, which the builder writes, starts them.
#pragma once

#include <functional>
#include <utility>

#include "cuda_shim.h"

namespace emulator {

/// Runs a whole grid. Null, or why it was stopped.
const char* launch(const std::function<void()>& kernel, dim3 grid, dim3 block, int order);

/// Starts `kernel` with arguments as cuLaunchKernel takes them: one pointer to the value of each.
template <typename... Args, std::size_t... index>
const char* launch_with(void (*kernel)(Args...), void** args, std::index_sequence<index...>, const unsigned* shape,
                        int order) {
    return launch([&] { kernel(*static_cast<Args*>(args[index])...); }, {shape[0], shape[1], shape[2]},
                  {shape[3], shape[4], shape[5]}, order);
}

template <typename... Args>
const char* launch_kernel(void (*kernel)(Args...), void** args, const unsigned* shape, int order) {
    return launch_with(kernel, args, std::index_sequence_for<Args...>(), shape, order);
}

template <typename... Args>
constexpr int count_arguments(void (*)(Args...)) {
    return sizeof...(Args);
}

}  // namespace emulator

/// extern "C" faces of one kernel: for the loader's argument check, and for the launch.
#define EMULATED_KERNEL(name)                                                               \
    extern "C" int emulated_arguments_##name() {                                            \
        return emulator::count_arguments(&name);                                            \
    }                                                                                       \
    extern "C" const char* emulated_##name(void** args, const unsigned* shape, int order) { \
        return emulator::launch_kernel(&name, args, shape, order);                          \
    }
