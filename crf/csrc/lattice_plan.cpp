#include "lattice_plan.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace atrous {
namespace {

constexpr std::uint32_t kFloatOne = 0x3F800000;
constexpr std::uint32_t kOnes = 0xFFFFFFFF;  ///< −1 as an integer, and what an empty slot of the table holds

const RowStorage kScalar{"f1", 4, 1, 1};

int bit_length(std::int64_t value) {
    int bits = 0;
    for (; value > 0; value >>= 1) ++bits;
    return bits;
}

/// Scratch memory of scans and sorts of up to `count` items.
void declare_sorting(PlanWriter& plan, std::int64_t count) {
    const std::int64_t counts = ceil_div(count, kSortTile) << kDigitBits;
    plan.declare("scratch.counts", 4 * counts, BufferUse::scratch);
    plan.declare("scratch.tile_sums", 4 * ceil_div(std::max(count, counts), kScanTile), BufferUse::scratch);
    plan.declare("scratch.total", 4, BufferUse::scratch);
}

/// Exclusive prefix sums of 32-bit counts in place; `total` becomes their sum.
void scan(PlanWriter& plan, const Slot& values, std::int64_t count, const Slot& total) {
    const std::int64_t tiles = ceil_div(count, kScanTile);
    const Slot sums = plan["scratch.tile_sums"];
    plan.tiles("crf_scan_tiles", tiles, kThreads, 1, values, count, sums);
    plan.tiles("crf_scan_sums", 1, kThreads, 1, sums, tiles, total);
    if (tiles > 1) plan.each("crf_scan_add", count, values, count, sums);
}

/// Sorts 64-bit pairs stably by their upper halves, which are below `high`; returns where they end up.
Slot sort(PlanWriter& plan, Slot pairs, Slot other, std::int64_t count, std::int64_t high) {
    const std::int64_t tiles = ceil_div(count, kSortTile);
    const Slot counts = plan["scratch.counts"];
    for (int shift = 32; shift < 32 + std::max(1, bit_length(high)); shift += kDigitBits) {
        plan.tiles("crf_sort_count", tiles, kThreads, 1, pairs, count, shift, counts);
        scan(plan, counts, tiles << kDigitBits, plan["scratch.total"]);
        plan.tiles("crf_sort_scatter", tiles, kThreads, 1, pairs, count, shift, counts, other);
        std::swap(pairs, other);
    }
    return pairs;
}

}  // namespace

int LatticeSpec::table_bits() const {
    return std::max(4, bit_length(2 * capacity - 1));
}

LatticeWriter::LatticeWriter(const LatticeSpec& spec, PlanWriter& plan) : spec_(spec), plan_(plan) {
    const std::int64_t entries = spec.entries();
    const std::int64_t capacity = spec.capacity;
    const std::pair<const char*, std::int64_t> kept[] = {{"weights", 4 * entries},
                                                         {"pixel_vertices", 4 * entries},
                                                         {"first_entry", 4 * capacity + 4},
                                                         {"splat_entries", 8 * kSlice * spec.slices()},
                                                         {"slice_vertex", 4 * spec.slices()},
                                                         {"neighbours", 8 * spec.corners * capacity},
                                                         {"shares", 4 * spec.corners * capacity}};
    for (const auto& [name, bytes] : kept) plan.declare(spec.name() + "." + name, bytes, BufferUse::kept);
    const std::int64_t table = std::int64_t{1} << spec.table_bits();
    const std::int64_t pixels = spec.batch.pixels();
    const std::pair<const char*, std::int64_t> shared[] = {
        {"keys", 8 * table},           {"first", 4 * table},        {"vertex_of_slot", 4 * table},
        {"slots", 4 * entries},        {"flags", 4 * entries},      {"pairs", 8 * entries},
        {"more_pairs", 8 * entries},   {"norms", 4 * pixels},       {"ones", 4 * pixels},
        {"vertex_keys", 8 * capacity}, {"values", 4 * capacity},    {"more_values", 4 * capacity},
        {"masses", 4 * capacity},      {"tails", 4 * spec.slices()}};
    for (const auto& [name, bytes] : shared) {
        plan.declare(std::string("scratch.") + name, bytes, BufferUse::scratch);
    }
    declare_sorting(plan, entries);
    plan.declare("rgb", ceil_div(3 * pixels, 4) * 4, BufferUse::given);
    plan.declare("report", sizeof(FieldReport), BufferUse::kept);
    status_ = plan["report"].part(0, sizeof(Status));
    vertices_ = plan["report"].part(sizeof(Status) + (spec.corners == kGaussianCorners ? 0 : 4), 4);
}

