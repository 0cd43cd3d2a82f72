#include "cuda/crf_lattice.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace atrous::core::cuda {
namespace {

constexpr int kSlice = 32;  ///< splat entries that one group of threads sums up; kSlice in the kernels
constexpr int kScanTile = 2048;
constexpr int kSortTile = 4096;
constexpr int kDigitBits = 8;
constexpr std::uint32_t kOne = 0x3F800000;
constexpr std::uint32_t kOnes = 0xFFFFFFFF;  ///< −1 as an integer, and what an empty slot of the table holds

constexpr Storage kScalar{"f1", 1, 1};

int bit_length(std::int64_t value) {
    int bits = 0;
    for (; value > 0; value >>= 1) ++bits;
    return bits;
}

std::int32_t to_i32(std::int64_t value) {
    return static_cast<std::int32_t>(value);  // the field has checked that all indices fit
}

std::int64_t count_words(std::int64_t entries) {
    return ceil_div(entries, kSortTile) << kDigitBits;
}

std::int64_t tile_words(std::int64_t entries) {
    return ceil_div(std::max(entries, count_words(entries)), kScanTile);
}

/// Exclusive prefix sums of 32-bit counts in place; `total` becomes their sum.
void queue_scan(KernelQueue& queue, const Region& values, std::int64_t count, const Region& tile_sums,
                const Region& total) {
    const std::int64_t tiles = ceil_div(count, kScanTile);
    queue.tiles("crf_scan_tiles", tiles, kThreads, 1, values, to_i32(count), tile_sums);
    queue.tiles("crf_scan_sums", 1, kThreads, 1, tile_sums, to_i32(tiles), total);
    if (tiles > 1) queue.each("crf_scan_add", count, values, to_i32(count), tile_sums);
}

/// Sorts 64-bit pairs stably by their upper halves, which are below `high`; returns where they end up.
Region queue_sort(KernelQueue& queue, const LatticeScratch& scratch, std::int64_t count, std::int64_t high) {
    Region pairs = scratch.pairs.region();
    Region other = scratch.more_pairs.region();
    const Region counts = scratch.counts.region();
    const std::int64_t tiles = ceil_div(count, kSortTile);
    for (int shift = 32; shift < 32 + std::max(1, bit_length(high)); shift += kDigitBits) {
        queue.tiles("crf_sort_count", tiles, kThreads, 1, pairs, to_i32(count), shift, counts);
        queue_scan(queue, counts, tiles << kDigitBits, scratch.tile_sums.region(), scratch.total.region());
        queue.tiles("crf_sort_scatter", tiles, kThreads, 1, pairs, to_i32(count), shift, counts, other);
        std::swap(pairs, other);
    }
    return pairs;
}

}  // namespace

std::int64_t LatticeSize::slices() const {
    return ceil_div(entries(), kSlice);
}

int LatticeSize::table_bits() const {
    return std::max(4, bit_length(2 * capacity - 1));
}

std::int64_t LatticeSize::kept_bytes() const {
    return 8 * entries() + 8 * slices() * kSlice + 4 * (capacity + 1) + 4 * slices() + 8 * corners * capacity;
}

std::int64_t LatticeScratch::bytes(const LatticeSize& size) {
    const std::int64_t slots = std::int64_t{1} << size.table_bits();
    return 16 * slots + 24 * size.entries() + 16 * size.capacity + 4 * count_words(size.entries()) +
           4 * tile_words(size.entries()) + 8 * size.pixels + 4 * size.slices() + 4;
}

LatticeScratch LatticeScratch::make(const std::shared_ptr<const Device>& device, const LatticeSize& largest) {
    const auto memory = [&](std::int64_t bytes) { return Memory(device, static_cast<std::size_t>(bytes)); };
    const std::int64_t slots = std::int64_t{1} << largest.table_bits();
    LatticeScratch scratch;
    scratch.keys = memory(8 * slots);
    scratch.first = memory(4 * slots);
    scratch.vertex_of_slot = memory(4 * slots);
    scratch.slots = memory(4 * largest.entries());
    scratch.flags = memory(4 * largest.entries());
    scratch.pairs = memory(8 * largest.entries());
    scratch.more_pairs = memory(8 * largest.entries());
    scratch.vertex_keys = memory(8 * largest.capacity);
    scratch.counts = memory(4 * count_words(largest.entries()));
    scratch.tile_sums = memory(4 * tile_words(largest.entries()));
    scratch.total = memory(4);
    scratch.norms = memory(4 * largest.pixels);
    scratch.ones = memory(4 * largest.pixels);
    scratch.values = memory(4 * largest.capacity);
    scratch.more_values = memory(4 * largest.capacity);
    scratch.tails = memory(4 * largest.slices());
    return scratch;
}

Lattice::Lattice(const std::shared_ptr<const Device>& device, const LatticeSize& size, const Region& status,
                 const Region& vertices)
    : size_(size), status_(status), vertices_(vertices) {
    const auto memory = [&](std::int64_t bytes) { return Memory(device, static_cast<std::size_t>(bytes)); };
    weights_ = memory(4 * size.entries());
    pixel_vertices_ = memory(4 * size.entries());
    splat_entries_ = memory(8 * size.slices() * kSlice);
    first_entry_ = memory(4 * (size.capacity + 1));
    slice_vertex_ = memory(4 * size.slices());
    neighbours_ = memory(8 * size.corners * size.capacity);
}

