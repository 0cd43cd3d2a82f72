// Lattice coordinates packed into machine words. All fields stay in range (the embedding is checked first), so moving
// a point is one addition a word, and fields never carry into each other.
#pragma once

#include <algorithm>
#include <cstdint>

namespace atrous {

/// d coordinates of `bits` bits each, biased to be non-negative; the coordinate d is redundant (the sum is 0).
template <int words>
struct VertexKey {
    std::uint64_t word[words];

    friend bool operator==(const VertexKey& a, const VertexKey& b) {
        std::uint64_t difference = 0;
        for (int w = 0; w < words; ++w) difference |= a.word[w] ^ b.word[w];
        return difference == 0;
    }
    /// Moving two points by the same step keeps their order.
    friend bool operator<(const VertexKey& a, const VertexKey& b) {
        return std::lexicographical_compare(a.word, a.word + words, b.word, b.word + words);
    }
    friend VertexKey operator+(VertexKey a, const VertexKey& b) {
        for (int w = 0; w < words; ++w) a.word[w] += b.word[w];
        return a;
    }
    /// Bits that spread over the whole word; tables use the top ones.
    std::uint64_t hash() const {
        std::uint64_t mixed = word[0] * 0x9E3779B97F4A7C15u;
        for (int w = 1; w < words; ++w) mixed = ((mixed ^ (mixed >> 32)) + word[w]) * 0x9E3779B97F4A7C15u;
        return mixed ^ (mixed >> 29);
    }
};

/// How the coordinates of one lattice are packed, and the steps between its points.
template <int words>
class KeyLayout {
  public:
    using Key = VertexKey<words>;

    KeyLayout(int features, int bits) : features_(features), bits_(bits), per_word_(64 / bits) {}

    int features() const { return features_; }

    /// The features whose coordinates fit.
    static constexpr int max_features(int bits) { return words * (64 / bits); }

    /// Coordinates that any lattice point, and each of its neighbours, may have: the room left by two moves.
    float limit() const { return static_cast<float>((1 << (bits_ - 1)) - 1 - 3 * (features_ + 1)); }

    /// The packed point whose coordinate i is coordinates[i · stride].
    Key pack(const std::int32_t* coordinates, int stride) const {
        Key key{};
        const std::int32_t bias = 1 << (bits_ - 1);
        for (int i = 0; i < features_; ++i) {
            const auto field = static_cast<std::uint64_t>(coordinates[i * stride] + bias);
            key.word[i / per_word_] |= field << (i % per_word_ * bits_);
        }
        return key;
    }

    /// Coordinate `axis` of a packed point, in 0…features.
    std::int32_t coordinate(const Key& key, int axis) const {
        if (axis == features_) {
            std::int32_t sum = 0;
            for (int i = 0; i < features_; ++i) sum += coordinate(key, i);
            return -sum;
        }
        const std::uint64_t field = key.word[axis / per_word_] >> (axis % per_word_ * bits_);
        return static_cast<std::int32_t>(field & ((std::uint64_t{1} << bits_) - 1)) - (1 << (bits_ - 1));
    }

    /// The move to the next point along `axis`: +1 on every coordinate, −d on its own. It also leads from the vertex of
    /// remainder k of a simplex to that of remainder k+1, along the axis of rank d−k.
    Key step(int axis) const {
        Key key{};
        for (int i = 0; i < features_; ++i) {
            const auto times = i == axis ? -static_cast<std::int64_t>(features_) : 1;
            key.word[i / per_word_] += static_cast<std::uint64_t>(times) << (i % per_word_ * bits_);
        }
        return key;
    }

  private:
    int features_;
    int bits_;
    int per_word_;
};

}  // namespace atrous
