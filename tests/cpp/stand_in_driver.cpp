// The stand-in driver of the Python tests with the few functions more that the C++ runtime asks for.
#include "driver.cpp"

extern "C" {

int cuMemcpy2DAsync_v2(const void* copy, void*) {
    NEEDS_CONTEXT;
    // CUDA_MEMCPY2D in words of eight bytes: x, y, type, host, device, array, pitch; the same of the target; width,
    // rows.
    const auto* words = static_cast<const std::uint64_t*>(copy);
    const std::uint64_t from = words[4], from_pitch = words[6], to = words[11], to_pitch = words[13];
    const std::uint64_t width = words[14], rows = words[15];
    if (width > from_pitch || width > to_pitch) return kInvalid;
    return queue([=] {
        for (std::uint64_t y = 0; y < rows; ++y) std::memcpy(at(to + y * to_pitch), at(from + y * from_pitch), width);
    });
}

int cuPointerGetAttribute(void* value, int attribute, Address address) {
    NEEDS_CONTEXT;
    for (const auto& [begin, bytes] : allocations) {
        if (address < begin || address >= begin + bytes) continue;
        *static_cast<int*>(value) = attribute == 2 ? 2 : 0;  // memory type: of a device; ordinal: 0
        return kSuccess;
    }
    return kInvalid;
}

int cuStreamGetCtx(void* stream, void** context) {
    *context = &primary_context;
    return stream == &a_stream ? kSuccess : kInvalid;
}

}  // extern "C"
