#include "fixtures.hpp"
#include "testing.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1  // as GCC says it
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <dlfcn.h>

// oneTBB, inside OpenVINO, asks for symbols to be bound within a library, which AddressSanitizer does not allow.
extern "C" __attribute__((visibility("default"))) void* dlopen(const char* file, int flags) {
    using Open = void* (*)(const char*, int);
    static const auto next = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
    return next(file, flags & ~RTLD_DEEPBIND);
}

// OpenVINO 2026.4 keeps about 1 KB for each compiled network on the CPU.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
    return "leak:libopenvino.so\nleak:libtbb.so";
}
#endif

int main(int count, char** arguments) {
    fixtures::add_pixel_engine();
    return testing::run(count, arguments);
}
