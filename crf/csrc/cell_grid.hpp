// The order in which lattice vertices are numbered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "vertex_key.hpp"

namespace atrous {

/// Cuts the lattice into cells along its first two features, which for images are x and y.
///
/// With k the coordinates of a point, k_0 − k_1 is proportional to feature 0 and k_0 + k_1 − 2·k_2 to feature 1. A step
/// along a lattice axis changes both by multiples of d+1, and cells are d+1 wide, so a step leads from all points of
/// one cell to one other cell. Numbered by cell and, within a cell, by packed coordinates,
/// - vertices of nearby pixels lie near each other in memory, and so do the neighbours of nearby vertices;
/// - a step keeps the order, so the neighbours along an axis are found by merging two sorted runs.
template <int words>
class CellGrid {
  public:
    using Key = VertexKey<words>;

    explicit CellGrid(const KeyLayout<words>& layout) : layout_(layout), period_(layout.features() + 1) {}

    /// Widens the grid to contain `key`.
    void include(const Key& key) {
        low_[0] = std::min(low_[0], along_x(key));
        low_[1] = std::min(low_[1], along_y(key));
        high_[0] = std::max(high_[0], along_x(key));
        high_[1] = std::max(high_[1], along_y(key));
    }
    void include(const CellGrid& other) {
        for (int i = 0; i < 2; ++i) {
            low_[i] = std::min(low_[i], other.low_[i]);
            high_[i] = std::max(high_[i], other.high_[i]);
        }
    }

    /// Fixes the number of cells, about as many points as pixels presumed: fewer, longer cells when most would hold no
    /// more than a few.
    void settle(std::int64_t pixels) {
        columns_ = (high_[0] - low_[0]) / period_ + 1;
        rows_ = (high_[1] - low_[1]) / period_ + 1;
        if (columns_ * rows_ * kPointsPerCell > pixels) columns_ = 1;
        if (rows_ * kPointsPerCell > pixels) rows_ = 1;
    }

    std::int64_t cells() const { return columns_ * rows_; }

    std::int64_t cell(const Key& key) const {
        const std::int64_t column = columns_ > 1 ? (along_x(key) - low_[0]) / period_ : 0;
        const std::int64_t row = rows_ > 1 ? (along_y(key) - low_[1]) / period_ : 0;
        return row * columns_ + column;
    }

    /// The cell that a step along `axis` leads to from `cell`, or -1 when that is outside.
    std::int64_t neighbour(std::int64_t cell, int axis) const {
        const auto move = [&](int i) -> std::int64_t { return i == axis ? -layout_.features() : 1; };
        const std::int64_t step_x = layout_.features() > 0 ? (move(0) - move(1)) / period_ : 0;
        const std::int64_t step_y = layout_.features() > 1 ? (move(0) + move(1) - 2 * move(2)) / period_ : 0;
        const std::int64_t column = cell % columns_ + (columns_ > 1 ? step_x : 0);
        const std::int64_t row = cell / columns_ + (rows_ > 1 ? step_y : 0);
        const bool inside = column >= 0 && column < columns_ && row >= 0 && row < rows_;
        return inside ? row * columns_ + column : -1;
    }

  private:
    static constexpr std::int64_t kPointsPerCell = 16;

    std::int32_t along_x(const Key& key) const { return layout_.coordinate(key, 0) - layout_.coordinate(key, 1); }
    std::int32_t along_y(const Key& key) const {
        if (layout_.features() < 2) return 0;
        return layout_.coordinate(key, 0) + layout_.coordinate(key, 1) - 2 * layout_.coordinate(key, 2);
    }

    KeyLayout<words> layout_;
    std::int32_t period_;
    std::int32_t low_[2] = {std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::max()};
    std::int32_t high_[2] = {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::min()};
    std::int64_t columns_ = 1;
    std::int64_t rows_ = 1;
};

}  // namespace atrous
