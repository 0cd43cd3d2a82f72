// Builds a Lattice. Every step gives the same arrays whatever the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "cell_grid.hpp"
#include "features.hpp"
#include "lattice.hpp"
#include "vertex_key.hpp"
#include "vertex_table.hpp"

namespace atrous {

/// Construction for keys of `words` machine words. For one build.
template <int words>
class LatticeBuilder {
  public:
    /// False when coordinates do not fit `bits` bits each; the lattice is then unusable until the next build.
    bool build(Lattice& lattice, const FeatureSource& source, int bits, int threads);

  private:
    using Key = VertexKey<words>;
    using Table = VertexTable<words>;

    /// A lattice point on its way to its vertex number.
    struct Point {
        Key key;
        std::int32_t local;  ///< its index among the points of its partition
    };

    /// The points whose hash falls to one worker.
    struct Partition {
        Table table;
        std::vector<Point> points;         ///< as met
        std::vector<std::int32_t> vertex;  ///< index in points → vertex of the lattice
    };

    std::size_t partition_of(const Key& key) const { return (key.hash() & 0xffff) * partitions_.size() >> 16; }

    void pack_corners(const EmbedTile& tile, int column, const KeyLayout<words>& layout, Key* keys);
    bool embed(Lattice& lattice, const FeatureSource& source, const KeyLayout<words>& layout, int threads);
    void collect_points(Lattice& lattice, int threads);
    void collect_partition(Lattice& lattice, std::size_t self);
    void number_points(const KeyLayout<words>& layout, int threads);
    void number_cell(std::int64_t cell);
    void number_corners(Lattice& lattice, int threads);
    void sort_entries(Lattice& lattice, int threads);
    void fill_entries(Lattice& lattice, std::int64_t low, std::int64_t high);
    void find_neighbours(Lattice& lattice, int threads);
    void find_neighbours_of(std::int64_t cell, Lattice& lattice);

    std::vector<Key> steps_;  ///< the move to the next point along each axis
    Buffer<Key> keys_;        ///< [pixels, corners], and the corners of the ghost pixel if there is one
    std::vector<Partition> partitions_;
    CellGrid<words> grid_{KeyLayout<words>(1, 16)};
    Buffer<Point> points_;  ///< by cell, then by key: the index is the vertex
    std::vector<std::int64_t> cell_begins_;
    Buffer<std::int32_t> first_entry_;  ///< [vertices + 1]
};

extern template class LatticeBuilder<1>;
extern template class LatticeBuilder<2>;
extern template class LatticeBuilder<8>;

}  // namespace atrous
