// Builds a Lattice. Every step gives the same arrays whatever the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "features.hpp"
#include "lattice.hpp"
#include "vertex_key.hpp"
#include "vertex_table.hpp"

namespace atrous {

/// Construction for keys of `words` machine words; keeps its working memory for the next build.
template <int words>
class LatticeBuilder {
  public:
    /// False when coordinates do not fit `bits` bits each; the lattice is then unusable until the next build.
    bool build(Lattice& lattice, const FeatureSource& source, int bits, int threads);

  private:
    using Key = VertexKey<words>;
    using Table = VertexTable<words>;

    /// The points whose hash falls to one worker, numbered by the worker in scan order.
    struct Partition {
        Table table;
        std::vector<std::int32_t> first_touch;  ///< local number → index of the corner that met the point first
        std::vector<std::int32_t> vertex;       ///< local number → vertex of the lattice
    };

    std::size_t partition_of(const Key& key) const { return (key.hash() & 0xffff) * partitions_.size() >> 16; }

    void pack_corners(const EmbedTile& tile, int column, const KeyLayout<words>& layout, Key* keys);
    bool embed(Lattice& lattice, const FeatureSource& source, const KeyLayout<words>& layout, int threads);
    void find_vertices(Lattice& lattice, int threads);
    void collect_points(Partition& partition, std::size_t self, Lattice& lattice);
    void number_vertices(Lattice& lattice, int threads);
    void sort_entries(Lattice& lattice, int threads);
    void find_neighbours(Lattice& lattice, int threads);
    void link_chains(Lattice& lattice, int axis);

    std::vector<Key> steps_;  ///< the move to the next point along each axis
    Buffer<Key> keys_;        ///< [pixels, corners], and the corners of the ghost pixel if there is one
    std::vector<Partition> partitions_;
    Buffer<std::uint64_t> touched_;        ///< one bit a corner: set where a vertex is met first
    Buffer<std::int32_t> touched_before_;  ///< set bits before each word
    Buffer<Key> vertex_keys_;
    std::vector<Buffer<std::int32_t>> next_;          ///< [axis][vertex] → neighbour along the axis, or kMissing
    std::vector<Buffer<std::uint8_t>> has_previous_;  ///< [axis][vertex]
};

extern template class LatticeBuilder<1>;
extern template class LatticeBuilder<2>;
extern template class LatticeBuilder<8>;

}  // namespace atrous
