#include "lattice_builder.hpp"

#include <algorithm>
#include <atomic>

#include "embed_kernels.hpp"
#include "parallel.hpp"

namespace atrous {
namespace {

/// Work per scheduled piece: large enough to hide the scheduling, small enough to balance two to many cores.
constexpr std::int64_t kPieceEntries = 8192;

/// pydensecrf embeds pixels four at a time and fills the last four up with zero features. The filler carries no value,
/// but its vertices exist, and the blur flows through them: near the origin (black pixels in the top left corner)
/// results differ by up to 2e-3 when they are left out.
constexpr int kGhostPeriod = 4;

/// How many bits of `word` are set below bit `bit`.
int bits_below(std::uint64_t word, int bit) {
    return __builtin_popcountll(word & ((std::uint64_t{1} << bit) - 1));
}

}  // namespace

template <int words>
bool LatticeBuilder<words>::build(Lattice& lattice, const FeatureSource& source, int bits, int threads) {
    const KeyLayout<words> layout(source.features(), bits);
    lattice.pixels_ = source.pixels();
    lattice.corners_ = source.features() + 1;
    if (!embed(lattice, source, layout, threads)) return false;
    find_vertices(lattice, threads);
    sort_entries(lattice, threads);
    find_neighbours(lattice, threads);
    return true;
}

/// The corners of the simplex around one column of an embedded tile, by remainder.
template <int words>
void LatticeBuilder<words>::pack_corners(const EmbedTile& tile, int column, const KeyLayout<words>& layout, Key* keys) {
    const int corners = static_cast<int>(steps_.size());
    keys[0] = layout.pack(&tile.origin[0][column], kEmbedTile);
    for (int j = 1; j < corners; ++j) keys[j] = keys[j - 1] + steps_[tile.axis_of_rank[corners - j][column]];
}

/// Weights and keys of the corners of every pixel's simplex.
template <int words>
bool LatticeBuilder<words>::embed(Lattice& lattice, const FeatureSource& source, const KeyLayout<words>& layout,
                                  int threads) {
    const int features = source.features();
    const int corners = lattice.corners_;
    const std::int64_t total = lattice.pixels_ * corners;
    const bool has_ghost = lattice.pixels_ % kGhostPeriod != 0;
    keys_.resize(total + (has_ghost ? corners : 0));
    lattice.pixel_weights_.resize(total);
    steps_.clear();
    for (int axis = 0; axis < corners; ++axis) steps_.push_back(layout.step(axis));
    std::atomic<bool> in_range{true};

    parallel_ranges(lattice.pixels_, 4096, threads, [&](std::int64_t range_begin, std::int64_t range_end) {
        EmbedTile tile;
        for (std::int64_t begin = range_begin; begin < range_end; begin += kEmbedTile) {
            const int count = static_cast<int>(std::min<std::int64_t>(kEmbedTile, range_end - begin));
            source.fill(begin, count, tile);
            for (int f = 0; f < features; ++f) {  // whole vectors are computed: let the unused lanes be harmless
                std::fill(tile.features[f] + count, tile.features[f] + kEmbedTile, tile.features[f][0]);
            }
            if (!embed_kernels().embed(tile, features, count, layout.limit())) {
                in_range = false;
                return;
            }
            for (int i = 0; i < count; ++i) {
                pack_corners(tile, i, layout, &keys_[(begin + i) * corners]);
                float* weights = &lattice.pixel_weights_[(begin + i) * corners];
                for (int j = 0; j < corners; ++j) weights[j] = tile.weights[j][i];
            }
        }
    });
    if (has_ghost && in_range) {
        EmbedTile tile;
        for (int f = 0; f < features; ++f) std::fill(tile.features[f], tile.features[f] + kEmbedTile, 0.0f);
        embed_kernels().embed(tile, features, 1, layout.limit());
        pack_corners(tile, 0, layout, &keys_[total]);
    }
    return in_range;
}

template <int words>
void LatticeBuilder<words>::find_vertices(Lattice& lattice, int threads) {
    lattice.pixel_vertices_.resize(keys_.size());
    touched_.resize((keys_.size() + 63) / 64);
    std::fill(touched_.begin(), touched_.end(), std::uint64_t{0});
    partitions_.resize(threads);
    parallel_pieces(threads, threads, [&](std::int64_t self) { collect_points(partitions_[self], self, lattice); });
    number_vertices(lattice, threads);
}

/// Numbers the points of one partition; marks the corners that meet them first.
template <int words>
void LatticeBuilder<words>::collect_points(Partition& partition, std::size_t self, Lattice& lattice) {
    const auto total = static_cast<std::int64_t>(keys_.size());
    const std::int64_t corners = lattice.corners_;
    std::int32_t* numbers = lattice.pixel_vertices_.data();
    partition.table.clear();
    partition.first_touch.clear();
    for (std::int64_t at = 0; at < total; ++at) {
        const Key key = keys_[at];
        if (partition_of(key) != self) continue;
        if (at >= corners && keys_[at - corners] == key) {  // pixels often share corners with their left neighbour
            numbers[at] = numbers[at - corners];
            continue;
        }
        const auto next = static_cast<std::int32_t>(partition.first_touch.size());
        numbers[at] = partition.table.find_or_insert(key, next);
        if (numbers[at] == next) partition.first_touch.push_back(static_cast<std::int32_t>(at));
    }
}

/// Numbers all vertices in scan order: the rank of the first touch among the first touches of all partitions.
template <int words>
void LatticeBuilder<words>::number_vertices(Lattice& lattice, int threads) {
    for (const Partition& partition : partitions_) {
        for (const std::int32_t at : partition.first_touch) touched_[at / 64] |= std::uint64_t{1} << (at % 64);
    }
    touched_before_.resize(touched_.size());
    std::int32_t count = 0;
    for (std::size_t w = 0; w < touched_.size(); ++w) {
        touched_before_[w] = count;
        count += __builtin_popcountll(touched_[w]);
    }
    lattice.vertices_ = count;
    vertex_keys_.resize(count);
    parallel_pieces(threads, threads, [&](std::int64_t self) {
        Partition& partition = partitions_[self];
        partition.vertex.resize(partition.first_touch.size());
        for (std::size_t local = 0; local < partition.vertex.size(); ++local) {
            const std::int32_t at = partition.first_touch[local];
            const std::int32_t vertex = touched_before_[at / 64] + bits_below(touched_[at / 64], at % 64);
            partition.vertex[local] = vertex;
            vertex_keys_[vertex] = keys_[at];
        }
    });
    parallel_ranges(keys_.size(), 65536, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t at = begin; at < end; ++at) {
            std::int32_t& number = lattice.pixel_vertices_[at];
            number = partitions_[partition_of(keys_[at])].vertex[number];
        }
    });
}

