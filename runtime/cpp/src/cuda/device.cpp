#include "cuda/device.hpp"

#include <array>
#include <utility>

#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

int attribute(DeviceHandle device, int which) {
    int value = 0;
    check(driver().cuDeviceGetAttribute(&value, which, device), "asking what the GPU is");
    return value;
}

/// A handle that `release` gives back, in the device's context. Errors then have nobody to go to.
template <typename Release>
std::shared_ptr<void> owned(const std::shared_ptr<const Device>& device, void* handle, Release release) {
    return {handle, [device, release](void* held) {
                try {
                    const Current current(*device);
                    release(held);
                } catch (const Failure&) {  // the context is gone, and with it what was held
                }
            }};
}

}  // namespace

Device::Device(int ordinal) : ordinal_(ordinal) {
    int count = 0;
    check(driver().cuDeviceGetCount(&count), "counting GPUs");
    if (ordinal >= count) {
        fail(ATROUS_ERROR_DEVICE, "there is no GPU ", ordinal, ": the CUDA driver sees ", count, ", numbered from 0");
    }
    check(driver().cuDeviceGet(&handle_, ordinal), "finding the GPU");
    std::array<char, 256> name{};
    check(driver().cuDeviceGetName(name.data(), static_cast<int>(name.size()), handle_), "asking for the GPU's name");
    name_ = name.data();
    multiprocessors_ = attribute(handle_, kMultiprocessors);
    compute_capability_ = text(attribute(handle_, kCapabilityMajor), ".", attribute(handle_, kCapabilityMinor));
    int version = 0;
    check(driver().cuDriverGetVersion(&version), "asking for the driver's version");
    cuda_major_ = version / 1000;
    check(driver().cuDevicePrimaryCtxRetain(&context_, handle_), "starting the GPU");
}

Device::~Device() {
    driver().cuDevicePrimaryCtxRelease_v2(handle_);
}

std::size_t Device::free_bytes() const {
    std::size_t free = 0;
    std::size_t total = 0;
    check(driver().cuMemGetInfo_v2(&free, &total), "asking for free memory");
    return free;
}

void Device::check_owns(const void* address, const char* name) const {
    int type = 0;
    int owner = -1;
    const auto pointer = reinterpret_cast<Address>(address);
    const bool is_known = driver().cuPointerGetAttribute(&type, kPointerMemoryType, pointer) == 0 &&
                          driver().cuPointerGetAttribute(&owner, kPointerDevice, pointer) == 0;
    if (!is_known || type != kDeviceMemory) fail(ATROUS_ERROR_DEVICE, name, " is not GPU memory");
    if (owner != ordinal_) {
        fail(ATROUS_ERROR_DEVICE, name, " is memory of GPU ", owner, "; the segmenter runs on GPU ", ordinal_);
    }
}

void Device::check_owns_stream(void* stream) const {
    if (stream == nullptr) return;
    void* context = nullptr;
    if (driver().cuStreamGetCtx(stream, &context) != 0 || context != context_) {
        fail(ATROUS_ERROR_DEVICE, "the stream does not belong to the primary context of GPU ", ordinal_);
    }
}

Current::Current(const Device& device) {
    check(driver().cuCtxPushCurrent_v2(device.context_), "making the GPU current");
}

Current::~Current() {
    void* context = nullptr;
    driver().cuCtxPopCurrent_v2(&context);
}

Memory::Memory(const std::shared_ptr<const Device>& device, std::size_t bytes) : region_{0, bytes} {
    check(driver().cuMemAlloc_v2(&region_.address, bytes), text("allocating ", bytes, " bytes").c_str());
    owner_ = owned(device, reinterpret_cast<void*>(region_.address),
                   [](void* held) { driver().cuMemFree_v2(reinterpret_cast<Address>(held)); });
}

HostMemory::HostMemory(const std::shared_ptr<const Device>& device, std::size_t bytes) {
    void* memory = nullptr;
    check(driver().cuMemHostAlloc(&memory, bytes, 0), "allocating pinned memory");
    owner_ = owned(device, memory, [](void* held) { driver().cuMemFreeHost(held); });
}

