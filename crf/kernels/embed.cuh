// Pixels → lattice points → hash table (Adams, Baek & Davis 2010, §3.1 and §3.3).
#pragma once

#include "common.cuh"

namespace atrous {

/// A lattice point in one 64-bit word.
///
/// The d+1 coordinates of a point are all congruent to its remainder r modulo d+1, and they sum to 0. So a point is
/// r and the quotients m_i of its first d coordinates, k_i = (d+1)·m_i + r: a factor d+1 more range for the same bits
/// than storing k_i. From the lowest bit: r, m_0 … m_{d−1} (biased), the index of the image in its batch.
template <int d>
struct PointKey {
    static constexpr int kRemainderBits = d == 2 ? 2 : 3;
    static constexpr int kQuotientBits = d == 2 ? 20 : 11;
    static constexpr int kImageShift = kRemainderBits + d * kQuotientBits;
    static constexpr int kBias = 1 << (kQuotientBits - 1);
    /// Room for the corners of a simplex and their neighbours.
    static constexpr int kLimit = kBias - 4;
    static_assert(d + 1 < (1 << kRemainderBits), "the remainder is never all ones, so no key is kNoPoint");
    static_assert(kImageShift <= 58, "64 images");

    __device__ static uint64_t unit(int axis) {
        return axis < d ? uint64_t{1} << (kRemainderBits + axis * kQuotientBits) : 0;
    }

    __device__ static uint64_t all_units() {
        uint64_t sum = 0;
        for (int axis = 0; axis < d; ++axis) sum += unit(axis);
        return sum;
    }

    /// The point at +1 on every coordinate and −d on that of `axis`.
    __device__ static uint64_t next(uint64_t key, int axis) {
        const int remainder = static_cast<int>(key & ((1 << kRemainderBits) - 1));
        const uint64_t moved = remainder == d ? key - d + all_units() : key + 1;
        return moved - unit(axis);
    }
};

constexpr uint64_t kNoPoint = ~uint64_t{0};
/// No occupied run of a table that is at most half full gets near this long.
constexpr int kMaxProbes = 1024;

/// Open-addressing hash table of 2^bits slots, emptied by filling all of it with ones.
struct PointTable {
    unsigned long long* keys;  ///< kNoPoint: empty
    uint32_t* first;           ///< smallest corner (point · (d+1) + remainder) that meets the point
    int bits;

    __device__ uint32_t start(uint64_t key) const {
        uint64_t mixed = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15u;
        mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9u;
        return static_cast<uint32_t>(mixed >> (64 - bits));
    }
    __device__ uint32_t after(uint32_t slot) const { return (slot + 1) & ((1u << bits) - 1); }

    /// Slot of `key`, or −1.
    __device__ int find(uint64_t key) const {
        uint32_t slot = start(key);
        for (int probe = 0; probe < kMaxProbes; ++probe, slot = after(slot)) {
            const uint64_t there = keys[slot];
            if (there == key) return static_cast<int>(slot);
            if (there == kNoPoint) break;
        }
        return -1;
    }

    /// Slot of `key`, taken if need be, or −1 when the table is full. Slots are never freed, so a slot that is seen
    /// to hold another key does so for good, and one atomic operation a probe is enough.
    __device__ int insert(uint64_t key, uint32_t corner) const {
        uint32_t slot = start(key);
        for (int probe = 0; probe < kMaxProbes; ++probe, slot = after(slot)) {
            uint64_t there = *static_cast<volatile unsigned long long*>(keys + slot);
            if (there == kNoPoint) there = atomicCAS(keys + slot, kNoPoint, key);
            if (there != kNoPoint && there != key) continue;
            // Only ever decreases: one that is seen to be small enough stays so.
            if (*static_cast<volatile uint32_t*>(first + slot) > corner) atomicMin(first + slot, corner);
            return static_cast<int>(slot);
        }
        return -1;
    }
};

/// s_i = √(2/3)·(d+1) / √((i+1)(i+2)), rounded as pydensecrf does; a test compares them with the formula.
template <int d>
__device__ inline float position_scale(int i) {
    constexpr float plane[2] = {1.7320509f, 1.0f};
    constexpr float space[5] = {3.4641018f, 2.0f, 1.4142137f, 1.0954452f, 0.89442724f};
    return d == 2 ? plane[i] : space[i];
}

/// The enclosing simplex of one feature vector.
template <int d>
struct Simplex {
    int quotient[d + 1];      ///< of the corner with remainder 0
    int axis_of_rank[d + 1];  ///< from corner j to j+1 the quotient of axis_of_rank[d − j] falls by one
    float weight[d + 1];      ///< barycentric, by remainder

    /// False when a coordinate is out of range or not finite. The arithmetic is that of crf/csrc/embed_kernels.inl,
    /// operation for operation.
    __device__ bool enclose(const float (&feature)[d]) {
        float elevated[d + 1];
        float sum = 0.0f;
        for (int j = d; j > 0; --j) {
            const float scaled = feature[j - 1] * position_scale<d>(j - 1);
            elevated[j] = sum - static_cast<float>(j) * scaled;
            sum += scaled;
        }
        elevated[0] = sum;

        float origin[d + 1];
        int rank[d + 1];
        int excess = 0;
        bool in_range = true;
        for (int i = 0; i <= d; ++i) {
            const float nearest = rintf(elevated[i] * (1.0f / static_cast<float>(d + 1)));
            // Written so that NaN counts as out of range.
            in_range = in_range && fabsf(nearest) <= static_cast<float>(PointKey<d>::kLimit);
            quotient[i] = in_range ? static_cast<int>(nearest) : 0;
            origin[i] = nearest * static_cast<float>(d + 1);
            excess += quotient[i];
            rank[i] = 0;
        }
        if (!in_range) return false;
        find_ranks(elevated, origin, rank, excess);
        find_weights(elevated, origin, rank);
        return true;
    }

