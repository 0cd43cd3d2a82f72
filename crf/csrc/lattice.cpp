#include "lattice.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "error.hpp"
#include "lattice_builder.hpp"
#include "parallel.hpp"

namespace atrous {
namespace {

/// Vertices of a scheduled piece of the blur.
constexpr std::int64_t kBlurRange = 4096;

}  // namespace

void Lattice::build(const FeatureSource& source, int threads) {
    const int features = source.features();
    if (features < 1 || features > kMaxFeatures) {
        throw CrfError("a lattice takes 1 to " + std::to_string(kMaxFeatures) + " features a pixel, got " +
                       std::to_string(features));
    }
    if (source.pixels() < 1) throw CrfError("a lattice needs at least one pixel");
    if (source.pixels() > INT32_MAX / (features + 1)) {
        throw CrfError(std::to_string(source.pixels()) + " pixels of " + std::to_string(features) +
                       " features exceed the 2^31 lattice entries that 32-bit indices address; split the image");
    }
    // The builder's memory, as much as the lattice's own, is free again before inference takes its buffers.
    // Twelve bits a coordinate are enough for most photos and keep the table small; the wide layout is for the rest.
    if (features <= 4 && LatticeBuilder<1>().build(*this, source, 16, threads)) return;
    if (features == 5 && LatticeBuilder<1>().build(*this, source, 12, threads)) return;
    if (features > 4 && features <= 8 && LatticeBuilder<2>().build(*this, source, 16, threads)) return;
    if (features > 8 && LatticeBuilder<8>().build(*this, source, 16, threads)) return;
    pixels_ = 0;  // so that a filter built half cannot be used by mistake
    throw CrfError(
        "lattice coordinates are not finite or exceed 16 bits: a standard deviation is too small for the range of its "
        "feature; use a larger sigma");
}

std::size_t Lattice::bytes() const {
    std::size_t total = pixel_vertices_.capacity_bytes() + pixel_weights_.capacity_bytes() + entries_.capacity_bytes();
    for (const Buffer<Neighbours>& axis : neighbours_) total += axis.capacity_bytes();
    return total;
}

void Lattice::scale_weights(const float* before, const float* after, int threads) {
    parallel_ranges(pixels_, 16384, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
            for (int j = 0; j < corners_; ++j) pixel_weights_[pixel * corners_ + j] *= after[pixel];
        }
    });
    parallel_ranges(entries_.size(), 65536, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int32_t coded = entries_[i].pixel;
            entries_[i].weight *= before[coded < 0 ? ~coded : coded];
        }
    });
}

void Lattice::splat_and_blur(const float* rows, const ChannelLayout& layout, float* values, float* scratch,
                             int threads) const {
    const FilterKernels& kernels = filter_kernels();
    const std::int64_t zero_row = vertices_ * layout.padded();
    std::fill(values + zero_row, values + zero_row + layout.padded(), 0.0f);
    std::fill(scratch + zero_row, scratch + zero_row + layout.padded(), 0.0f);
    // Each axis reads one array and writes the other; the last one writes `values`.
    float* from = corners_ % 2 == 0 ? values : scratch;
    float* to = corners_ % 2 == 0 ? scratch : values;
    parallel_pieces(static_cast<std::int64_t>(splat_pieces_.size()), threads, [&](std::int64_t index) {
        const SplatPiece& piece = splat_pieces_[index];
        kernels.splat(entries_.data(), piece.begin, piece.end, piece.vertex, layout, rows, from);
    });
    for (const Buffer<Neighbours>& axis : neighbours_) {
        parallel_ranges(vertices_, kBlurRange, threads, [&](std::int64_t begin, std::int64_t end) {
            kernels.blur(axis.data(), begin, end, layout, from, to);
        });
        std::swap(from, to);
    }
}

}  // namespace atrous
