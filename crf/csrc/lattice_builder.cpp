#include "lattice_builder.hpp"

#include <algorithm>
#include <atomic>
#include <numeric>

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

}  // namespace

template <int words>
bool LatticeBuilder<words>::build(Lattice& lattice, const FeatureSource& source, int bits, int threads) {
    const KeyLayout<words> layout(source.features(), bits);
    lattice.pixels_ = source.pixels();
    lattice.corners_ = source.features() + 1;
    if (!embed(lattice, source, layout, threads)) return false;
    collect_points(lattice, threads);
    number_points(layout, threads);
    number_corners(lattice, threads);
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

/// Finds the distinct points; the corners get numbers that are local to the partition of their point.
template <int words>
void LatticeBuilder<words>::collect_points(Lattice& lattice, int threads) {
    lattice.pixel_vertices_.resize(keys_.size());
    partitions_.resize(threads);
    parallel_pieces(threads, threads, [&](std::int64_t self) { collect_partition(lattice, self); });
    lattice.vertices_ = 0;
    for (const Partition& partition : partitions_) lattice.vertices_ += partition.points.size();
}

template <int words>
void LatticeBuilder<words>::collect_partition(Lattice& lattice, std::size_t self) {
    Partition& partition = partitions_[self];
    const auto total = static_cast<std::int64_t>(keys_.size());
    const std::int64_t corners = lattice.corners_;
    std::int32_t* numbers = lattice.pixel_vertices_.data();
    partition.table.clear();
    partition.points.clear();
    for (std::int64_t at = 0; at < total; ++at) {
        const Key key = keys_[at];
        if (partition_of(key) != self) continue;
        if (at >= corners && keys_[at - corners] == key) {  // pixels often share corners with their left neighbour
            numbers[at] = numbers[at - corners];
            continue;
        }
        const auto next = static_cast<std::int32_t>(partition.points.size());
        numbers[at] = partition.table.find_or_insert(key, next);
        if (numbers[at] == next) partition.points.push_back({key, next});
    }
}

/// Numbers the points by cell.
template <int words>
void LatticeBuilder<words>::number_points(const KeyLayout<words>& layout, int threads) {
    grid_ = CellGrid<words>(layout);
    std::int64_t total = 0;
    for (const Partition& partition : partitions_) {
        for (const Point& point : partition.points) grid_.include(point.key);
        total += partition.points.size();
    }
    grid_.settle(total);
    points_.resize(total);
    cell_begins_.assign(grid_.cells() + 1, 0);
    for (const Partition& partition : partitions_) {
        for (const Point& point : partition.points) ++cell_begins_[grid_.cell(point.key) + 1];
    }
    std::partial_sum(cell_begins_.begin(), cell_begins_.end(), cell_begins_.begin());
    std::vector<std::int64_t> cursor(cell_begins_.begin(), cell_begins_.end() - 1);
    for (const Partition& partition : partitions_) {
        for (const Point& point : partition.points) points_[cursor[grid_.cell(point.key)]++] = point;
    }
    for (Partition& partition : partitions_) partition.vertex.resize(partition.points.size());
    parallel_ranges(grid_.cells(), 16, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t cell = begin; cell < end; ++cell) number_cell(cell);
    });
}

/// Numbers the points of a cell in the order of their keys.
template <int words>
void LatticeBuilder<words>::number_cell(std::int64_t cell) {
    std::sort(points_.data() + cell_begins_[cell], points_.data() + cell_begins_[cell + 1],
              [](const Point& a, const Point& b) { return a.key < b.key; });
    for (std::int64_t vertex = cell_begins_[cell]; vertex < cell_begins_[cell + 1]; ++vertex) {
        const Point& point = points_[vertex];
        partitions_[partition_of(point.key)].vertex[point.local] = static_cast<std::int32_t>(vertex);
    }
}

