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

/// How an image is fitted to the network's input: the manifest's `input.resize`.
enum class Resize {
    none,       ///< padded below and on the right, and tiled where larger than the maximum
    stretch,    ///< resized to the best size
    letterbox,  ///< resized to the largest size of its aspect ratio within the best size, centred in it and padded
};

/// Throws std::invalid_argument for another name than those in the manifest's schema.
Resize parse_resize(const std::string& name);
std::string to_text(Resize resize);

/// Part of a network's input, in pixels of it.
struct Window {
    int top, left;
    Size size;
};

/// Where the image, resized if need be, lies in an input of that size; around it is padding. This is the one place that
/// rounds: the side that a letterbox leaves free is rounded to nearest, halves up, and is at least 1; of an odd rest
/// the larger half is below or on the right. Throws ShapeError where the image is larger and is not to be resized.
Window place_image(const Size& image, const Size& input, Resize resize);

/// Which sizes one image goes through.
struct Geometry {
    Size image;  ///< of the image, and of the labels
    Size input;  ///< of the network's input; may exceed the maximum, and is tiled then
    Resize resize;

    Window content() const { return place_image(image, input, resize); }
};

Geometry plan_geometry(const Size& image, const SizePolicy& policy, Resize resize);

/// Along one axis, the cells of a coarse map that count, and where the image's pixels lie among them: pixel i at
/// scale · (i + ½) + shift cells after the first, or at scale · i + shift where corners are aligned. Beyond the cells
/// that count, the outermost ones go on.
struct AxisSampling {
    int first, cells;
    float scale, shift;
};

struct Sampling {
    AxisSampling rows, columns;
    bool align_corners;
};

/// From the logits [·, coarse] of a whole input to the image. Of a letterbox, cells that no pixel of the image is
/// nearest to are left out, so that labels do not depend on what the network makes of padding alone.
Sampling plan_sampling(const Geometry& geometry, const Size& coarse, bool align_corners);

bool needs_tiles(const Geometry& geometry, const SizePolicy& policy);

/// The smallest k · multiple + offset that is at least `length`.
std::int64_t fit_length(std::int64_t length, std::int64_t multiple, std::int64_t offset);

/// Both sides fitted. Throws ShapeError: a manifest may ask for multiples that lead beyond all images.
Size fit_size(const Size& size, std::int64_t multiple, std::int64_t offset);

}  // namespace atrous
