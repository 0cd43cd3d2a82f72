#include "lattice.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "lattice_builder.hpp"
#include "native/error.hpp"
#include "native/parallel.hpp"

namespace atrous {
namespace {

/// Vertices of a scheduled piece of the blur.
constexpr std::int64_t kBlurRange = 4096;

/// Entries of pixels in a scheduled piece of work on weights.
constexpr std::int64_t kWeightRange = 65536;

/// Less than this is what rounding leaves where barycentric weights are 0.
constexpr float kMinMass = 1e-30f;

/// Divides the weights of one vertex by their sum, which is its mass.
float take_mass(SplatEntry* begin, SplatEntry* end) {
    float mass = 0.0f;
    for (SplatEntry* entry = begin; entry < end; ++entry) {
        entry->weight = std::max(entry->weight, 0.0f);  // rounding may have left it below
        mass += entry->weight;
    }
    float scale = mass > kMinMass ? 1.0f / mass : 0.0f;
    // Rounding must not lift a mean of ones above 1, for which there is no fraction. Sums of smaller values, added in
    // the same order, are never rounded to more than this one.
    while (true) {
        float most = 0.0f;
        for (SplatEntry* entry = begin; entry < end; ++entry) {
            entry->weight *= scale;
            most += entry->weight * kWhole;
        }
        if (most < kWhole + 0.25f) return mass;
        scale = kWhole / most;
    }
}

/// With the fewest machine words a key that hold 16 bits of each coordinate. False when coordinates need more bits.
template <int words, int... more>
bool build_with_smallest_key(Lattice& lattice, const FeatureSource& source, int threads) {
    constexpr int bits = 16;
    if (source.features() <= KeyLayout<words>::max_features(bits)) {
        return LatticeBuilder<words>().build(lattice, source, bits, threads);
    }
    if constexpr (sizeof...(more) > 0) return build_with_smallest_key<more...>(lattice, source, threads);
    return false;
}

}  // namespace

void Lattice::build(const FeatureSource& source, int threads) {
    const int features = source.features();
    constexpr int max_features = KeyLayout<512>::max_features(16);
    if (features < 1 || features > max_features) {
        throw CrfError("a lattice takes 1 to " + std::to_string(max_features) + " features per pixel, got " +
                       std::to_string(features));
    }
    if (source.pixels() < 1) throw CrfError("a lattice needs at least one pixel");
    if (source.pixels() > INT32_MAX / (features + 1)) {
        throw CrfError(std::to_string(source.pixels()) + " pixels of " + std::to_string(features) +
                       " features exceed the 2^31 lattice entries that 32-bit indices address; split the image");
    }
    // The builder's memory, as much as the lattice's own, is free again before inference takes its buffers.
    // Twelve bits a coordinate are enough for most photos and keep the table small; the wide layout is for the rest.
    if (features == 5 && LatticeBuilder<1>().build(*this, source, 12, threads)) return;
    if (build_with_smallest_key<1, 2, 8, 16, 64, 512>(*this, source, threads)) return;
    pixels_ = 0;  // so that a filter built half cannot be used by mistake
    throw CrfError(
        "lattice coordinates are not finite or exceed 16 bits: a standard deviation is too small for the range of its "
        "feature; use a larger sigma");
}

std::size_t Lattice::bytes() const {
    std::size_t total = pixel_vertices_.capacity_bytes() + pixel_weights_.capacity_bytes() + entries_.capacity_bytes();
    for (const Buffer<Neighbours>& axis : neighbours_) total += axis.capacity_bytes();
    for (const Buffer<Shares>& axis : shares_) total += axis.capacity_bytes();
    return total;
}

void Lattice::scale_weights(const float* before, const float* after, int threads) {
    parallel_ranges(pixels_, 16384, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
            for (int j = 0; j < corners_; ++j) pixel_weights_[pixel * corners_ + j] *= after[pixel];
        }
    });
    parallel_ranges(entries_.size(), kWeightRange, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int32_t coded = entries_[i].pixel;
            entries_[i].weight *= before[coded < 0 ? ~coded : coded];
        }
    });
}

