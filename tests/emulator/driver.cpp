// A stand-in for the CUDA driver (libcuda.so.1) whose kernels run in the emulator, so that the real PyCUDA and the real
// cuda-bindings, and the code on top of them, can be tried without a GPU: which calls are made, in which order, with a
// context or without.
//
// ATROUS_EMULATED lists libraries with kernels, separated by colons. An image of a module has to be for this GPU, and
// is not looked at beyond that. Streams do their work at once. A call that needs a current context and finds none
// fails, as in a driver; so does what may not be done while a stream is captured.
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum Result {
    kSuccess = 0,
    kInvalid = 1,
    kOutOfMemory = 2,
    kBadImage = 200,
    kNoContext = 201,
    kNoBinary = 209,
    kNotFound = 500,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901,
};

constexpr std::size_t kTotalBytes = std::size_t{1} << 33;

using Address = unsigned long long;
using Clock = std::chrono::steady_clock;
using Work = std::vector<std::function<void()>>;
using Kernel = const char* (*)(char* packed, const unsigned* shape);

std::recursive_mutex one_at_a_time;  // for memory and kernels; contexts and captures belong to threads
std::map<Address, std::size_t> allocations;
std::size_t used_bytes = 0;
thread_local std::vector<void*> contexts;
thread_local Work* captured = nullptr;
thread_local bool is_capture_valid = true;
char primary_context, a_stream, a_module;

int queue(std::function<void()> work) {
    if (captured != nullptr) {
        captured->push_back(std::move(work));
    } else {
        work();
    }
    return kSuccess;
}

/// For what waits or copies pageable memory.
int now(const std::function<void()>& work) {
    if (captured != nullptr) {
        is_capture_valid = false;
        return kCaptureUnsupported;
    }
    work();
    return kSuccess;
}

void* at(Address address) {
    return reinterpret_cast<void*>(address);
}

template <typename T>
T value_at(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

/// Takes machine code, and what a fatbin has of it for this GPU, 9.0. Entries of a fatbin follow each other: a header
/// with the kind (2: machine code), its own size, the payload's, and the architecture; and the payload.
int check_image(const char* image) {
    constexpr std::size_t kHeaderBytes = 16;
    if (std::memcmp(image, "\177ELF", 4) == 0) return kSuccess;
    if (value_at<std::uint32_t>(image) != 0xba55ed50) return kBadImage;
    const char* const end = image + kHeaderBytes + value_at<std::uint64_t>(image + 8);
    for (const char* entry = image + kHeaderBytes; entry < end;) {
        if (value_at<std::uint16_t>(entry) == 2 && value_at<std::uint32_t>(entry + 28) == 90) return kSuccess;
        entry += value_at<std::uint32_t>(entry + 4) + value_at<std::uint64_t>(entry + 8);
    }
    return kNoBinary;
}

}  // namespace

#define NEEDS_CONTEXT \
    if (contexts.empty()) return kNoContext

extern "C" {

int cuInit(unsigned) {
    return kSuccess;
}
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return kSuccess;
}
int cuGetErrorString(int result, const char** text) {
    static char message[64];
    std::snprintf(message, sizeof message, "error %d of the stand-in driver", result);
    *text = message;
    return kSuccess;
}

/// The newest of a function's versions that is here, which is what each caller means; null for those that are not.
int cuGetProcAddress_v2(const char* name, void** function, int, std::uint64_t, int* found) {
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&cuGetProcAddress_v2), &self);
    void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = dlsym(library, (std::string(name) + "_v2").c_str());
    if (*function == nullptr) *function = dlsym(library, name);
    dlclose(library);
    if (found != nullptr) *found = *function == nullptr ? 1 : 0;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    return *function == nullptr ? kNotFound : kSuccess;
}

int cuDeviceGetCount(int* count) {
    *count = 1;
    return kSuccess;
}
int cuDeviceGet(int* device, int) {
    *device = 0;
    return kSuccess;
}
int cuDeviceGetName(char* name, int bytes, int) {
    std::snprintf(name, bytes, "stand-in driver");
    return kSuccess;
}
int cuDeviceComputeCapability(int* major, int* minor, int) {
    *major = 9;
    *minor = 0;
    return kSuccess;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
    *bytes = kTotalBytes;
    return kSuccess;
}
int cuDeviceGetAttribute(int* value, int, int) {
    *value = 4;
    return kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &primary_context;
    return kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    return kSuccess;
}
int cuCtxPushCurrent_v2(void* context) {
    contexts.push_back(context);
    return kSuccess;
}
int cuCtxPopCurrent_v2(void** context) {
    NEEDS_CONTEXT;
    *context = contexts.back();
    contexts.pop_back();
    return kSuccess;
}
int cuCtxGetDevice(int* device) {
    NEEDS_CONTEXT;
    *device = 0;
    return kSuccess;
}
int cuCtxSynchronize() {
    NEEDS_CONTEXT;
    return now([] {});
}

int cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total) {
    NEEDS_CONTEXT;
    *total = kTotalBytes;
    *free_bytes = kTotalBytes - used_bytes;
    return kSuccess;
}
int cuMemAlloc_v2(Address* address, std::size_t bytes) {
    NEEDS_CONTEXT;
    const std::lock_guard<std::recursive_mutex> locked(one_at_a_time);
    if (bytes == 0) return kInvalid;
    if (bytes > kTotalBytes - used_bytes) return kOutOfMemory;
    void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
    std::memset(memory, 0xcb, bytes);
    *address = reinterpret_cast<Address>(memory);
    allocations[*address] = bytes;
    used_bytes += bytes;
    return kSuccess;
}
int cuMemFree_v2(Address address) {
    NEEDS_CONTEXT;
    const std::lock_guard<std::recursive_mutex> locked(one_at_a_time);
    used_bytes -= allocations[address];
    allocations.erase(address);
    std::free(at(address));
    return kSuccess;
}
int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
    NEEDS_CONTEXT;
    *memory = std::malloc(bytes);
    std::memset(*memory, 0xcb, bytes);
    return kSuccess;
}
int cuMemFreeHost(void* memory) {
    NEEDS_CONTEXT;
    std::free(memory);
    return kSuccess;
}
int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void*) {
    NEEDS_CONTEXT;
    return now([=] { std::memcpy(at(to), from, bytes); });
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void*) {
    NEEDS_CONTEXT;
    return now([=] { std::memcpy(to, at(from), bytes); });
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, void*) {
    NEEDS_CONTEXT;
    return queue([=] { std::memcpy(at(to), at(from), bytes); });
}
int cuMemsetD32Async(Address to, unsigned word, std::size_t count, void*) {
    NEEDS_CONTEXT;
    return queue([=] {
        for (std::size_t i = 0; i < count; ++i) static_cast<unsigned*>(at(to))[i] = word;
    });
}

int cuStreamCreate(void** stream, unsigned) {
    NEEDS_CONTEXT;
    *stream = &a_stream;
    return kSuccess;
}
int cuStreamDestroy_v2(void*) {
    NEEDS_CONTEXT;
    return kSuccess;
}
int cuStreamWaitEvent(void*, void*, unsigned) {
    NEEDS_CONTEXT;
    return kSuccess;
}
int cuStreamSynchronize(void*) {
    NEEDS_CONTEXT;
    return now([] {});
}
int cuEventCreate(void** event, unsigned) {
    NEEDS_CONTEXT;
    *event = new Clock::time_point;
    return kSuccess;
}
int cuEventDestroy_v2(void* event) {
    NEEDS_CONTEXT;
    delete static_cast<Clock::time_point*>(event);
    return kSuccess;
}
int cuEventRecord(void* event, void*) {
    NEEDS_CONTEXT;
    if (captured == nullptr) *static_cast<Clock::time_point*>(event) = Clock::now();
    return kSuccess;
}
int cuEventRecordWithFlags(void* event, void*, unsigned flags) {
    NEEDS_CONTEXT;
    if (flags != 1 || captured == nullptr) return kInvalid;  // CU_EVENT_RECORD_EXTERNAL, which is for graphs
    return queue([=] { *static_cast<Clock::time_point*>(event) = Clock::now(); });
}
int cuEventSynchronize(void*) {
    NEEDS_CONTEXT;
    return kSuccess;
}
int cuEventElapsedTime_v2(float* ms, void* start, void* end) {
    NEEDS_CONTEXT;
    const auto time = *static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(start);
    *ms = std::chrono::duration<float, std::milli>(time).count();
    return kSuccess;
}
int cuEventElapsedTime(float* ms, void* start, void* end) {
    return cuEventElapsedTime_v2(ms, start, end);
}

int cuModuleLoadData(void** module, const void* image) {
    NEEDS_CONTEXT;
    *module = &a_module;
    return check_image(static_cast<const char*>(image));
}
int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}
int cuModuleUnload(void*) {
    NEEDS_CONTEXT;
    return kSuccess;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
    NEEDS_CONTEXT;
    std::istringstream libraries(std::getenv("ATROUS_EMULATED"));
    for (std::string path; std::getline(libraries, path, ':');) {
        *function = dlsym(dlopen(path.c_str(), RTLD_NOW), (std::string("emulated_packed_") + name).c_str());
        if (*function != nullptr) return kSuccess;
    }
    return kNotFound;
}
int cuFuncSetBlockShape(void*, int, int, int) {
    return kSuccess;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned, void*, void**, void** extra) {
    NEEDS_CONTEXT;
    if (extra == nullptr) return kInvalid;
    const auto* packed = static_cast<const char*>(extra[1]);               // CU_LAUNCH_PARAM_BUFFER_POINTER
    const std::size_t bytes = *static_cast<const std::size_t*>(extra[3]);  // CU_LAUNCH_PARAM_BUFFER_SIZE
    std::vector<std::uint64_t> arguments(bytes / 8 + 1);
    std::memcpy(arguments.data(), packed, bytes);
    const std::vector<unsigned> shape{grid_x, grid_y, grid_z, block_x, block_y, block_z};
    const auto kernel = reinterpret_cast<Kernel>(function);
    return queue([=]() mutable {
        const std::lock_guard<std::recursive_mutex> locked(one_at_a_time);
        const char* error = kernel(reinterpret_cast<char*>(arguments.data()), shape.data());
        if (error == nullptr) return;
        std::fprintf(stderr, "a kernel failed: %s\n", error);
        std::abort();
    });
}

int cuStreamBeginCapture_v2(void*, int) {
    NEEDS_CONTEXT;
    captured = new Work;
    is_capture_valid = true;
    return kSuccess;
}
int cuStreamEndCapture(void*, void** graph) {
    NEEDS_CONTEXT;
    *graph = captured;
    captured = nullptr;
    return is_capture_valid ? kSuccess : kCaptureInvalidated;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    NEEDS_CONTEXT;
    *executable = new Work(*static_cast<Work*>(graph));
    return kSuccess;
}
int cuGraphDestroy(void* graph) {
    NEEDS_CONTEXT;
    delete static_cast<Work*>(graph);
    return kSuccess;
}
int cuGraphExecDestroy(void* executable) {
    return cuGraphDestroy(executable);
}
int cuGraphLaunch(void* executable, void*) {
    NEEDS_CONTEXT;
    for (const auto& work : *static_cast<Work*>(executable)) work();
    return kSuccess;
}

}  // extern "C"
