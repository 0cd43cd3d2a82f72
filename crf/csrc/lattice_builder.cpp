#include "lattice_builder.hpp"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "embed_kernels.hpp"
#include "native/parallel.hpp"

namespace atrous {
namespace {

/// Work per scheduled piece: large enough to hide the scheduling, small enough to balance two to many cores.
constexpr std::int64_t kPieceEntries = 8192;

/// Cells per scheduled piece.
constexpr std::int64_t kCellRange = 16;

/// The fewest pixels that are worth a worker.
constexpr std::int64_t kSharePixels = 4096;

/// The most memory that the keys of one tile may take.
constexpr std::size_t kTileKeyBytes = std::size_t{4} << 20;

/// pydensecrf embeds pixels four at a time and fills the last four up with zero features. The filler carries no value,
/// but its vertices exist, and the blur flows through them: near the origin (black pixels in the top left corner)
/// results differ by up to 2e-3 when they are left out.
constexpr int kGhostPeriod = 4;

}  // namespace

template <int words>
bool LatticeBuilder<words>::build(Lattice& lattice, const FeatureSource& source, int bits, int threads) {
    const KeyLayout<words> layout(source.features(), bits);
    const bool has_ghost = source.pixels() % kGhostPeriod != 0;
    lattice.pixels_ = source.pixels();
    lattice.corners_ = source.features() + 1;
    lattice.pixel_vertices_.resize((lattice.pixels_ + (has_ghost ? 1 : 0)) * lattice.corners_);
    lattice.pixel_weights_.resize(lattice.pixels_ * lattice.corners_);
    for (int axis = 0; axis < lattice.corners_; ++axis) steps_.push_back(layout.step(axis));

    const std::int64_t shares = std::min<std::int64_t>(threads, (lattice.pixels_ + kSharePixels - 1) / kSharePixels);
    for (std::int64_t i = 0; i < shares; ++i) {
        shares_.push_back({lattice.pixels_ * i / shares,
                           lattice.pixels_ * (i + 1) / shares,
                           {},
                           {},
                           {},
                           {},
                           {},
                           CellGrid<words>(layout)});
    }
    std::atomic<bool> in_range{true};
    parallel_pieces(shares, threads, [&](std::int64_t i) {
        if (!collect(lattice, source, layout, shares_[i])) in_range = false;
    });
    if (!in_range) return false;
    if (has_ghost) collect_ghost(lattice, layout, shares_.back());
    sort_into_cells(lattice, threads);
    number_vertices(lattice, threads);
    fill_entries(lattice, threads);
    find_neighbours(lattice, threads);
    return true;
}

/// The corners of the simplex around one column of an embedded tile, by remainder.
template <int words>
void LatticeBuilder<words>::pack_corners(const EmbedTile& tile, int column, const KeyLayout<words>& layout,
                                         Key* keys) const {
    const int corners = static_cast<int>(steps_.size());
    keys[0] = layout.pack(&tile.origin[0][column], kEmbedTile);
    for (int j = 1; j < corners; ++j) keys[j] = keys[j - 1] + steps_[tile.axis_of_rank[corners - j][column]];
}

/// Weights and local numbers of the corners of the simplices of a share's pixels.
template <int words>
bool LatticeBuilder<words>::collect(Lattice& lattice, const FeatureSource& source, const KeyLayout<words>& layout,
                                    Share& share) const {
    const int features = source.features();
    const int corners = features + 1;
    Key no_point;
    std::fill(no_point.word, no_point.word + words, ~std::uint64_t{0});
    const auto fitting = static_cast<int>(kTileKeyBytes / (sizeof(Key) * static_cast<std::size_t>(corners)));
    const int pixels_per_tile = std::clamp(fitting, 1, kEmbedTile);
    // The corners of a tile, after those of the pixel before it.
    std::vector<Key> keys((pixels_per_tile + 1) * corners, no_point);
    EmbedTile tile(features);
    share.table.reserve(share.end - share.begin);
    for (std::int64_t begin = share.begin; begin < share.end; begin += pixels_per_tile) {
        const int count = static_cast<int>(std::min<std::int64_t>(pixels_per_tile, share.end - begin));
        source.fill(begin, count, tile);
        for (int f = 0; f < features; ++f) {  // whole vectors are computed: let the unused lanes be harmless
            std::fill(tile.features[f] + count, tile.features[f] + kEmbedTile, tile.features[f][0]);
        }
        if (!embed_kernels().embed(tile, features, count, layout.limit())) return false;
        float* weights = &lattice.pixel_weights_[begin * corners];
        for (int i = 0; i < count; ++i) {
            pack_corners(tile, i, layout, &keys[(i + 1) * corners]);
            for (int j = 0; j < corners; ++j) weights[i * corners + j] = tile.weights[j][i];
        }
        number_corners(&keys[corners], corners, count, &lattice.pixel_vertices_[begin * corners], share);
        std::copy_n(&keys[count * corners], corners, keys.data());
    }
    return true;
}

template <int words>
void LatticeBuilder<words>::collect_ghost(Lattice& lattice, const KeyLayout<words>& layout, Share& share) const {
    const int corners = lattice.corners_;
    EmbedTile tile(corners - 1);
    for (int f = 0; f + 1 < corners; ++f) std::fill(tile.features[f], tile.features[f] + kEmbedTile, 0.0f);
    embed_kernels().embed(tile, corners - 1, 1, layout.limit());
    std::vector<Key> keys(2 * corners, Key{});
    pack_corners(tile, 0, layout, &keys[corners]);
    // Keys of zeros lie beyond the limit of coordinates: no corner equals its predecessor.
    number_corners(&keys[corners], corners, 1, &lattice.pixel_vertices_[lattice.pixels_ * corners], share);
}

/// Gives `count` pixels' corners the local numbers of their points. `keys` and `numbers` follow those of the pixel
/// before.
template <int words>
void LatticeBuilder<words>::number_corners(const Key* keys, int corners, int count, std::int32_t* numbers,
                                           Share& share) const {
    for (int at = 0; at < count * corners; ++at) share.table.prefetch(keys[at]);
    for (int at = 0; at < count * corners; ++at) {
        if (keys[at] == keys[at - corners]) {  // pixels often share corners with their left neighbour
            numbers[at] = numbers[at - corners];
        } else {
            const auto next = static_cast<std::int32_t>(share.points.size());
            numbers[at] = share.table.find_or_insert(keys[at], next);
            if (numbers[at] == next) {
                share.points.push_back(keys[at]);
                share.entries.push_back(0);
                share.grid.include(keys[at]);
            }
        }
        ++share.entries[numbers[at]];
    }
}

/// Sorts the points of all shares by cell (a counting sort), then by key.
template <int words>
void LatticeBuilder<words>::sort_into_cells(Lattice& lattice, int threads) {
    const auto shares = static_cast<std::int64_t>(shares_.size());
    grid_ = shares_[0].grid;
    for (const Share& share : shares_) grid_.include(share.grid);
    grid_.settle(lattice.pixels_);
    parallel_pieces(shares, threads, [&](std::int64_t i) {
        Share& share = shares_[i];
        share.table = {};
        share.cell_cursors.assign(grid_.cells(), 0);
        for (const Key& key : share.points) {
            share.numbers.push_back(static_cast<std::int32_t>(grid_.cell(key)));
            ++share.cell_cursors[share.numbers.back()];
        }
    });
    cell_candidates_.assign(1, 0);
    for (std::int64_t cell = 0; cell < grid_.cells(); ++cell) {
        std::int64_t at = cell_candidates_.back();
        for (Share& share : shares_) at += std::exchange(share.cell_cursors[cell], at);
        cell_candidates_.push_back(at);
    }
    candidates_.resize(cell_candidates_.back());
    parallel_pieces(shares, threads, [&](std::int64_t i) {
        Share& share = shares_[i];
        for (std::size_t local = 0; local < share.points.size(); ++local) {
            candidates_[share.cell_cursors[share.numbers[local]]++] = {
                share.points[local], static_cast<std::int32_t>(i), static_cast<std::int32_t>(local)};
        }
        share.points = {};
    });
    cell_vertices_.assign(grid_.cells() + 1, 0);
    cell_entries_.assign(grid_.cells() + 1, 0);
    parallel_ranges(grid_.cells(), kCellRange, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t cell = begin; cell < end; ++cell) sort_cell(cell);
    });
}

