// Compiled once per instruction set by filter_kernels.cpp.

#include "native/lanes.inl"

/// Calls `body.run<V, groups>(offset)` for parts of a row of T that together cover it; a part fits the registers.
template <typename T, typename Body>
ATROUS_INLINE void for_parts_of_row(const ChannelLayout& layout, const Body& body) {
    if constexpr (std::is_same_v<T, float>) {
        if (layout.width == 1) return body.template run<float, 1>(0);
        if (layout.width == 4) return body.template run<Float4, 1>(0);
    }
    int group = 0;
    for (; layout.groups - group > 4; group += 4) body.template run<Float8, 4>(group * 8);
    switch (layout.groups - group) {
        case 1:
            return body.template run<Float8, 1>(group * 8);
        case 2:
            return body.template run<Float8, 2>(group * 8);
        case 3:
            return body.template run<Float8, 3>(group * 8);
        default:
            return body.template run<Float8, 4>(group * 8);
    }
}

/// Rows are visited in a scattered order, but the order is known: asking for them early hides the way to memory.
constexpr std::int64_t kEntriesAhead = 64;
constexpr std::int64_t kVerticesAhead = 16;

template <typename T>
ATROUS_INLINE void prefetch_row(const T* row, int channels) {
    constexpr int line = 64 / sizeof(T);
    for (int at = 0; at < channels; at += line) __builtin_prefetch(row + at);
    // Rows of fractions are not whole halves of a cache line, and may end in one more.
    if constexpr (sizeof(T) < sizeof(float)) __builtin_prefetch(row + channels - 1);
}

// Vertices have few entries, and randomly many. A branch at the last one would be mispredicted about once a vertex, and
// each time the look-ahead into memory would be lost: the loop over entries masks instead of branching.

template <typename T>
struct SplatBody {
    const SplatEntry* entries;
    std::int64_t begin, end, first_vertex, stride;
    const T* rows;
    T* values;

    template <typename V, int groups>
    void run(int offset) const {
        constexpr int width = sizeof(V) / sizeof(float);
        V sum[groups] = {};
        T* out = values + (first_vertex - 1) * stride + offset;
        for (std::int64_t at = begin; at < end; ++at) {
            const std::int32_t coded = entries[at].pixel;
            const std::int32_t is_first = coded >> 31;
            const T* row = rows + (coded ^ is_first) * stride + offset;
            const float weight = entries[at].weight;
            const std::int32_t later = entries[std::min(at + kEntriesAhead, end - 1)].pixel;
            prefetch_row(rows + (later ^ (later >> 31)) * stride + offset, groups * width);
            out += stride & is_first;
            for (int g = 0; g < groups; ++g) {
                sum[g] = masked(sum[g], ~is_first) + weight * load<V>(row + g * width);
                store(out + g * width, sum[g]);
            }
        }
    }
};

template <typename T>
static void splat(const SplatEntry* entries, std::int64_t begin, std::int64_t end, std::int64_t vertex,
                  const ChannelLayout& layout, const T* rows, T* values) {
    for_parts_of_row<T>(layout, SplatBody<T>{entries, begin, end, vertex, layout.padded(), rows, values});
}

struct SumBlurBody {
    const Neighbours* neighbours;
    std::int64_t begin, end, stride;
    const float* in;
    float* out;

    template <typename V, int groups>
    void run(int offset) const {
        constexpr int width = sizeof(V) / sizeof(float);
        for (std::int64_t vertex = begin; vertex < end; ++vertex) {
            const float* here = in + vertex * stride + offset;
            const float* previous = in + neighbours[vertex].previous * stride + offset;
            const float* next = in + neighbours[vertex].next * stride + offset;
            float* target = out + vertex * stride + offset;
            for (int at = 0; at < groups * width; at += width) {
                store(target + at, load<V>(here + at) + 0.5f * (load<V>(previous + at) + load<V>(next + at)));
            }
        }
    }
};

static void blur_sums(const Neighbours* neighbours, const Shares*, std::int64_t begin, std::int64_t end,
                      const ChannelLayout& layout, const float* in, float* out) {
    for_parts_of_row<float>(layout, SumBlurBody{neighbours, begin, end, layout.padded(), in, out});
}

struct FractionBlurBody {
    const Neighbours* neighbours;
    const Shares* shares;
    std::int64_t begin, end, stride;
    const Fraction* in;
    Fraction* out;

    template <typename V, int groups>
    void run(int offset) const {
        constexpr int width = sizeof(V) / sizeof(float);
        for (std::int64_t vertex = begin; vertex < end; ++vertex) {
            const Fraction* here = in + vertex * stride + offset;
            const Fraction* previous = in + neighbours[vertex].previous * stride + offset;
            const Fraction* next = in + neighbours[vertex].next * stride + offset;
            Fraction* target = out + vertex * stride + offset;
            const Neighbours& later = neighbours[std::min(vertex + kVerticesAhead, end - 1)];
            prefetch_row(in + later.previous * stride + offset, groups * width);
            prefetch_row(in + later.next * stride + offset, groups * width);
            const float of_previous = static_cast<float>(shares[vertex].previous) * (1.0f / kWhole);
            const float of_next = static_cast<float>(shares[vertex].next) * (1.0f / kWhole);
            const float of_here = 1.0f - (of_previous + of_next);
            for (int at = 0; at < groups * width; at += width) {
                const V around = of_previous * load<V>(previous + at) + of_next * load<V>(next + at);
                store(target + at, of_here * load<V>(here + at) + around);
            }
        }
    }
};

