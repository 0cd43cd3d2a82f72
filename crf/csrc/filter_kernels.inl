// Compiled once per instruction set by filter_kernels.cpp.

#include "lanes.inl"

/// Calls `body<V, blocks>(offset)` for groups of at most 8 vectors that together cover a row of `stride` floats.
template <typename Body>
ATROUS_INLINE void for_channel_groups(int stride, const Body& body) {
    if (stride == 1) return body.template operator()<float, 1>(0);
    if (stride == 4) return body.template operator()<Float4, 1>(0);
    int offset = 0;
    for (; stride - offset > 64; offset += 64) body.template operator()<Float8, 8>(offset);
    switch ((stride - offset) / 8) {
        case 1:
            return body.template operator()<Float8, 1>(offset);
        case 2:
            return body.template operator()<Float8, 2>(offset);
        case 3:
            return body.template operator()<Float8, 3>(offset);
        case 4:
            return body.template operator()<Float8, 4>(offset);
        case 5:
            return body.template operator()<Float8, 5>(offset);
        case 6:
            return body.template operator()<Float8, 6>(offset);
        case 7:
            return body.template operator()<Float8, 7>(offset);
        default:
            return body.template operator()<Float8, 8>(offset);
    }
}

/// `blocks` vectors of one row, meant to live in registers.
template <typename V, int blocks>
struct Row {
    static constexpr int kLanes = sizeof(V) / sizeof(float);
    V block[blocks];

    ATROUS_INLINE Row zero() {
        Row row;
        for (int b = 0; b < blocks; ++b) row.block[b] = V{};
        return row;
    }
    ATROUS_INLINE Row load_from(const float* from) {
        Row row;
        for (int b = 0; b < blocks; ++b) row.block[b] = load<V>(from + b * kLanes);
        return row;
    }
    inline __attribute__((always_inline)) void store_to(float* to) const {
        for (int b = 0; b < blocks; ++b) store<V>(to + b * kLanes, block[b]);
    }
    inline __attribute__((always_inline)) void add_scaled(float weight, const float* from) {
        for (int b = 0; b < blocks; ++b) block[b] += weight * load<V>(from + b * kLanes);
    }
};

struct SplatBody {
    const std::int32_t* first_entry;
    const SplatEntry* entries;
    const float* rows;
    std::int64_t stride, begin, end;
    float* values;

    template <typename V, int blocks>
    void operator()(int offset) const {
        std::int32_t entry = first_entry[begin];
        for (std::int64_t vertex = begin; vertex < end; ++vertex) {
            auto sum = Row<V, blocks>::zero();
            for (const std::int32_t last = first_entry[vertex + 1]; entry < last; ++entry) {
                sum.add_scaled(entries[entry].weight, rows + entries[entry].pixel * stride + offset);
            }
            sum.store_to(values + vertex * stride + offset);
        }
    }
};

static void splat(const std::int32_t* first_entry, const SplatEntry* entries, const float* rows, int stride,
                  std::int64_t begin, std::int64_t end, float* values) {
    for_channel_groups(stride, SplatBody{first_entry, entries, rows, stride, begin, end, values});
}

struct BlurBody {
    const std::int32_t* sequence;
    std::int64_t begin, end, stride;
    float* values;

    template <typename V, int blocks>
    void operator()(int offset) const {
        using R = Row<V, blocks>;
        float* base = values + offset;
        for (std::int64_t at = begin; at < end; ++at) {
            // Each vertex is read once and written once: its old value is still here when the next one needs it.
            R before = R::zero();
            float* address = base + sequence[at] * stride;
            R current = R::load_from(address);
            for (bool more = true; more;) {
                const std::int32_t coded = sequence[++at];
                more = coded >= 0;
                float* next_address = base + (more ? coded : ~coded) * stride;
                const R next = R::load_from(next_address);
                R blurred;
                for (int b = 0; b < blocks; ++b) {
                    blurred.block[b] = current.block[b] + 0.5f * (before.block[b] + next.block[b]);
                }
                blurred.store_to(address);
                before = current;
                current = next;
                address = next_address;
            }
            for (int b = 0; b < blocks; ++b) current.block[b] += 0.5f * before.block[b];
            current.store_to(address);
        }
    }
};

static void blur(const std::int32_t* sequence, std::int64_t begin, std::int64_t end, int stride, float* values) {
    for_channel_groups(stride, BlurBody{sequence, begin, end, stride, values});
}