/// Replaces the partitions' numbers of the corners by vertices.
template <int words>
void LatticeBuilder<words>::number_corners(Lattice& lattice, int threads) {
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
    const auto total = static_cast<std::int64_t>(keys_.size());
    const std::int32_t* vertices = lattice.pixel_vertices_.data();
    first_entry_.resize(lattice.vertices_ + 1);
    lattice.entries_.resize(total);
    std::fill(first_entry_.begin(), first_entry_.end(), 0);
    const auto border = [&](std::int64_t worker) { return lattice.vertices_ * worker / threads; };
    parallel_pieces(threads, threads, [&](std::int64_t self) {
        const std::int64_t low = border(self);
        const std::int64_t high = border(self + 1);
        for (std::int64_t at = 0; at < total; ++at) {
            if (vertices[at] >= low && vertices[at] < high) ++first_entry_[vertices[at]];
        }
    });
    std::int32_t sum = 0;
    for (std::int32_t& entry : first_entry_) {
        const std::int32_t count = entry;
        entry = sum;
        sum += count;
    }
    parallel_pieces(threads, threads,
                    [&](std::int64_t self) { fill_entries(lattice, border(self), border(self + 1)); });
    lattice.splat_pieces_.clear();
    for (std::int64_t vertex = 0, begin = 0; vertex < lattice.vertices_; ++vertex) {
        const std::int64_t end = first_entry_[vertex + 1];
        if (end - first_entry_[begin] < kPieceEntries && vertex + 1 < lattice.vertices_) continue;
        lattice.splat_pieces_.push_back({first_entry_[begin], end, begin});
        begin = vertex + 1;
    }
}

/// Writes the entries of the vertices in [low, high).
template <int words>
void LatticeBuilder<words>::fill_entries(Lattice& lattice, std::int64_t low, std::int64_t high) {
    const auto total = static_cast<std::int64_t>(keys_.size());
    const std::int64_t real = lattice.pixels_ * lattice.corners_;
    const std::int32_t* vertices = lattice.pixel_vertices_.data();
    std::vector<std::int32_t> cursor(first_entry_.data() + low, first_entry_.data() + high);
    std::int32_t pixel = 0;
    int corner = 0;
    for (std::int64_t at = 0; at < total; ++at) {
        const std::int32_t vertex = vertices[at];
        if (vertex >= low && vertex < high) {
            const std::int32_t entry = cursor[vertex - low]++;
            // The ghost adds nothing, but its vertices get an entry like all others.
            const std::int32_t source = at < real ? pixel : 0;
            lattice.entries_[entry].pixel = entry == first_entry_[vertex] ? ~source : source;
            lattice.entries_[entry].weight = at < real ? lattice.pixel_weights_[at] : 0.0f;
        }
        if (++corner == lattice.corners_) {
            corner = 0;
            ++pixel;
        }
    }
}

template <int words>
void LatticeBuilder<words>::find_neighbours(Lattice& lattice, int threads) {
    lattice.neighbours_.resize(steps_.size());
    const auto none = static_cast<std::int32_t>(lattice.vertices_);  // the row of zeros
    for (Buffer<Neighbours>& axis : lattice.neighbours_) {
        axis.resize(lattice.vertices_);
        std::fill(axis.begin(), axis.end(), Neighbours{none, none});
    }
    parallel_ranges(grid_.cells(), 16, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t cell = begin; cell < end; ++cell) find_neighbours_of(cell, lattice);
    });
}

/// Merges the points of one cell, moved a step along each axis, with those of the cell that the step leads to.
template <int words>
void LatticeBuilder<words>::find_neighbours_of(std::int64_t cell, Lattice& lattice) {
    for (int axis = 0; axis < static_cast<int>(steps_.size()); ++axis) {
        const std::int64_t other = grid_.neighbour(cell, axis);
        if (other < 0) continue;
        Buffer<Neighbours>& neighbours = lattice.neighbours_[axis];
        std::int64_t candidate = cell_begins_[other];
        const std::int64_t last = cell_begins_[other + 1];
        for (std::int64_t vertex = cell_begins_[cell]; vertex < cell_begins_[cell + 1]; ++vertex) {
            const Key wanted = points_[vertex].key + steps_[axis];
            while (candidate < last && points_[candidate].key < wanted) ++candidate;
            if (candidate == last) break;
            if (!(points_[candidate].key == wanted)) continue;
            // Either field is written by one cell only, whatever cells other threads are at.
            neighbours[vertex].next = static_cast<std::int32_t>(candidate);
            neighbours[candidate].previous = static_cast<std::int32_t>(vertex);
        }
    }
}

template class LatticeBuilder<1>;
template class LatticeBuilder<2>;
template class LatticeBuilder<8>;

}  // namespace atrous
