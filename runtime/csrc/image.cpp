#include "image.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "native/parallel.hpp"

namespace atrous {

namespace {

/// Rows of the output, of which the window is filled and the rest padding.
struct Rows {
    const Window& window;
    const PixelScaling& scaling;
    const Size& out_size;

    /// Calls `fill(channel, row, target)` for each row of the window: `row` of the image, and where it goes.
    template <typename Fill>
    void write(std::int64_t begin, std::int64_t end, float* out, const Fill& fill) const {
        const int channels = scaling.format().channels;
        for (std::int64_t y = begin; y < end; ++y) {
            const std::int64_t row = y - window.top;
            const bool is_covered = row >= 0 && row < window.size.height;
            for (int c = 0; c < channels; ++c) {
                float* target = out + c * out_size.area() + y * out_size.width;
                float* const end_of_row = target + out_size.width;
                const float padding = scaling.padding(c);
                if (is_covered) {
                    std::fill(target, target + window.left, padding);
                    target += window.left;
                    fill(c, row, target);
                    target += window.size.width;
                }
                std::fill(target, end_of_row, padding);
            }
        }
    }
};

/// Every value that a byte of each channel can take.
std::vector<std::array<float, 256>> tables_of(const PixelScaling& scaling) {
    std::vector<std::array<float, 256>> tables(scaling.mean.size());
    for (std::size_t c = 0; c < tables.size(); ++c) {
        for (int v = 0; v < 256; ++v) tables[c][v] = (static_cast<float>(v) - scaling.mean[c]) / scaling.std[c];
    }
    return tables;
}

/// `kStep` samples from one pixel to the next, or `step` where that is 0.
template <int kStep>
void look_up(const std::uint8_t* source, int step, const std::array<float, 256>& table, int count, float* target) {
    const int apart = kStep != 0 ? kStep : step;
    for (int x = 0; x < count; ++x) target[x] = table[source[apart * x]];
}

}  // namespace

void normalize_image(const void* pixels, const Window& window, std::int64_t row_bytes, const PixelScaling& scaling,
                     const Size& out_size, int threads, float* out) {
    const Rows rows{window, scaling, out_size};
    const int step = scaling.format().channels;
    const int width = window.size.width;
    const auto* const bytes = static_cast<const std::uint8_t*>(pixels);
    if (scaling.sample == Sample::uint8) {
        const auto tables = tables_of(scaling);
        parallel_ranges(out_size.height, 16, threads, [&](std::int64_t begin, std::int64_t end) {
            rows.write(begin, end, out, [&](int c, std::int64_t row, float* target) {
                const std::uint8_t* source = bytes + row * row_bytes + scaling.source(c);
                (step == 3 ? look_up<3> : look_up<0>)(source, step, tables[c], width, target);
            });
        });
        return;
    }
    with_sample_type(scaling.sample, [&](auto type) {
        parallel_ranges(out_size.height, 16, threads, [&](std::int64_t begin, std::int64_t end) {
            rows.write(begin, end, out, [&](int c, std::int64_t row, float* target) {
                const auto source = reinterpret_cast<decltype(type)>(bytes + row * row_bytes) + scaling.source(c);
                const float mean = scaling.mean[c];
                const float std = scaling.std[c];
                for (int x = 0; x < width; ++x) {
                    target[x] = (static_cast<float>(source[std::int64_t{step} * x]) - mean) / std;
                }
            });
        });
    });
}

void color_bands(const void* pixels, const Size& size, std::int64_t row_bytes, const BandColors& colors, int threads,
                 std::uint8_t* rgb) {
    const auto* const bytes = static_cast<const std::uint8_t*>(pixels);
    with_sample_type(colors.format.sample, [&](auto type) {
        parallel_ranges(size.height, 16, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t y = begin; y < end; ++y) {
                const auto row = reinterpret_cast<decltype(type)>(bytes + y * row_bytes);
                std::uint8_t* const target = rgb + 3 * y * size.width;
                for (int c = 0; c < 3; ++c) {
                    const float low = colors.low[c];
                    const float factor = colors.factor[c];
                    for (std::int64_t x = 0; x < size.width; ++x) {
                        const float sample = colors.band[c] < 0
                                                 ? low
                                                 : static_cast<float>(row[x * colors.format.channels + colors.band[c]]);
                        const float color = std::min(std::max((sample - low) * factor, 0.0f), 255.0f);
                        target[3 * x + c] = static_cast<std::uint8_t>(color + 0.5f);
                    }
                }
            }
        });
    });
}

template <typename Label>
void overlay(const std::uint8_t* rgb, const Drawing<Label>& drawing, std::int64_t pixels, int threads,
             std::uint8_t* out) {
    float from_image[256];
    std::vector<float> from_palette(static_cast<std::size_t>(3) *
                                    drawing.colors);  // with the half that rounds to nearest
    for (int v = 0; v < 256; ++v) from_image[v] = (1.0f - drawing.alpha) * static_cast<float>(v);
    for (std::size_t i = 0; i < from_palette.size(); ++i) {
        from_palette[i] = drawing.alpha * static_cast<float>(drawing.palette[i]) + 0.5f;
    }
    parallel_ranges(pixels, 16384, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* colour = from_palette.data() + 3 * drawing.labels[p];
            for (int c = 0; c < 3; ++c) {
                out[3 * p + c] = static_cast<std::uint8_t>(from_image[rgb[3 * p + c]] + colour[c]);
            }
        }
    });
}

template void overlay(const std::uint8_t*, const Drawing<std::uint8_t>&, std::int64_t, int, std::uint8_t*);
template void overlay(const std::uint8_t*, const Drawing<std::uint16_t>&, std::int64_t, int, std::uint8_t*);

}  // namespace atrous
