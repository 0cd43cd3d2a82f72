#include "cuda/driver.hpp"

#include <dlfcn.h>

#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

Driver load() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail(ATROUS_ERROR_DEVICE, "there is no CUDA driver: ", dlerror());
    Driver loaded{};
#define ATROUS_FIND(name, ...)                                                                  \
    loaded.name = reinterpret_cast<int (*)(__VA_ARGS__)>(dlsym(library, #name));                \
    if (loaded.name == nullptr) {                                                               \
        fail(ATROUS_ERROR_DEVICE, "the CUDA driver lacks " #name "; it must be 11.4 or newer"); \
    }
    ATROUS_DRIVER_FUNCTIONS(ATROUS_FIND)
#undef ATROUS_FIND
    const int result = loaded.cuInit(0);
    if (result != 0) fail(ATROUS_ERROR_DEVICE, "the CUDA driver does not start: status ", result, ". See nvidia-smi");
    return loaded;
}

}  // namespace

const Driver& driver() {
    static const Driver loaded = load();  // tried again by the next call if it throws
    return loaded;
}

void check(int result, const char* doing) {
    if (result == 0) return;
    const char* words = nullptr;
    driver().cuGetErrorString(result, &words);
    fail(result == kOutOfMemory ? ATROUS_ERROR_MEMORY : ATROUS_ERROR_DEVICE, doing, " failed on the GPU with status ",
         result, ": ", words != nullptr ? words : "unknown error");
}

}  // namespace atrous::core::cuda