/// Sorts the corners by vertex (a counting sort; each worker owns a range of vertices), so that splatting gathers.
template <int words>
void LatticeBuilder<words>::sort_entries(Lattice& lattice, int threads) {
    const std::int64_t total = lattice.pixels_ * lattice.corners_;
    const std::int32_t* vertices = lattice.pixel_vertices_.data();
    Buffer<std::int32_t>& first = lattice.first_entry_;
    first.resize(lattice.vertices_ + 1);
    lattice.entries_.resize(total);
    std::vector<std::int64_t> borders;
    for (int t = 0; t <= threads; ++t) borders.push_back(lattice.vertices_ * t / threads);

    std::fill(first.begin(), first.end(), 0);
    parallel_pieces(threads, threads, [&](std::int64_t self) {
        const std::int64_t low = borders[self];
        const std::int64_t high = borders[self + 1];
        for (std::int64_t at = 0; at < total; ++at) {
            if (vertices[at] >= low && vertices[at] < high) ++first[vertices[at]];
        }
    });
    std::int32_t sum = 0;
    for (std::int32_t& entry : first) {
        const std::int32_t count = entry;
        entry = sum;
        sum += count;
    }
    parallel_pieces(threads, threads, [&](std::int64_t self) {
        const std::int64_t low = borders[self];
        const std::int64_t high = borders[self + 1];
        std::vector<std::int32_t> cursor(first.data() + low, first.data() + high);
        for (std::int64_t pixel = 0, at = 0; pixel < lattice.pixels_; ++pixel) {
            for (int j = 0; j < lattice.corners_; ++j, ++at) {
                if (vertices[at] < low || vertices[at] >= high) continue;
                lattice.entries_[cursor[vertices[at] - low]++] = {static_cast<std::int32_t>(pixel),
                                                                  lattice.pixel_weights_[at]};
            }
        }
    });
    lattice.splat_begins_.assign(1, 0);
    for (std::int64_t vertex = 1; vertex < lattice.vertices_; ++vertex) {
        if (first[vertex] - first[lattice.splat_begins_.back()] >= kPieceEntries) {
            lattice.splat_begins_.push_back(vertex);
        }
    }
    lattice.splat_begins_.push_back(lattice.vertices_);
}

