// Builds a Lattice. Every step gives the same arrays whatever the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "cell_grid.hpp"
#include "features.hpp"
#include "lattice.hpp"
#include "native/buffer.hpp"
#include "native/page_allocator.hpp"
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

    /// One worker's range of pixels and the points that it met there. Points on a border are met by several workers.
    struct Share {
        std::int64_t begin, end;
        VertexTable<words> table;
        PageVector<Key> points;            ///< as met: a point's index is its local number
        PageVector<std::int32_t> entries;  ///< of each point: how many corners lie on it, then where the next one goes
        PageVector<std::int32_t> numbers;  ///< of each point: its cell, then its vertex
        std::vector<std::int64_t> cell_cursors;
        CellGrid<words> grid;
    };

    /// A point of one share on its way to its vertex number.
    struct Candidate {
        Key key;
        std::int32_t share, local;
    };

    void pack_corners(const EmbedTile& tile, int column, const KeyLayout<words>& layout, Key* keys) const;
    bool collect(Lattice& lattice, const FeatureSource& source, const KeyLayout<words>& layout, Share& share) const;
    void collect_ghost(Lattice& lattice, const KeyLayout<words>& layout, Share& share) const;
    void number_corners(const Key* keys, int corners, int count, std::int32_t* numbers, Share& share) const;
    void sort_into_cells(Lattice& lattice, int threads);
    void sort_cell(std::int64_t cell);
    void number_cell(std::int64_t cell);
    void number_vertices(Lattice& lattice, int threads);
    void fill_entries(Lattice& lattice, int threads);
    void fill_entries_of(std::int64_t index, Lattice& lattice);
    void cut_splat_pieces(Lattice& lattice) const;
    void find_neighbours(Lattice& lattice, int threads);
    void find_neighbours_of(std::int64_t cell, Lattice& lattice) const;

    std::vector<Key> steps_;  ///< the move to the next point along each axis
    std::vector<Share> shares_;
    CellGrid<words> grid_{KeyLayout<words>(1, 16)};
    Buffer<Candidate> candidates_;                                              ///< by cell, then by key, then by share
    std::vector<std::int64_t> cell_candidates_, cell_vertices_, cell_entries_;  ///< [cells + 1], where each cell begins
    Buffer<Key> keys_;                                                          ///< of the vertices
    Buffer<std::int32_t> first_entry_;                                          ///< [vertices + 1]
};

extern template class LatticeBuilder<1>;
extern template class LatticeBuilder<2>;
extern template class LatticeBuilder<8>;
extern template class LatticeBuilder<16>;
extern template class LatticeBuilder<64>;
extern template class LatticeBuilder<512>;

}  // namespace atrous