Stream::Stream(const std::shared_ptr<const Device>& device) {
    void* handle = nullptr;
    check(driver().cuStreamCreate(&handle, kNonBlocking), "making a stream");
    owner_ = owned(device, handle, [](void* held) { driver().cuStreamDestroy_v2(held); });
}

void Stream::synchronize() const {
    check(driver().cuStreamSynchronize(handle()), "waiting for work");
}

void Stream::fill(const Region& region, std::uint32_t word) const {
    check(driver().cuMemsetD32Async(region.address, word, region.bytes / 4, handle()), "filling memory");
}

void Stream::copy(const Region& target, const Region& source) const {
    check(driver().cuMemcpyDtoDAsync_v2(target.address, source.address, source.bytes, handle()), "copying on the GPU");
}

void Stream::copy_rows(const Rows& target, const Rows& source, const Size& size) const {
    Copy2d rows{};
    rows.source_type = rows.target_type = kDeviceMemory;
    rows.source_device = source.address;
    rows.source_pitch = static_cast<std::size_t>(source.pitch_bytes);
    rows.target_device = target.address;
    rows.target_pitch = static_cast<std::size_t>(target.pitch_bytes);
    rows.width_bytes = static_cast<std::size_t>(size.width);
    rows.height = static_cast<std::size_t>(size.height);
    check(driver().cuMemcpy2DAsync_v2(&rows, handle()), "copying rows on the GPU");
}

void Stream::upload(const Region& target, const void* source, std::size_t bytes) const {
    check(driver().cuMemcpyHtoDAsync_v2(target.address, source, bytes, handle()), "copying to the GPU");
}

void Stream::download(void* target, const Region& source, std::size_t bytes) const {
    check(driver().cuMemcpyDtoHAsync_v2(target, source.address, bytes, handle()), "copying from the GPU");
}

Event::Event(const std::shared_ptr<const Device>& device) {
    void* handle = nullptr;
    check(driver().cuEventCreate(&handle, 0), "making an event");
    owner_ = owned(device, handle, [](void* held) { driver().cuEventDestroy_v2(held); });
}

void Event::record(void* stream) const {
    check(driver().cuEventRecord(owner_.get(), stream), "recording an event");
}

void Event::make_wait(const Stream& stream) const {
    check(driver().cuStreamWaitEvent(stream.handle(), owner_.get(), 0), "waiting for another stream");
}

double Event::ms_since(const Event& earlier) const {
    float ms = 0;
    check(driver().cuEventElapsedTime(&ms, earlier.owner_.get(), owner_.get()), "measuring time");
    return ms;
}

Graph::Graph(const std::shared_ptr<const Device>& device, const Stream& stream, const std::function<void()>& queue) {
    check(driver().cuStreamBeginCapture_v2(stream.handle(), kCaptureThreadLocal), "recording a graph");
    void* graph = nullptr;
    try {
        queue();
    } catch (...) {  // the stream must be usable again
        if (driver().cuStreamEndCapture(stream.handle(), &graph) == 0) driver().cuGraphDestroy(graph);
        throw;
    }
    check(driver().cuStreamEndCapture(stream.handle(), &graph), "recording a graph");
    void* executable = nullptr;
    const int result = driver().cuGraphInstantiateWithFlags(&executable, graph, 0);
    driver().cuGraphDestroy(graph);
    check(result, "making a graph executable");
    owner_ = owned(device, executable, [](void* held) { driver().cuGraphExecDestroy(held); });
}

void Graph::replay(const Stream& stream) const {
    check(driver().cuGraphLaunch(owner_.get(), stream.handle()), "starting a graph");
}

Module::Module(const std::shared_ptr<const Device>& device, const void* image) {
    void* handle = nullptr;
    check(driver().cuModuleLoadDataEx(&handle, image, 0, nullptr, nullptr), "loading kernels");
    owner_ = owned(device, handle, [](void* held) { driver().cuModuleUnload(held); });
}

void* Module::function(const char* name) const {
    void* found = nullptr;
    check(driver().cuModuleGetFunction(&found, owner_.get(), name), text("finding the kernel ", name).c_str());
    return found;
}

}  // namespace atrous::core::cuda