void Lattice::queue_gaussian(KernelQueue& queue, const LatticeScratch& scratch, int height, int width,
                             float sigma_xy_px) {
    queue_empty_table(queue, scratch);
    queue.each("crf_embed_gaussian", size_.pixels + size_.ghosts, height, width, 1, sigma_xy_px, scratch.keys.region(),
               scratch.first.region(), size_.table_bits(), weights(), scratch.slots.region(), status_);
    queue_build(queue, scratch);
}

void Lattice::queue_bilateral(KernelQueue& queue, const LatticeScratch& scratch, const Region& rgb, int height,
                              int width, float sigma_xy_px, float sigma_rgb) {
    queue_empty_table(queue, scratch);
    queue.each("crf_embed_bilateral", size_.pixels + size_.ghosts, rgb, height, width, 1, sigma_xy_px, sigma_rgb,
               scratch.keys.region(), scratch.first.region(), size_.table_bits(), weights(), scratch.slots.region(),
               status_);
    queue_build(queue, scratch);
}

void Lattice::queue_empty_table(KernelQueue& queue, const LatticeScratch& scratch) const {
    // The scratch memory may be larger than this lattice's table.
    const std::size_t slots = std::size_t{1} << size_.table_bits();
    queue.stream().fill(scratch.keys.region().part(0, 8 * slots), kOnes);
    queue.stream().fill(scratch.first.region().part(0, 4 * slots), kOnes);
    queue.stream().fill(neighbours_.region(), kOnes);
}

void Lattice::queue_build(KernelQueue& queue, const LatticeScratch& scratch) const {
    const std::int64_t count = size_.entries();
    const std::int32_t entries = to_i32(count);
    const std::int32_t capacity = to_i32(size_.capacity);
    const Region slots = scratch.slots.region();
    const Region first = scratch.first.region();
    const Region flags = scratch.flags.region();
    const Region vertex_of_slot = scratch.vertex_of_slot.region();
    const Region vertex_keys = scratch.vertex_keys.region();
    queue.each("crf_mark_first", count, slots, first, entries, flags, status_);
    queue_scan(queue, flags, count, scratch.tile_sums.region(), vertices_);
    queue.each("crf_number_vertices", count, slots, first, flags, scratch.keys.region(), entries, capacity,
               vertex_of_slot, vertex_keys, status_);
    queue.each("crf_pair_entries", count, slots, vertex_of_slot, entries, pixel_vertices(), scratch.pairs.region(),
               status_);
    const Region pairs = queue_sort(queue, scratch, count, size_.capacity);
    queue.each("crf_lay_out_entries", size_.slices() * kSlice, pairs, weights(), entries, to_i32(size_.pixels),
               size_.corners, splat_entries_.region(), first_entry_.region(), slice_vertex_.region(), status_);
    queue.each(size_.corners == 3 ? "crf_find_neighbours_gaussian" : "crf_find_neighbours_bilateral", size_.capacity,
               vertex_keys, vertices_, scratch.keys.region(), size_.table_bits(), vertex_of_slot, capacity,
               neighbours_.region(), status_);
    queue_norms(queue, scratch);
}

void Lattice::queue_norms(KernelQueue& queue, const LatticeScratch& scratch) const {
    const Region norms = scratch.norms.region();
    const Region values = scratch.values.region();
    // The lattice's response to a unit impulse is too large by 1 + 2^-d.
    const auto alpha = static_cast<float>(1.0 / (1.0 + std::ldexp(1.0, 1 - size_.corners)));
    queue.stream().fill(scratch.ones.region(), kOne);
    queue_filter(queue, kScalar, scratch.ones.region(), values, scratch.more_values.region(), scratch.tails.region());
    const std::int32_t pixels = to_i32(size_.pixels);
    queue.each("crf_norms", size_.pixels, values, pixel_vertices(), weights(), pixels, size_.corners, alpha, 1, norms,
               status_);
    queue.each("crf_apply_norms", size_.entries(), norms, to_i32(size_.entries()), pixels, size_.corners, alpha, 1, 1,
               splat_entries_.region(), weights(), status_);
}

void Lattice::queue_filter(KernelQueue& queue, const Storage& storage, const Region& rows, const Region& values,
                           const Region& other, const Region& tails) const {
    const std::string suffix = storage.suffix;
    const std::int32_t slices = to_i32(size_.slices());
    const std::int32_t stride = storage.stride();
    // Each axis moves the values to the other buffer; the last one must leave them in `values`.
    Region source = size_.corners % 2 == 0 ? values : other;
    Region target = size_.corners % 2 == 0 ? other : values;
    queue.rows(("crf_splat_" + suffix).c_str(), slices, storage.lanes, splat_entries_.region(), slice_vertex_.region(),
               slices, rows, stride, source, tails, status_);
    queue.rows(("crf_splat_tails_" + suffix).c_str(), slices, storage.lanes, slice_vertex_.region(),
               first_entry_.region(), slices, tails, stride, source, status_);
    const auto links = static_cast<std::size_t>(8 * size_.capacity);
    for (int axis = 0; axis < size_.corners; ++axis) {
        queue.rows(("crf_blur_" + suffix).c_str(), size_.capacity, storage.lanes,
                   neighbours_.region().part(axis * links, links), vertices_, source, stride, target, status_);
        std::swap(source, target);
    }
}

}  // namespace atrous::core::cuda
