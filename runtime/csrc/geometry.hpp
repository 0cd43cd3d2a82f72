// Which sizes an image goes through on its way to labels.
#pragma once

#include <cstdint>
#include <string>

namespace atrous {

/// Pixels, or cells of a coarse map.
struct Size {
    int height = 0, width = 0;

    std::int64_t area() const { return std::int64_t{height} * width; }
    friend bool operator==(const Size& a, const Size& b) { return a.height == b.height && a.width == b.width; }
    friend bool operator!=(const Size& a, const Size& b) { return !(a == b); }
};

/// "513x513"
std::string to_text(const Size& size);

/// Sizes that the network takes: from min to max, k · multiple + offset.
struct SizePolicy {
    Size min, opt, max;
    int multiple, offset;
};

/// Where the logits of one image lie.
struct Geometry {
    Size image;  ///< of the image, and of the labels
    Size input;  ///< of the network's input; may exceed the maximum, and is tiled then
    Size full;   ///< what the logits cover, in pixels; larger than `image` where the input was padded
};

/// `stretches`: the image is resized to the best size; otherwise it is padded.
Geometry plan_geometry(const Size& image, const SizePolicy& policy, bool stretches);

bool needs_tiles(const Geometry& geometry, const SizePolicy& policy);

/// The smallest k · multiple + offset that is at least `length`.
std::int64_t fit_length(std::int64_t length, std::int64_t multiple, std::int64_t offset);

/// Both sides fitted. Throws ShapeError: a manifest may ask for multiples that lead beyond all images.
Size fit_size(const Size& size, std::int64_t multiple, std::int64_t offset);

}  // namespace atrous