struct SliceBody {
    const std::int32_t* vertices;
    const float* weights;
    int corners;
    const float* values;
    std::int64_t stride;
    const float* scale;
    std::int64_t begin, end;
    float* out;

    template <typename V, int blocks, int fixed_corners>
    void run(int offset) const {
        using R = Row<V, blocks>;
        const int count = fixed_corners > 0 ? fixed_corners : corners;
        const R scales = R::load_from(scale + offset);
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
            R sum = R::zero();
            for (int j = 0; j < count; ++j) {
                const std::int64_t at = pixel * count + j;
                sum.add_scaled(weights[at], values + vertices[at] * stride + offset);
            }
            float* target = out + (pixel - begin) * stride + offset;
            R total = R::load_from(target);
            for (int b = 0; b < blocks; ++b) total.block[b] += scales.block[b] * sum.block[b];
            total.store_to(target);
        }
    }

    template <typename V, int blocks>
    void operator()(int offset) const {
        if (corners == 6) return run<V, blocks, 6>(offset);  // bilateral: (x, y, r, g, b)
        if (corners == 3) return run<V, blocks, 3>(offset);  // Gaussian: (x, y)
        run<V, blocks, 0>(offset);
    }
};

static void slice(const std::int32_t* vertices, const float* weights, int corners, const float* values, int stride,
                  const float* scale, std::int64_t begin, std::int64_t end, float* out) {
    for_channel_groups(stride, SliceBody{vertices, weights, corners, values, stride, scale, begin, end, out});
}

/// Rows of up to 4 channels: one pixel a time, padded to a full vector.
static void softmax_narrow(const float* logits, int stride, std::int64_t count, float* rows) {
    for (std::int64_t i = 0; i < count; ++i) {
        Float8 x = splat8(kPaddingLogit);
        for (int c = 0; c < stride; ++c) x[c] = logits[i * stride + c];
        float largest = x[0];
        for (int c = 1; c < stride; ++c) largest = x[c] > largest ? x[c] : largest;
        const Float8 e = exp_nonpositive(x - largest);
        float sum = 0.0f;
        for (int c = 0; c < stride; ++c) sum += e[c];
        for (int c = 0; c < stride; ++c) rows[i * stride + c] = e[c] / sum;
    }
}

ATROUS_INLINE float horizontal_max(Float8 v) {
    float largest = v[0];
    for (int c = 1; c < 8; ++c) largest = v[c] > largest ? v[c] : largest;
    return largest;
}

ATROUS_INLINE float horizontal_sum(Float8 v) {
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

static void softmax(const float* logits, int stride, std::int64_t count, float* rows) {
    if (stride < 8) return softmax_narrow(logits, stride, count, rows);
    for (std::int64_t i = 0; i < count; ++i) {
        const float* in = logits + i * stride;
        float* out = rows + i * stride;
        Float8 largest = load<Float8>(in);
        for (int c = 8; c < stride; c += 8) largest = max8(largest, load<Float8>(in + c));
        const float peak = horizontal_max(largest);
        Float8 sums{};
        for (int c = 0; c < stride; c += 8) {
            const Float8 e = exp_nonpositive(load<Float8>(in + c) - peak);
            store(out + c, e);
            sums += e;
        }
        const float scale = 1.0f / horizontal_sum(sums);
        for (int c = 0; c < stride; c += 8) store(out + c, load<Float8>(out + c) * scale);
    }
}

static void log_clipped(float* values, std::int64_t count, float floor) {
    const Float8 low = splat8(floor);
    const Float8 high = splat8(1.0f);
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const Float8 p = max8(load<Float8>(values + i), low);
        store(values + i, log_positive(p < high ? p : high));
    }
    for (; i < count; ++i) {
        const Float8 p = max8(splat8(values[i]), low);
        values[i] = log_positive(p < high ? p : high)[0];
    }
}

static bool all_finite(const float* values, std::int64_t count) {
    // Times zero, finite numbers vanish and the others become NaN, which sticks.
    Float8 sums{};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) sums += load<Float8>(values + i) * 0.0f;
    float sum = horizontal_sum(sums);
    for (; i < count; ++i) sum += values[i] * 0.0f;
    return sum == 0.0f;
}

static constexpr FilterKernels kFilterKernels{splat, blur, slice, softmax, log_clipped, all_finite};
