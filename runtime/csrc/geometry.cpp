#include "geometry.hpp"

#include <algorithm>
#include <stdexcept>

#include "native/error.hpp"

namespace atrous {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 24;

int checked_length(std::int64_t length) {
    if (length <= kMaxLength) return static_cast<int>(length);
    throw ShapeError("the manifest's size policy asks for an input of " + std::to_string(length) + " pixels",
                     "at most " + std::to_string(kMaxLength), std::to_string(length));
}

/// `length` · to / from, rounded to nearest, halves up.
int scaled_length(std::int64_t length, std::int64_t to, std::int64_t from) {
    return static_cast<int>(std::max<std::int64_t>(1, (2 * length * to + from) / (2 * from)));
}

/// The largest size of the image's aspect ratio within `bounds`.
Size fit_within(const Size& image, const Size& bounds) {
    if (image.area() == 0) throw ShapeError("an empty image cannot be resized", "at least 1x1", to_text(image));
    const bool is_wide = std::int64_t{bounds.width} * image.height <= std::int64_t{bounds.height} * image.width;
    if (is_wide) return {scaled_length(image.height, bounds.width, image.width), bounds.width};
    return {bounds.height, scaled_length(image.width, bounds.height, image.height)};
}

/// One side of an image, of the input, and what of the input it covers.
struct Side {
    int image, input, begin, covered;
};

/// In double precision, in which the products are exact; what is rounded to single precision once is, where nothing is
/// padded and where padding is not left out, the scale of torch.nn.functional.interpolate to the bit.
AxisSampling sample_axis(const Side& side, int coarse, bool leaves_padding_out, bool align_corners) {
    const int ends = align_corners ? 1 : 0;  // corners are samples, so there is one step less
    const std::int64_t cells = coarse - ends;
    const std::int64_t input = std::max(side.input - ends, 1);
    const std::int64_t image = std::max(side.image - ends, 1);
    const auto nearest = [&](std::int64_t pixel) {
        const std::int64_t doubled = align_corners ? 2 * pixel * cells + input : (2 * pixel + 1) * cells;
        return std::min(static_cast<int>(doubled / (2 * input)), coarse - 1);
    };
    const int first = leaves_padding_out ? nearest(side.begin) : 0;
    const int last = leaves_padding_out ? nearest(side.begin + side.covered - 1) : coarse - 1;
    const double scale = static_cast<double>(cells * (side.covered - ends)) / static_cast<double>(image * input);
    const double begin = static_cast<double>(side.begin * cells) / static_cast<double>(input);
    return {first, last - first + 1, static_cast<float>(scale),
            static_cast<float>(begin - (align_corners ? 0.0 : 0.5) - first)};
}

}  // namespace

std::string to_text(const Size& size) {
    return std::to_string(size.height) + "x" + std::to_string(size.width);
}

std::int64_t fit_length(std::int64_t length, std::int64_t multiple, std::int64_t offset) {
    return (length - offset + multiple - 1) / multiple * multiple + offset;
}

Size fit_size(const Size& size, std::int64_t multiple, std::int64_t offset) {
    return {checked_length(fit_length(size.height, multiple, offset)),
            checked_length(fit_length(size.width, multiple, offset))};
}

Resize parse_resize(const std::string& name) {
    if (name == "none") return Resize::none;
    if (name == "stretch") return Resize::stretch;
    if (name == "letterbox") return Resize::letterbox;
    throw std::invalid_argument("unknown way to fit an image to the input: " + name);
}

std::string to_text(Resize resize) {
    switch (resize) {
        case Resize::stretch:
            return "stretch";
        case Resize::letterbox:
            return "letterbox";
        default:
            return "none";
    }
}

Window place_image(const Size& image, const Size& input, Resize resize) {
    if (resize == Resize::stretch) return {0, 0, input};
    if (resize == Resize::letterbox) {
        const Size fitted = fit_within(image, input);
        return {(input.height - fitted.height) / 2, (input.width - fitted.width) / 2, fitted};
    }
    if (image.height <= input.height && image.width <= input.width) return {0, 0, image};
    throw ShapeError("an image of " + to_text(image) + " does not fit into an input of " + to_text(input),
                     "at most " + to_text(input), to_text(image));
}

Geometry plan_geometry(const Size& image, const SizePolicy& policy, Resize resize) {
    if (resize != Resize::none) return {image, policy.opt, resize};
    const Size least{std::max(image.height, policy.min.height), std::max(image.width, policy.min.width)};
    return {image, fit_size(least, policy.multiple, policy.offset), resize};
}

Sampling plan_sampling(const Geometry& geometry, const Size& coarse, bool align_corners) {
    const Window content = geometry.content();
    const bool leaves_padding_out = geometry.resize == Resize::letterbox;
    const Side rows{geometry.image.height, geometry.input.height, content.top, content.size.height};
    const Side columns{geometry.image.width, geometry.input.width, content.left, content.size.width};
    return {sample_axis(rows, coarse.height, leaves_padding_out, align_corners),
            sample_axis(columns, coarse.width, leaves_padding_out, align_corners), align_corners};
}

bool needs_tiles(const Geometry& geometry, const SizePolicy& policy) {
    return geometry.input.height > policy.max.height || geometry.input.width > policy.max.width;
}

}  // namespace atrous
