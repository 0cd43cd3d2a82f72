// The kernels around the network, queued as runtime/frame.py queues them, for one picture.
#pragma once

#include <vector>

#include "cuda/device_engine.hpp"
#include "cuda/kernel_queue.hpp"
#include "runtime/csrc/resampling.hpp"

namespace atrous::core::cuda {

/// A picture, or a tile of one, in GPU memory.
struct DevicePicture {
    Region pixels;  ///< from its first pixel on
    Size size;
    int row_bytes;
};

/// Logits in GPU memory and where they lie on the picture.
struct DeviceLogits {
    Region values;
    int channels;
    Size size;
    bool is_half;
};

/// What `stretch` needs on the GPU.
class DeviceStretch {
  public:
    DeviceStretch(const std::shared_ptr<const Device>& device, const Stream& stream, const Size& from, const Size& to);
    /// The picture at the other size.
    DevicePicture queue(KernelQueue& frames, DevicePicture picture) const;

  private:
    struct Pass {
        ResizePass plan;
        Memory first, weights, out;
    };
    std::vector<Pass> passes_;
};

/// Mean, standard deviation and normalised padding by output channel, as the kernel wants them.
Memory upload_constants(const std::shared_ptr<const Device>& device, const Stream& stream, const InputSpec& inputs);

/// Picture → network input [3, size.height, size.width], padded right and below.
void queue_normalize(KernelQueue& frames, const DevicePicture& picture, const Memory& constants,
                     const InputSpec& inputs, const Size& size, bool to_half, const Region& target);

/// The index of the first logit that is NaN or infinite, or 2³² − 1, into one word.
void queue_find_not_finite(KernelQueue& frames, const DeviceLogits& logits, const Region& first_bad);

/// Labels [image.height, image.width].
void queue_labels(KernelQueue& frames, const DeviceLogits& logits, const Geometry& geometry, bool align_corners,
                  const Region& target);
/// Probabilities [channels, image.height, image.width].
void queue_probabilities(KernelQueue& frames, const DeviceLogits& logits, const Geometry& geometry, bool align_corners,
                         const Region& target);

}  // namespace atrous::core::cuda
