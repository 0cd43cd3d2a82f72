#include "resize.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "native/parallel.hpp"
#include "resampling.hpp"

namespace atrous {
namespace {

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

/// How weighted sums of samples are kept and rounded: of bytes as Pillow does, of 16 bits likewise in twice the width,
/// of floats in their order in single precision. Twins: runtime/kernels/bands.cuh.
template <typename T>
struct Sums;

template <>
struct Sums<std::uint8_t> {
    using Sum = std::int32_t;
    static constexpr Sum kStart = kHalf;
    static Sum product(std::uint8_t sample, std::int32_t weight) { return sample * weight; }
    static std::uint8_t rounded(Sum sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }
};

template <>
struct Sums<std::uint16_t> {
    using Sum = std::int64_t;
    static constexpr Sum kStart = kHalf;
    static Sum product(std::uint16_t sample, std::int32_t weight) { return Sum{sample} * weight; }
    static std::uint16_t rounded(Sum sum) {
        return static_cast<std::uint16_t>(std::clamp<Sum>(sum >> kWeightBits, 0, 65535));
    }
};

template <>
struct Sums<float> {
    using Sum = float;
    static constexpr Sum kStart = 0.0f;
    static Sum product(float sample, std::int32_t weight) {
        return sample * (static_cast<float>(weight) * (1.0f / (1 << kWeightBits)));
    }
    static float rounded(Sum sum) { return sum; }
};

/// An image, or what one pass made of it.
template <typename T>
struct Source {
    const T* pixels;
    Size size;
    std::int64_t row_bytes;
    int channels;

    const T* row(std::int64_t y) const {
        return reinterpret_cast<const T*>(reinterpret_cast<const std::uint8_t*>(pixels) + y * row_bytes);
    }
};

/// `kChannels` channels, or the source's where that is 0.
template <typename T, int kChannels>
void resize_rows(const Source<T>& source, const Resampling& axis, int threads, T* out) {
    const auto width = static_cast<int>(axis.first.size());
    const int channels = kChannels != 0 ? kChannels : source.channels;
    parallel_ranges(source.size.height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
            for (int x = 0; x < width; ++x) {
                const T* sample = source.row(y) + std::int64_t{channels} * axis.first[x];
                const std::int32_t* weight = axis.weights.data() + static_cast<std::size_t>(x) * axis.taps;
                typename Sums<T>::Sum sum[kChannels != 0 ? kChannels : kMaxBands];
                std::fill_n(sum, channels, Sums<T>::kStart);
                for (int k = 0; k < axis.taps; ++k) {
                    for (int c = 0; c < channels; ++c) sum[c] += Sums<T>::product(sample[channels * k + c], weight[k]);
                }
                for (int c = 0; c < channels; ++c) out[(y * width + x) * channels + c] = Sums<T>::rounded(sum[c]);
            }
        }
    });
}

template <typename T>
void resize_columns(const Source<T>& source, const Resampling& axis, int threads, T* out) {
    const auto height = static_cast<std::int64_t>(axis.first.size());
    const std::int64_t samples = std::int64_t{source.channels} * source.size.width;
    parallel_ranges(height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<typename Sums<T>::Sum> sums(samples);
        for (std::int64_t y = begin; y < end; ++y) {
            std::fill(sums.begin(), sums.end(), Sums<T>::kStart);
            for (int k = 0; k < axis.taps; ++k) {
                const T* row = source.row(axis.first[y] + k);
                const std::int32_t weight = axis.weights[static_cast<std::size_t>(y) * axis.taps + k];
                for (std::int64_t i = 0; i < samples; ++i) sums[i] += Sums<T>::product(row[i], weight);
            }
            for (std::int64_t i = 0; i < samples; ++i) out[y * samples + i] = Sums<T>::rounded(sums[i]);
        }
    });
}

template <typename T>
void resize(const Source<T>& source, const ResizePass& pass, int threads, T* out) {
    if (pass.is_down) return resize_columns(source, pass.resampling, threads, out);
    (source.channels == 3 ? resize_rows<T, 3> : resize_rows<T, 0>)(source, pass.resampling, threads, out);
}

}  // namespace

void resize_pixels(const void* pixels, const PixelFormat& format, const Size& from, std::int64_t row_bytes,
                   const Size& to, int threads, void* out) {
    const std::vector<ResizePass> passes = plan_resize(from.height, from.width, to.height, to.width);
    with_sample_type(format.sample, [&](auto type) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
        const Source<T> source{static_cast<const T*>(pixels), from, row_bytes, format.channels};
        if (passes.size() == 1) return resize(source, passes[0], threads, static_cast<T*>(out));
        const Size half_way{passes[0].height, passes[0].width};
        std::vector<T> between(static_cast<std::size_t>(format.channels * half_way.area()));
        resize(source, passes[0], threads, between.data());
        const Source<T> resized{between.data(), half_way, std::int64_t{format.bytes()} * half_way.width,
                                format.channels};
        resize(resized, passes[1], threads, static_cast<T*>(out));
    });
}

}  // namespace atrous