  private:
    /// Orders the axes by distance to the nearest remainder-0 point, and moves that point back onto the plane where
    /// the coordinates sum to 0.
    __device__ void find_ranks(const float (&elevated)[d + 1], float (&origin)[d + 1], int (&rank)[d + 1], int excess) {
        for (int i = 0; i < d; ++i) {
            for (int j = i + 1; j <= d; ++j) {
                const bool behind = elevated[i] - origin[i] < elevated[j] - origin[j];
                rank[i] += behind ? 1 : 0;
                rank[j] += behind ? 0 : 1;
            }
        }
        for (int i = 0; i <= d; ++i) {
            rank[i] += excess;
            const int turns = (rank[i] < 0 ? 1 : 0) - (rank[i] > d ? 1 : 0);
            rank[i] += turns * (d + 1);
            quotient[i] += turns;
            origin[i] += static_cast<float>(turns * (d + 1));
        }
    }

    __device__ void find_weights(const float (&elevated)[d + 1], const float (&origin)[d + 1],
                                 const int (&rank)[d + 1]) {
        float first = 0.0f;
        float previous = 0.0f;
        for (int r = 0; r <= d; ++r) {
            float distance = 0.0f;
            int axis = 0;
            for (int i = 0; i <= d; ++i) {  // a search instead of a dynamic index keeps all arrays in registers
                const bool here = rank[i] == r;
                distance = here ? (elevated[i] - origin[i]) * (1.0f / static_cast<float>(d + 1)) : distance;
                axis = here ? i : axis;
            }
            axis_of_rank[r] = axis;
            if (r == 0) {
                first = distance;
            } else {
                weight[d - r + 1] = previous - distance;
            }
            previous = distance;
        }
        weight[0] = previous + (1.0f - first);
    }
};

/// Pixels of one batch, and its ghosts: pydensecrf embeds pixels four at a time and fills the last four up with zero
/// features. The filler carries no value, but its vertices exist and the blur flows through them. So an image whose
/// pixels are not a multiple of four has one ghost; ghosts come after all pixels.
struct Batch {
    int width, area, images;

    __device__ int pixels() const { return area * images; }
    __device__ int points() const { return pixels() + (area % 4 != 0 ? images : 0); }
    __device__ bool is_ghost(int point) const { return point >= pixels(); }
    __device__ int image_of(int point) const { return is_ghost(point) ? point - pixels() : point / area; }
};

/// Enters the corners of the simplex around one pixel or ghost into the table.
template <int d>
__device__ void embed_point(const float (&feature)[d], int point, const Batch& batch, PointTable table, float* weights,
                            int32_t* slots, Status* status) {
    Simplex<d> simplex;
    if (!simplex.enclose(feature)) {
        atomicOr(&status->failures, kKeyRange);
        return;
    }
    using Key = PointKey<d>;
    uint64_t key = static_cast<uint64_t>(batch.image_of(point)) << Key::kImageShift;
    for (int i = 0; i < d; ++i) key += static_cast<uint64_t>(simplex.quotient[i] + Key::kBias) * Key::unit(i);
    for (int j = 0; j <= d; ++j) {
        const int corner = point * (d + 1) + j;
        const int slot = table.insert(key, static_cast<uint32_t>(corner));
        if (slot < 0) {
            atomicOr(&status->failures, kTableFull);
            return;
        }
        weights[corner] = batch.is_ghost(point) ? 0.0f : simplex.weight[j];
        slots[corner] = slot;
        key += 1 - Key::unit(simplex.axis_of_rank[d - j]);
    }
}

/// (x / sigma_xy, y / sigma_xy) of `images` images of height × width pixels.
extern "C" __global__ void crf_embed_gaussian(int height, int width, int images, float sigma_xy,
                                              unsigned long long* keys, uint32_t* first, int bits, float* weights,
                                              int32_t* slots, Status* status) {
    const Batch batch{width, height * width, images};
    for (int point = global_thread(); point < batch.points(); point += all_threads()) {
        float feature[2] = {};
        if (!batch.is_ghost(point)) {
            const int inside = point % batch.area;
            feature[0] = static_cast<float>(inside % width) / sigma_xy;
            feature[1] = static_cast<float>(inside / width) / sigma_xy;
        }
        embed_point<2>(feature, point, batch, {keys, first, bits}, weights, slots, status);
    }
}

/// (x / sigma_xy, y / sigma_xy, r / sigma_rgb, g / sigma_rgb, b / sigma_rgb); `rgb` is [images, height, width, 3].
extern "C" __global__ void crf_embed_bilateral(const uint8_t* rgb, int height, int width, int images, float sigma_xy,
                                               float sigma_rgb, unsigned long long* keys, uint32_t* first, int bits,
                                               float* weights, int32_t* slots, Status* status) {
    const Batch batch{width, height * width, images};
    for (int point = global_thread(); point < batch.points(); point += all_threads()) {
        float feature[5] = {};
        if (!batch.is_ghost(point)) {
            const int inside = point % batch.area;
            const uint8_t* colour = rgb + static_cast<size_t>(point) * 3;
            feature[0] = static_cast<float>(inside % width) / sigma_xy;
            feature[1] = static_cast<float>(inside / width) / sigma_xy;
            for (int c = 0; c < 3; ++c) feature[2 + c] = static_cast<float>(colour[c]) / sigma_rgb;
        }
        embed_point<5>(feature, point, batch, {keys, first, bits}, weights, slots, status);
    }
}

}  // namespace atrous