static void blur_fractions(const Neighbours* neighbours, const Shares* shares, std::int64_t begin, std::int64_t end,
                           const ChannelLayout& layout, const Fraction* in, Fraction* out) {
    for_parts_of_row<Fraction>(layout, FractionBlurBody{neighbours, shares, begin, end, layout.padded(), in, out});
}

template <typename T>
struct SliceBody {
    const std::int32_t* vertices;
    const float* weights;
    int corners;
    std::int64_t stride, begin, end;
    const T* values;
    const float* scale;
    float* out;

    template <typename V, int groups>
    void run(int offset) const {
        if (corners == 6) return run_corners<V, groups, 6>(offset);  // bilateral: (x, y, r, g, b)
        if (corners == 3) return run_corners<V, groups, 3>(offset);  // Gaussian: (x, y)
        run_corners<V, groups, 0>(offset);
    }

    template <typename V, int groups, int fixed_corners>
    void run_corners(int offset) const {
        constexpr int width = sizeof(V) / sizeof(float);
        const int count = fixed_corners > 0 ? fixed_corners : corners;
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
            V sum[groups] = {};
            for (int j = 0; j < count; ++j) {
                const std::int64_t at = pixel * count + j;
                const std::int32_t later = vertices[std::min(at + kEntriesAhead, end * count - 1)];
                prefetch_row(values + later * stride + offset, groups * width);
                const T* row = values + vertices[at] * stride + offset;
                for (int g = 0; g < groups; ++g) sum[g] += weights[at] * load<V>(row + g * width);
            }
            float* target = out + (pixel - begin) * stride + offset;
            for (int g = 0; g < groups; ++g) {
                const V scales = load<V>(scale + offset + g * width);
                store(target + g * width, load<V>(target + g * width) + scales * sum[g]);
            }
        }
    }
};

template <typename T>
static void slice(const Corners& corners, const ChannelLayout& layout, const T* values, const float* scale,
                  std::int64_t begin, std::int64_t end, float* out) {
    for_parts_of_row<T>(layout, SliceBody<T>{corners.vertices, corners.weights, corners.count, layout.padded(), begin,
                                             end, values, scale, out});
}

static void mix(const float* in, const float* matrix, const ChannelLayout& layout, std::int64_t count, float* out) {
    const int padded = layout.padded();
    for (std::int64_t i = 0; i < count; ++i) {
        for (int from = 0; from < layout.channels; ++from) {
            const float value = in[i * padded + from];
            for (int to = 0; to < padded; ++to) out[i * padded + to] += value * matrix[from * padded + to];
        }
    }
}

static void add_products(const float* a, const float* b, const ChannelLayout& layout, std::int64_t count, float* sums) {
    const int padded = layout.padded();
    for (std::int64_t i = 0; i < count; ++i) {
        for (int from = 0; from < layout.channels; ++from) {
            const float value = a[i * padded + from];
            for (int to = 0; to < padded; ++to) sums[from * padded + to] += value * b[i * padded + to];
        }
    }
}

/// Up to 4 channels, padded to a full vector.
static void softmax_narrow(const float* logits, int width, std::int64_t count, float* rows) {
    for (std::int64_t i = 0; i < count; ++i) {
        Float8 x = splat8(kPaddingLogit);
        for (int c = 0; c < width; ++c) x[c] = logits[i * width + c];
        const Float8 e = exp_nonpositive(x - max_of_lanes(x));
        const Float8 p = e / sum_of_lanes(e);
        for (int c = 0; c < width; ++c) rows[i * width + c] = p[c];
    }
}

template <typename T>
static void softmax(float* logits, const ChannelLayout& layout, std::int64_t count, T* rows) {
    if constexpr (std::is_same_v<T, float>) {
        if (layout.width < 8) return softmax_narrow(logits, layout.width, count, rows);
    }
    constexpr float whole = std::is_same_v<T, Fraction> ? kWhole : 1.0f;
    const int padded = layout.padded();
    for (std::int64_t i = 0; i < count; ++i) {
        float* in = logits + i * padded;
        T* out = rows + i * padded;
        Float8 largest = load<Float8>(in);
        for (int c = 8; c < padded; c += 8) largest = max8(largest, load<Float8>(in + c));
        largest = max_of_lanes(largest);
        Float8 sum{};
        for (int c = 0; c < padded; c += 8) {
            const Float8 e = exp_nonpositive(load<Float8>(in + c) - largest);
            store(in + c, e);
            sum += e;
        }
        const Float8 scale = whole / sum_of_lanes(sum);
        for (int c = 0; c < padded; c += 8) store(out + c, load<Float8>(in + c) * scale);
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

static constexpr FilterKernels kFilterKernels{
    {splat<float>, blur_sums, slice<float>, softmax<float>},
    {splat<Fraction>, blur_fractions, slice<Fraction>, softmax<Fraction>},
    mix,
    add_products,
    log_clipped,
};
