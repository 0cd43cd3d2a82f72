#include "cuda/frame_queue.hpp"

#include <array>

namespace atrous::core::cuda {
namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFF;

/// Samples a pixel, rounded as on the CPU.
float scale_of(int length, int full, bool align_corners) {
    if (!align_corners) return static_cast<float>(length) / static_cast<float>(full);
    return full > 1 ? static_cast<float>(length - 1) / static_cast<float>(full - 1) : 0.0f;
}

void queue_resample(KernelQueue& frames, const char* kernel, const DeviceLogits& logits, const Geometry& geometry,
                    bool align_corners, const Region& target) {
    frames.each(kernel, std::int64_t{geometry.image.height} * ceil_div(geometry.image.width, kRun), logits.values, 1,
                logits.channels, logits.size.height, logits.size.width,
                scale_of(logits.size.height, geometry.full.height, align_corners),
                scale_of(logits.size.width, geometry.full.width, align_corners), align_corners ? 1 : 0,
                geometry.image.height, geometry.image.width, target);
}

template <typename Value>
Memory upload_values(const std::shared_ptr<const Device>& device, const Stream& stream, const Value& values) {
    const std::size_t bytes = values.size() * sizeof(*values.data());
    Memory memory(device, bytes);
    stream.upload(memory.region(), values.data(), bytes);
    stream.synchronize();  // before the values go
    return memory;
}

}  // namespace

DeviceStretch::DeviceStretch(const std::shared_ptr<const Device>& device, const Stream& stream, const Size& from,
                             const Size& to) {
    for (const ResizePass& pass : plan_resize(from.height, from.width, to.height, to.width)) {
        passes_.push_back({pass, upload_values(device, stream, pass.resampling.first),
                           upload_values(device, stream, pass.resampling.weights),
                           Memory(device, std::size_t{3} * pass.height * pass.width)});
    }
}

DevicePicture DeviceStretch::queue(KernelQueue& frames, DevicePicture picture) const {
    for (const auto& [pass, first, weights, out] : passes_) {
        const int taps = pass.resampling.taps;
        if (pass.is_down) {
            frames.each("frame_resize_columns", std::int64_t{pass.height} * picture.row_bytes, picture.pixels, 1,
                        picture.size.height, picture.row_bytes, first.region(), weights.region(), taps, pass.height,
                        out.region());
        } else {
            frames.each("frame_resize_rows", std::int64_t{pass.height} * pass.width, picture.pixels, pass.height,
                        picture.row_bytes, first.region(), weights.region(), taps, pass.width, out.region());
        }
        picture = {out.region(), {pass.height, pass.width}, 3 * pass.width};
    }
    return picture;
}

Memory upload_constants(const std::shared_ptr<const Device>& device, const Stream& stream, const InputSpec& inputs) {
    std::array<float, 9> constants{};
    for (int c = 0; c < 3; ++c) {
        constants[c] = static_cast<float>(inputs.mean[c]) / static_cast<float>(inputs.scale);
        constants[3 + c] = static_cast<float>(inputs.std[c]) / static_cast<float>(inputs.scale);
        const auto padding = static_cast<float>(inputs.pad[inputs.is_bgr ? 2 - c : c]);
        constants[6 + c] = (padding - constants[c]) / constants[3 + c];
    }
    return upload_values(device, stream, constants);
}

void queue_normalize(KernelQueue& frames, const DevicePicture& picture, const Memory& constants,
                     const InputSpec& inputs, const Size& size, bool to_half, const Region& target) {
    frames.each(to_half ? "frame_normalize_f16" : "frame_normalize_f32",
                std::int64_t{size.height} * ceil_div(size.width, kRun), picture.pixels, 1, picture.size.height,
                picture.size.width, picture.row_bytes, constants.region(), inputs.is_bgr ? 1 : 0, size.height,
                size.width, target);
}

void queue_find_not_finite(KernelQueue& frames, const DeviceLogits& logits, const Region& first_bad) {
    frames.stream().fill(first_bad, kNone);
    const auto count =
        static_cast<std::int32_t>(std::int64_t{logits.channels} * logits.size.height * logits.size.width);
    frames.each(logits.is_half ? "frame_find_not_finite_f16" : "frame_find_not_finite_f32", count, logits.values, count,
                first_bad);
}

void queue_labels(KernelQueue& frames, const DeviceLogits& logits, const Geometry& geometry, bool align_corners,
                  const Region& target) {
    queue_resample(frames, logits.is_half ? "frame_labels_f16" : "frame_labels_f32", logits, geometry, align_corners,
                   target);
}

void queue_probabilities(KernelQueue& frames, const DeviceLogits& logits, const Geometry& geometry, bool align_corners,
                         const Region& target) {
    queue_resample(frames, logits.is_half ? "frame_probabilities_f16" : "frame_probabilities_f32", logits, geometry,
                   align_corners, target);
}

}  // namespace atrous::core::cuda