/// Sorts the points of a cell and counts how many are distinct and how many corners lie on them.
template <int words>
void LatticeBuilder<words>::sort_cell(std::int64_t cell) {
    Candidate* const begin = candidates_.data() + cell_candidates_[cell];
    Candidate* const end = candidates_.data() + cell_candidates_[cell + 1];
    std::sort(begin, end, [](const Candidate& a, const Candidate& b) {
        return a.key == b.key ? a.share < b.share : a.key < b.key;
    });
    for (const Candidate* point = begin; point < end; ++point) {
        if (point == begin || !(point->key == point[-1].key)) ++cell_vertices_[cell + 1];
        cell_entries_[cell + 1] += shares_[point->share].entries[point->local];
    }
}

/// Numbers the distinct points of all cells in order.
template <int words>
void LatticeBuilder<words>::number_vertices(Lattice& lattice, int threads) {
    std::partial_sum(cell_vertices_.begin(), cell_vertices_.end(), cell_vertices_.begin());
    std::partial_sum(cell_entries_.begin(), cell_entries_.end(), cell_entries_.begin());
    lattice.vertices_ = cell_vertices_.back();
    keys_.resize(lattice.vertices_);
    first_entry_.resize(lattice.vertices_ + 1);
    first_entry_[lattice.vertices_] = static_cast<std::int32_t>(cell_entries_.back());
    parallel_ranges(grid_.cells(), kCellRange, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t cell = begin; cell < end; ++cell) number_cell(cell);
    });
    candidates_ = {};
}

