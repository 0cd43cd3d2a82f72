// Compiled once per instruction set by embed_kernels.cpp.

#include "native/lanes.inl"

/// Position on the lattice plane: e_j = sm − j·f_{j−1}·s_{j−1} for j = d…1, e_0 = sm.
template <int fixed>
ATROUS_INLINE void elevate(const EmbedTile& tile, const float* scale, int runtime_features, int column,
                           Float8* elevated) {
    const int d = fixed > 0 ? fixed : runtime_features;
    Float8 sum{};
    for (int j = d; j > 0; --j) {
        const Float8 scaled = load<Float8>(tile.features[j - 1] + column) * scale[j - 1];
        elevated[j] = sum - static_cast<float>(j) * scaled;
        sum = sum + scaled;
    }
    elevated[0] = sum;
}

/// Nearest point whose coordinates are multiples of d+1, and the order of the distances to it. Moving the point back
/// onto the plane (coordinate sum 0) shifts the ranks with it.
template <int fixed>
ATROUS_INLINE void find_simplex(int runtime_features, const Float8* elevated, Float8* origin, Int8* rank) {
    const int d = fixed > 0 ? fixed : runtime_features;
    const float size = static_cast<float>(d + 1);
    const float inverse_size = 1.0f / size;
    Int8 excess{};
    for (int i = 0; i <= d; ++i) {
        const Float8 nearest = round_even(elevated[i] * inverse_size);
        origin[i] = nearest * size;
        excess += __builtin_convertvector(nearest, Int8);
        rank[i] = Int8{};
    }
    for (int i = 0; i < d; ++i) {
        const Float8 distance = elevated[i] - origin[i];
        for (int j = i + 1; j <= d; ++j) {
            const Int8 behind = distance < elevated[j] - origin[j];  // -1 where true
            rank[i] -= behind;
            rank[j] += behind + 1;
        }
    }
    const Int8 period = Int8{} + (d + 1);
    for (int i = 0; i <= d; ++i) {
        rank[i] += excess;
        const Int8 below = rank[i] < 0;
        const Int8 above = rank[i] > d;
        const Int8 shift = (below & period) - (above & period);
        rank[i] += shift;
        origin[i] += __builtin_convertvector(shift, Float8);
    }
}

/// Barycentric weights are differences of consecutive ranked distances.
template <int fixed>
ATROUS_INLINE void weigh(EmbedTile& tile, int runtime_features, int column, const Float8* elevated,
                         const Float8* origin, const Int8* rank) {
    const int d = fixed > 0 ? fixed : runtime_features;
    const float inverse_size = 1.0f / static_cast<float>(d + 1);
    Float8 first{};
    Float8 previous{};
    for (int r = 0; r <= d; ++r) {
        Float8 distance{};
        Int8 axis{};
        for (int i = 0; i <= d; ++i) {
            const Int8 here = rank[i] == r;
            distance = here ? (elevated[i] - origin[i]) * inverse_size : distance;
            axis |= here & i;
        }
        __builtin_memcpy(tile.axis_of_rank[r] + column, &axis, sizeof axis);
        if (r == 0) {
            first = distance;
        } else {
            store(tile.weights[d - r + 1] + column, previous - distance);
        }
        previous = distance;
    }
    store(tile.weights[0] + column, previous + (1.0f - first));
}

/// Eight pixels at a time: `elevated`, `origin` and `rank` are [d + 1] each, of one time.
template <int fixed>
ATROUS_INLINE bool embed_columns(EmbedTile& tile, int runtime_features, int count, float limit, float* scale,
                                 Float8* elevated, Float8* origin, Int8* rank) {
    const int d = fixed > 0 ? fixed : runtime_features;
    // s_i = √(2/3)·(d+1) / √((i+1)(i+2)), rounded as pydensecrf does
    const float spread = static_cast<float>(std::sqrt(2.0 / 3.0) * (d + 1));
    for (int i = 0; i < d; ++i) scale[i] = static_cast<float>(1.0 / std::sqrt((i + 1.0) * (i + 2.0)) * spread);
    Int8 bad{};
    for (int column = 0; column < count; column += 8) {
        elevate<fixed>(tile, scale, d, column, elevated);
        for (int i = 0; i <= d; ++i) {
            // Written so that NaN counts as out of range.
            bad |= ~((elevated[i] <= splat8(limit)) & (elevated[i] >= splat8(-limit)));
        }
        find_simplex<fixed>(d, elevated, origin, rank);
        weigh<fixed>(tile, d, column, elevated, origin, rank);
        for (int i = 0; i <= d; ++i) {
            const Int8 rounded = __builtin_convertvector(origin[i], Int8);
            __builtin_memcpy(tile.origin[i] + column, &rounded, sizeof rounded);
        }
    }
    for (int lane = 0; lane < 8; ++lane) {
        if (bad[lane] != 0) return false;
    }
    return true;
}

/// A number of features that the compiler knows: everything between is in registers or on the stack.
template <int d>
static bool embed_features(EmbedTile& tile, int count, float limit) {
    float scale[d];
    Float8 elevated[d + 1];
    Float8 origin[d + 1];
    Int8 rank[d + 1];
    return embed_columns<d>(tile, d, count, limit, scale, elevated, origin, rank);
}

static bool embed_any_number(EmbedTile& tile, int d, int count, float limit) {
    static_assert(EmbedTile::kScratchLanes * sizeof(float) == sizeof(Float8));
    auto* const elevated = reinterpret_cast<Float8*>(tile.scratch);
    auto* const origin = elevated + d + 1;
    auto* const rank = reinterpret_cast<Int8*>(origin + d + 1);
    auto* const scale = reinterpret_cast<float*>(rank + d + 1);
    return embed_columns<0>(tile, d, count, limit, scale, elevated, origin, rank);
}

static bool embed(EmbedTile& tile, int features, int count, float limit) {
    if (features == 5) return embed_features<5>(tile, count, limit);
    if (features == 2) return embed_features<2>(tile, count, limit);
    return embed_any_number(tile, features, count, limit);
}

static constexpr EmbedKernels kEmbedKernels{embed};
