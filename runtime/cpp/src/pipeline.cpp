#include "pipeline.hpp"

#include "failure.hpp"
#include "native/finite.hpp"

namespace atrous::core {
namespace {

std::string described(const PixelFormat& format) {
    return std::to_string(format.channels) + (format.channels == 1 ? " channel of " : " channels of ") +
           to_text(format.sample);
}

/// Of memory of the host; what lies on a GPU is not read here.
void check_numbers(const Frame& frame, const Bands& bands) {
    const std::int64_t samples = std::int64_t{frame.format.channels} * frame.size.width;
    for (int y = 0; y < frame.size.height; ++y) {
        const auto* const row = reinterpret_cast<const float*>(frame.pixels + y * frame.row_bytes);
        if (all_finite(row, samples)) continue;
        for (std::int64_t i = 0; i < samples; ++i) {
            if (all_finite(row + i, 1)) continue;
            fail(ATROUS_ERROR_SHAPE, "the picture has ", row[i], " at row ", y, ", column ", i / frame.format.channels,
                 " of '", bands.names[static_cast<std::size_t>(i % frame.format.channels)],
                 "'; expected numbers. Where there is no data, put a value that the network was trained on");
        }
    }
}

}  // namespace

void check_frame(const Frame& frame, const Manifest& manifest) {
    const PixelFormat wanted = manifest.input.format();
    if (frame.format != wanted) {
        fail(ATROUS_ERROR_SHAPE, "the picture has ", described(frame.format), "; the network of '", manifest.name,
             "' takes ", described(wanted), manifest.input.bands ? ": ATROUS_BANDS" : ": ATROUS_RGB8 or ATROUS_BGR8");
    }
    if (frame.label_bytes != manifest.label_bytes()) {
        fail(ATROUS_ERROR_SHAPE, "labels of ", manifest.classes.size(), " classes are ",
             manifest.label_bytes() == 2 ? "ATROUS_UINT16" : "ATROUS_UINT8", "; got memory for ", 8 * frame.label_bytes,
             " bits each");
    }
    if (wanted.sample == Sample::float32 && !frame.on_device) check_numbers(frame, *manifest.input.bands);
}

}  // namespace atrous::core