void LatticeWriter::build() {
    const std::int64_t count = spec_.entries();
    const std::int64_t capacity = spec_.capacity;
    plan_.fill(scratch("keys"), kOnes);
    plan_.fill(scratch("first"), kOnes);
    plan_.fill(own("neighbours"), kOnes);
    embed();
    plan_.each("crf_mark_first", count, scratch("slots"), scratch("first"), count, scratch("flags"), status_);
    scan(plan_, scratch("flags"), count, vertices_);
    plan_.each("crf_number_vertices", count, scratch("slots"), scratch("first"), scratch("flags"), scratch("keys"),
               count, capacity, scratch("vertex_of_slot"), scratch("vertex_keys"), status_);
    plan_.each("crf_pair_entries", count, scratch("slots"), scratch("vertex_of_slot"), count, own("pixel_vertices"),
               scratch("pairs"), status_);
    const Slot pairs = sort(plan_, scratch("pairs"), scratch("more_pairs"), count, capacity);
    plan_.each("crf_lay_out_entries", spec_.slices() * kSlice, pairs, own("weights"), count, spec_.batch.pixels(),
               spec_.corners, own("splat_entries"), own("first_entry"), own("slice_vertex"), status_);
    plan_.each("crf_find_neighbours_" + spec_.name(), capacity, scratch("vertex_keys"), vertices_, scratch("keys"),
               spec_.table_bits(), scratch("vertex_of_slot"), capacity, own("neighbours"), status_);
    plan_.fill(scratch("ones"), kFloatOne);
    norms();
    if (spec_.has_shares) shares(pairs);
}

void LatticeWriter::embed() {
    const auto& [images, height, width] = spec_.batch;
    const std::int64_t points = spec_.batch.points();
    if (spec_.corners == kGaussianCorners) {
        plan_.each("crf_embed_gaussian", points, height, width, images, spec_.sigma_xy_px, scratch("keys"),
                   scratch("first"), spec_.table_bits(), own("weights"), scratch("slots"), status_);
    } else {
        plan_.each("crf_embed_bilateral", points, plan_["rgb"], height, width, images, spec_.sigma_xy_px,
                   spec_.sigma_rgb, scratch("keys"), scratch("first"), spec_.table_bits(), own("weights"),
                   scratch("slots"), status_);
    }
}

/// Filters ones, always in single precision, and multiplies the norms into the weights.
void LatticeWriter::norms() {
    const Normalization kind = spec_.normalization;
    const std::int64_t pixels = spec_.batch.pixels();
    // The lattice's response to a unit impulse is too large by 1 + 2^−d.
    const auto alpha = static_cast<float>(1.0 / (1.0 + std::ldexp(1.0, 1 - spec_.corners)));
    const bool is_symmetric = kind == Normalization::symmetric;
    if (kind != Normalization::none) {
        filter(kScalar, scratch("ones"), scratch("values"), scratch("more_values"), scratch("tails"));
        plan_.each("crf_norms", pixels, scratch("values"), own("pixel_vertices"), own("weights"), pixels, spec_.corners,
                   alpha, is_symmetric, scratch("norms"), status_);
    }
    const bool before = is_symmetric || kind == Normalization::before;
    const bool after = is_symmetric || kind == Normalization::after;
    plan_.each("crf_apply_norms", spec_.entries(), scratch("norms"), spec_.entries(), pixels, spec_.corners, alpha,
               before, after, own("splat_entries"), own("weights"), status_);
}