template <int words>
void LatticeBuilder<words>::find_neighbours(Lattice& lattice, int threads) {
    const int corners = lattice.corners_;
    next_.resize(corners);
    has_previous_.resize(corners);
    for (int axis = 0; axis < corners; ++axis) {
        next_[axis].resize(lattice.vertices_);
        has_previous_[axis].resize(lattice.vertices_);
        std::fill(has_previous_[axis].begin(), has_previous_[axis].end(), std::uint8_t{0});
    }
    constexpr std::int64_t ahead = 8;  // look-ups wait for memory: ask for it this many vertices early
    parallel_ranges(lattice.vertices_, kPieceEntries, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t vertex = begin; vertex < end; ++vertex) {
            for (int axis = 0; axis < corners; ++axis) {
                if (vertex + ahead < end) {
                    const Key later = vertex_keys_[vertex + ahead] + steps_[axis];
                    partitions_[partition_of(later)].table.prefetch(later);
                }
                const Key key = vertex_keys_[vertex] + steps_[axis];
                const Partition& partition = partitions_[partition_of(key)];
                const std::int32_t local = partition.table.find(key);
                next_[axis][vertex] = local == Table::kMissing ? Table::kMissing : partition.vertex[local];
                // Only one vertex has this neighbour, so no two threads write the same byte.
                if (local != Table::kMissing) has_previous_[axis][partition.vertex[local]] = 1;
            }
        }
    });
    lattice.axes_.resize(corners);
    parallel_pieces(corners, threads, [&](std::int64_t axis) { link_chains(lattice, static_cast<int>(axis)); });
}

/// Lists the vertices that have a neighbour along `axis`, each run of neighbours from its first to its last.
template <int words>
void LatticeBuilder<words>::link_chains(Lattice& lattice, int axis) {
    Lattice::Axis& chains = lattice.axes_[axis];
    const Buffer<std::int32_t>& next = next_[axis];
    const Buffer<std::uint8_t>& has_previous = has_previous_[axis];
    chains.sequence.resize(lattice.vertices_);
    chains.piece_begins.assign(1, 0);
    std::int64_t at = 0;
    for (std::int64_t head = 0; head < lattice.vertices_; ++head) {
        if (has_previous[head] != 0 || next[head] == Table::kMissing) continue;
        if (at - chains.piece_begins.back() >= kPieceEntries / 8) chains.piece_begins.push_back(at);
        auto vertex = static_cast<std::int32_t>(head);
        for (; next[vertex] != Table::kMissing; vertex = next[vertex]) chains.sequence[at++] = vertex;
        chains.sequence[at++] = ~vertex;
    }
    if (at > 0) chains.piece_begins.push_back(at);
}

template class LatticeBuilder<1>;
template class LatticeBuilder<2>;
template class LatticeBuilder<8>;

}  // namespace atrous