template <int words>
void LatticeBuilder<words>::number_cell(std::int64_t cell) {
    std::int64_t vertex = cell_vertices_[cell] - 1;
    auto entry = static_cast<std::int32_t>(cell_entries_[cell]);
    for (std::int64_t i = cell_candidates_[cell]; i < cell_candidates_[cell + 1]; ++i) {
        const Candidate& point = candidates_[i];
        if (i == cell_candidates_[cell] || !(point.key == candidates_[i - 1].key)) {
            ++vertex;
            keys_[vertex] = point.key;
            first_entry_[vertex] = entry;
        }
        Share& share = shares_[point.share];
        share.numbers[point.local] = static_cast<std::int32_t>(vertex);
        entry += std::exchange(share.entries[point.local], entry);
    }
}

/// Sorts the corners by vertex and then by pixel, so that splatting gathers, and replaces local numbers by vertices.
template <int words>
void LatticeBuilder<words>::fill_entries(Lattice& lattice, int threads) {
    lattice.entries_.resize(lattice.pixel_vertices_.size());
    parallel_pieces(static_cast<std::int64_t>(shares_.size()), threads,
                    [&](std::int64_t index) { fill_entries_of(index, lattice); });
    parallel_ranges(lattice.vertices_, 16384, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t vertex = begin; vertex < end; ++vertex) {
            SplatEntry& first = lattice.entries_[first_entry_[vertex]];
            first.pixel = ~first.pixel;
        }
    });
    cut_splat_pieces(lattice);
}

template <int words>
void LatticeBuilder<words>::fill_entries_of(std::int64_t index, Lattice& lattice) {
    Share& share = shares_[index];
    const int corners = lattice.corners_;
    const auto place = [&](std::int64_t at, std::int32_t pixel, float weight) {
        std::int32_t& number = lattice.pixel_vertices_[at];
        lattice.entries_[share.entries[number]++] = {pixel, weight};
        number = share.numbers[number];
    };
    for (std::int64_t pixel = share.begin; pixel < share.end; ++pixel) {
        for (std::int64_t at = pixel * corners; at < (pixel + 1) * corners; ++at) {
            place(at, static_cast<std::int32_t>(pixel), lattice.pixel_weights_[at]);
        }
    }
    if (share.end < lattice.pixels_) return;
    // The ghost adds nothing, but its vertices get an entry like all others.
    const auto all = static_cast<std::int64_t>(lattice.pixel_vertices_.size());
    for (std::int64_t at = lattice.pixels_ * corners; at < all; ++at) place(at, 0, 0.0f);
}

template <int words>
void LatticeBuilder<words>::cut_splat_pieces(Lattice& lattice) const {
    lattice.splat_pieces_.clear();
    for (std::int64_t vertex = 0, begin = 0; vertex < lattice.vertices_; ++vertex) {
        const std::int64_t end = first_entry_[vertex + 1];
        if (end - first_entry_[begin] < kPieceEntries && vertex + 1 < lattice.vertices_) continue;
        lattice.splat_pieces_.push_back({first_entry_[begin], end, begin});
        begin = vertex + 1;
    }
}

template <int words>
void LatticeBuilder<words>::find_neighbours(Lattice& lattice, int threads) {
    lattice.neighbours_.resize(steps_.size());
    const auto none = static_cast<std::int32_t>(lattice.vertices_);  // the row of zeros
    for (Buffer<Neighbours>& axis : lattice.neighbours_) {
        axis.resize(lattice.vertices_);
        parallel_ranges(lattice.vertices_, 65536, threads, [&](std::int64_t begin, std::int64_t end) {
            std::fill(axis.begin() + begin, axis.begin() + end, Neighbours{none, none});
        });
    }
    parallel_ranges(grid_.cells(), kCellRange, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t cell = begin; cell < end; ++cell) find_neighbours_of(cell, lattice);
    });
}

/// Merges the points of one cell, moved a step along each axis, with those of the cell that the step leads to.
template <int words>
void LatticeBuilder<words>::find_neighbours_of(std::int64_t cell, Lattice& lattice) const {
    for (int axis = 0; axis < static_cast<int>(steps_.size()); ++axis) {
        const std::int64_t other = grid_.neighbour(cell, axis);
        if (other < 0) continue;
        Buffer<Neighbours>& neighbours = lattice.neighbours_[axis];
        std::int64_t candidate = cell_vertices_[other];
        const std::int64_t last = cell_vertices_[other + 1];
        for (std::int64_t vertex = cell_vertices_[cell]; vertex < cell_vertices_[cell + 1]; ++vertex) {
            const Key wanted = keys_[vertex] + steps_[axis];
            while (candidate < last && keys_[candidate] < wanted) ++candidate;
            if (candidate == last) break;
            if (!(keys_[candidate] == wanted)) continue;
            // Either field is written by one cell only, whatever cells other threads are at.
            neighbours[vertex].next = static_cast<std::int32_t>(candidate);
            neighbours[candidate].previous = static_cast<std::int32_t>(vertex);
        }
    }
}

template class LatticeBuilder<1>;
template class LatticeBuilder<2>;
template class LatticeBuilder<8>;
template class LatticeBuilder<16>;
template class LatticeBuilder<64>;
template class LatticeBuilder<512>;

}  // namespace atrous