/// What rows of fractions need: masses in the weights, and each axis's shares of them.
void LatticeWriter::shares(const Slot& pairs) {
    splat(kScalar, scratch("ones"), scratch("masses"), scratch("tails"));
    Slot source = scratch("masses");
    Slot target = scratch("values");
    Slot other = scratch("more_values");
    for (int axis = 0; axis < spec_.corners; ++axis) {
        plan_.each("crf_share_masses", spec_.capacity, of_axis("neighbours", axis), vertices_, source,
                   of_axis("shares", axis), target, status_);
        source = target;
        std::swap(target, other);
    }
    plan_.each("crf_apply_masses", spec_.entries(), pairs, own("pixel_vertices"), scratch("masses"), source,
               spec_.entries(), own("splat_entries"), own("weights"), status_);
}

void LatticeWriter::filter(const RowStorage& storage, const Slot& rows, const Slot& values, const Slot& other,
                           const Slot& tails) {
    // Each axis moves the values to the other buffer; the last one must leave them in `values`.
    Slot source = spec_.corners % 2 == 0 ? values : other;
    Slot target = spec_.corners % 2 == 0 ? other : values;
    splat(storage, rows, source, tails);
    const std::string kernel = "crf_blur_" + storage.suffix;
    for (int axis = 0; axis < spec_.corners; ++axis) {
        const Slot links = of_axis("neighbours", axis);
        if (storage.suffix == "u16") {
            plan_.rows(kernel, spec_.capacity, storage.lanes, links, of_axis("shares", axis), vertices_, source,
                       storage.stride(), target, status_);
        } else {
            plan_.rows(kernel, spec_.capacity, storage.lanes, links, vertices_, source, storage.stride(), target,
                       status_);
        }
        std::swap(source, target);
    }
}

/// Sums of weighted rows into `values` [vertices, stride].
void LatticeWriter::splat(const RowStorage& storage, const Slot& rows, const Slot& values, const Slot& tails) {
    const std::int64_t slices = spec_.slices();
    plan_.rows("crf_splat_" + storage.suffix, slices, storage.lanes, own("splat_entries"), own("slice_vertex"), slices,
               rows, storage.stride(), values, tails, status_);
    plan_.rows("crf_splat_tails_" + storage.suffix, slices, storage.lanes, own("slice_vertex"), own("first_entry"),
               slices, tails, storage.stride(), values, status_);
}

Slot LatticeWriter::of_axis(const std::string& buffer, int axis) const {
    const Slot whole = own(buffer);
    const std::int64_t bytes = whole.bytes / spec_.corners;
    return whole.part(axis * bytes, bytes);
}

LaunchPlan plan_lattice(const LatticeSpec& spec, int multiprocessors) {
    PlanWriter plan(multiprocessors);
    LatticeWriter lattice(spec, plan);
    plan.begin_sequence("build");
    plan.begin("construction", spec.name());
    plan.fill(plan["report"], 0);
    lattice.build();
    return plan.take();
}

LaunchPlan plan_sorting(std::int64_t count, std::int64_t high, int multiprocessors) {
    PlanWriter plan(multiprocessors);
    plan.declare("values", 4 * count, BufferUse::given);
    plan.declare("pairs", 8 * count, BufferUse::given);
    plan.declare("more_pairs", 8 * count, BufferUse::scratch);
    declare_sorting(plan, count);
    plan.begin_sequence("scan");
    scan(plan, plan["values"], count, plan["scratch.total"]);
    plan.begin_sequence("sort");
    const Slot sorted = sort(plan, plan["pairs"], plan["more_pairs"], count, high);
    if (sorted.buffer != "pairs") plan.copy(sorted, plan["pairs"]);
    return plan.take();
}

}  // namespace atrous
