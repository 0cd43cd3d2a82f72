// Compiled once per instruction set by resample_kernels.cpp. Vectors run along the output columns.

#include "native/lanes.inl"

ATROUS_INLINE Float8 gather(const float* row, const std::int32_t* columns) {
    Float8 values;
    for (int lane = 0; lane < 8; ++lane) values[lane] = row[columns[lane]];
    return values;
}

ATROUS_INLINE Float8 resized(const float* row, const ColumnPlan& plan, int x) {
    return gather(row, plan.left + x) * load<Float8>(plan.weight_left + x) +
           gather(row, plan.right + x) * load<Float8>(plan.weight_right + x);
}

ATROUS_INLINE void store_part(float* to, Float8 values, int count) {
    if (count >= 8) return store(to, values);
    for (int lane = 0; lane < count; ++lane) to[lane] = values[lane];
}

static void blend_rows(const float* top, const float* bottom, float weight_top, float weight_bottom, int count,
                       float* out) {
    for (int i = 0; i < count; ++i) out[i] = top[i] * weight_top + bottom[i] * weight_bottom;
}

template <typename Label>
static void labels(const float* rows, int channels, int width, const ColumnPlan& plan, int columns, Label* labels) {
    for (int x = 0; x < columns; x += 8) {
        Float8 best = resized(rows, plan, x);
        Int8 label{};
        for (int c = 1; c < channels; ++c) {
            const Float8 value = resized(rows + std::int64_t{c} * width, plan, x);
            const Int8 better = value > best;
            best = better ? value : best;
            label = better ? Int8{} + c : label;
        }
        for (int lane = 0; lane < 8 && x + lane < columns; ++lane) {
            labels[x + lane] = static_cast<Label>(label[lane]);
        }
    }
}

static void logits(const float* rows, int channels, int width, const ColumnPlan& plan, int columns, std::int64_t plane,
                   float* out) {
    for (int c = 0; c < channels; ++c) {
        for (int x = 0; x < columns; x += 8) {
            store_part(out + c * plane + x, resized(rows + std::int64_t{c} * width, plan, x), columns - x);
        }
    }
}

/// Resizes three times instead of keeping the values.
static void many_probabilities(const float* rows, int channels, int width, const ColumnPlan& plan, int columns,
                               std::int64_t plane, float* out) {
    for (int x = 0; x < columns; x += 8) {
        Float8 largest = resized(rows, plan, x);
        for (int c = 1; c < channels; ++c) largest = max8(largest, resized(rows + std::int64_t{c} * width, plan, x));
        Float8 sum{};
        for (int c = 0; c < channels; ++c)
            sum += exp_nonpositive(resized(rows + std::int64_t{c} * width, plan, x) - largest);
        const Float8 scale = 1.0f / sum;
        for (int c = 0; c < channels; ++c) {
            store_part(out + c * plane + x,
                       exp_nonpositive(resized(rows + std::int64_t{c} * width, plan, x) - largest) * scale,
                       columns - x);
        }
    }
}

static void probabilities(const float* rows, int channels, int width, const ColumnPlan& plan, int columns,
                          std::int64_t plane, float* out) {
    Float8 values[256];
    if (channels > 256) return many_probabilities(rows, channels, width, plan, columns, plane, out);
    for (int x = 0; x < columns; x += 8) {
        Float8 largest = values[0] = resized(rows, plan, x);
        for (int c = 1; c < channels; ++c) {
            values[c] = resized(rows + std::int64_t{c} * width, plan, x);
            largest = max8(largest, values[c]);
        }
        Float8 sum{};
        for (int c = 0; c < channels; ++c) {
            values[c] = exp_nonpositive(values[c] - largest);
            sum += values[c];
        }
        const Float8 scale = 1.0f / sum;
        for (int c = 0; c < channels; ++c) store_part(out + c * plane + x, values[c] * scale, columns - x);
    }
}

static constexpr ResampleKernels kResampleKernels{blend_rows, labels<std::uint8_t>, labels<std::uint16_t>, logits,
                                                  probabilities};
