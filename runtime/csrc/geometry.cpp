#include "geometry.hpp"

#include <algorithm>

#include "native/error.hpp"

namespace atrous {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 24;

int checked_length(std::int64_t length) {
    if (length <= kMaxLength) return static_cast<int>(length);
    throw ShapeError("the manifest's size policy asks for an input of " + std::to_string(length) + " pixels",
                     "at most " + std::to_string(kMaxLength), std::to_string(length));
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

Geometry plan_geometry(const Size& image, const SizePolicy& policy, bool stretches) {
    if (stretches) return {image, policy.opt, image};
    const Size least{std::max(image.height, policy.min.height), std::max(image.width, policy.min.width)};
    const Size fitted = fit_size(least, policy.multiple, policy.offset);
    return {image, fitted, fitted};
}

bool needs_tiles(const Geometry& geometry, const SizePolicy& policy) {
    return geometry.input.height > policy.max.height || geometry.input.width > policy.max.width;
}

}  // namespace atrous