/// The mass of each vertex after the splat, whose weights are divided by it.
void Lattice::take_masses(float* masses, int threads) {
    parallel_pieces(static_cast<std::int64_t>(splat_pieces_.size()), threads, [&](std::int64_t index) {
        const SplatPiece& piece = splat_pieces_[index];
        float* mass = masses + piece.vertex;
        SplatEntry* const last = entries_.data() + piece.end;
        for (SplatEntry *begin = entries_.data() + piece.begin, *end = begin; begin < last; begin = end) {
            do ++end;
            while (end < last && end->pixel >= 0);
            *mass++ = take_mass(begin, end);
        }
    });
}

void Lattice::share_masses(int threads) {
    shares_.resize(neighbours_.size());
    Buffer<float> from(vertices_ + 1);  // as rows, the last is of zeros
    Buffer<float> to(vertices_ + 1);
    from[vertices_] = to[vertices_] = 0.0f;
    take_masses(from.data(), threads);
    for (std::size_t axis = 0; axis < shares_.size(); ++axis) {
        shares_[axis].resize(vertices_);
        parallel_ranges(vertices_, kBlurRange, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t vertex = begin; vertex < end; ++vertex) {
                const Neighbours& link = neighbours_[axis][vertex];
                const float previous = 0.5f * from[link.previous];
                const float next = 0.5f * from[link.next];
                const float mass = from[vertex] + (previous + next);
                // Rounded down, so that both are at most 1 together.
                const float scale = mass > kMinMass ? kWhole / mass : 0.0f;
                shares_[axis][vertex] = {static_cast<Fraction>(previous * scale), static_cast<Fraction>(next * scale)};
                to[vertex] = mass;
            }
        });
        std::swap(from, to);
    }
    parallel_ranges(pixels_ * corners_, kWeightRange, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) pixel_weights_[i] *= from[pixel_vertices_[i]] * (1.0f / kWhole);
    });
}

template <typename T>
void Lattice::splat_and_blur(const T* rows, const ChannelLayout& layout, T* values, T* scratch, int threads,
                             AxisOrder order) const {
    const RowKernels<T>& kernels = filter_kernels().rows<T>();
    const std::int64_t zero_row = vertices_ * layout.padded();
    std::fill(values + zero_row, values + zero_row + layout.padded(), T{0});
    std::fill(scratch + zero_row, scratch + zero_row + layout.padded(), T{0});
    // Each axis reads one array and writes the other; the last one writes `values`.
    T* from = corners_ % 2 == 0 ? values : scratch;
    T* to = corners_ % 2 == 0 ? scratch : values;
    parallel_pieces(static_cast<std::int64_t>(splat_pieces_.size()), threads, [&](std::int64_t index) {
        const SplatPiece& piece = splat_pieces_[index];
        kernels.splat(entries_.data(), piece.begin, piece.end, piece.vertex, layout, rows, from);
    });
    for (int pass = 0; pass < corners_; ++pass) {
        const int axis = order == AxisOrder::forward ? pass : corners_ - 1 - pass;
        const Neighbours* const neighbours = neighbours_[axis].data();
        const Shares* const shares = has_shares() ? shares_[axis].data() : nullptr;
        parallel_ranges(vertices_, kBlurRange, threads, [&](std::int64_t begin, std::int64_t end) {
            kernels.blur(neighbours, shares, begin, end, layout, from, to);
        });
        std::swap(from, to);
    }
}

template void Lattice::splat_and_blur(const float*, const ChannelLayout&, float*, float*, int, AxisOrder) const;
template void Lattice::splat_and_blur(const Fraction*, const ChannelLayout&, Fraction*, Fraction*, int,
                                      AxisOrder) const;

}  // namespace atrous
