#include "mean_field_gradient.hpp"

#include <algorithm>
#include <cmath>

#include "native/error.hpp"
#include "native/parallel.hpp"

namespace atrous {
namespace {

/// Partial sums of the gradients of a term: few, since each has as many numbers as the term's matrix.
constexpr std::int64_t kMostPartialSums = 64;

/// Updates from one Q that is kept to the next, for the fewest in memory at a time; of equals, the fewest to compute.
int best_stride(int iterations) {
    int best = 1;
    const auto in_memory = [&](int stride) { return (iterations - 1) / stride + stride - 1; };
    for (int stride = 2; stride * stride <= 4 * iterations; ++stride) {
        if (in_memory(stride) < in_memory(best)) best = stride;
    }
    return best;
}

/// matrix[to, from] of matrix[from, to], both [size, size].
std::vector<float> transposed(const std::vector<float>& matrix, int size) {
    std::vector<float> other(matrix.size());
    for (int row = 0; row < size; ++row) {
        for (int column = 0; column < size; ++column) other[column * size + row] = matrix[row * size + column];
    }
    return other;
}

}  // namespace

MeanFieldGradient DifferentiableMeanField::differentiate(const float* marginal_gradient, int iterations, bool is_full,
                                                         const std::function<void()>& between) {
    const auto channels = static_cast<std::size_t>(layout_.channels);
    MeanFieldGradient gradient;
    gradient.logits.assign(pixels_ * channels, 0.0f);
    gradient.terms.assign(terms_.size(), std::vector<double>(channels * channels));
    Trace trace = replay(iterations, between);
    gradient_.resize(pixels_ * layout_.padded());
    if (!read_planar(marginal_gradient, ClassSubset::all(layout_.channels), 1.0f, gradient_.data())) {
        throw CrfError("the gradient of the marginals is not finite");
    }
    differentiate_softmax(gradient);
    for (int done = iterations - 1; done >= 0; --done) {
        restore(trace, done, between);
        differentiate_filters(gradient, is_full);
        differentiate_softmax(gradient);
        between();
    }
    return gradient;
}

/// Q after all updates, and what is kept on the way there.
DifferentiableMeanField::Trace DifferentiableMeanField::replay(int iterations, const std::function<void()>& between) {
    Trace trace{best_stride(iterations), {}, {}};
    update(true, false);
    for (int done = 1; done <= iterations; ++done) {
        update(false, false);
        between();
        if (done % trace.stride != 0 || done == iterations) continue;
        trace.kept.emplace_back();
        copy(marginals_, trace.kept.back());
    }
    trace.recomputed.resize(trace.stride);
    return trace;
}

/// Q after `done` updates; before it was Q after one more.
void DifferentiableMeanField::restore(Trace& trace, int done, const std::function<void()>& between) {
    const int beyond = done % trace.stride;
    const int segment = done / trace.stride;
    const auto load_kept = [&] {
        if (segment == 0) {
            update(true, false);
        } else {
            copy(trace.kept[segment - 1], marginals_);
        }
    };
    if (beyond == 0) return load_kept();
    if (trace.recomputed[beyond].size() == 0) {
        load_kept();
        for (int i = 1; i <= beyond; ++i) {
            update(false, false);
            between();
            copy(marginals_, trace.recomputed[i]);
        }
    }
    marginals_.swap(trace.recomputed[beyond]);
    trace.recomputed[beyond] = {};
}

void DifferentiableMeanField::copy(const Buffer<float>& from, Buffer<float>& to) const {
    const std::int64_t stride = layout_.padded();
    to.resize(pixels_ * stride);
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        std::copy_n(&from[begin * stride], (end - begin) * stride, &to[begin * stride]);
    });
}

/// From the gradient of Q that of the softmax's argument, which is added to that of −U.
void DifferentiableMeanField::differentiate_softmax(MeanFieldGradient& gradient) {
    const int channels = layout_.channels;
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* const q = &marginals_[p * stride];
            float* const g = &gradient_[p * stride];
            float mean = 0.0f;
            for (int c = 0; c < channels; ++c) mean += q[c] * g[c];
            for (int c = 0; c < channels; ++c) g[c] = q[c] * (g[c] - mean);
        }
        for (int c = 0; c < channels; ++c) {
            float* const plane = &gradient.logits[c * pixels_];
            for (std::int64_t p = begin; p < end; ++p) plane[p] += gradient_[p * stride + c];
        }
    });
}

/// From the gradient of the softmax's argument those of the terms and of the Q before, which is in marginals_.
void DifferentiableMeanField::differentiate_filters(MeanFieldGradient& gradient, bool is_full) {
    filter_terms(gradient_.data(), AxisOrder::reverse);
    const std::int64_t stride = layout_.padded();
    const auto entries = static_cast<std::size_t>(layout_.channels) * layout_.channels;
    const std::int64_t tiles = (pixels_ + kTile - 1) / kTile;
    const std::int64_t grain = (tiles + kMostPartialSums - 1) / kMostPartialSums * kTile;
    const std::size_t ranges = (pixels_ + grain - 1) / grain;
    std::vector<double> partial(ranges * terms_.size() * entries);
    parallel_ranges(pixels_, grain, threads_, [&](std::int64_t first, std::int64_t last) {
        std::vector<float> next;
        for (std::int64_t begin = first; begin < last; begin += kTile) {
            const std::int64_t end = std::min(begin + kTile, last);
            next.assign((end - begin) * stride, 0.0f);
            for (std::size_t k = 0; k < terms_.size(); ++k) {
                step_back(k, begin, end, is_full, &partial[(first / grain * terms_.size() + k) * entries], next);
            }
            std::copy(next.begin(), next.end(), &gradient_[begin * stride]);
        }
    });
    for (std::size_t i = 0; i < ranges; ++i) {  // in order: the same bits for any number of threads
        for (std::size_t k = 0; k < terms_.size(); ++k) {
            const double* const sums = &partial[(i * terms_.size() + k) * entries];
            for (std::size_t at = 0; at < entries; ++at) gradient.terms[k][at] += sums[at];
        }
    }
}

/// What one term does to the pixels in [begin, end): adds its gradient to `sums` and that of the Q before to `next`.
void DifferentiableMeanField::step_back(std::size_t term, std::int64_t begin, std::int64_t end, bool is_full,
                                        double* sums, std::vector<float>& next) const {
    const Term& each = terms_[term];
    const int channels = layout_.channels;
    const int padded = layout_.padded();
    const float* const before = &marginals_[begin * padded];
    const std::vector<float> ones(padded, 1.0f);
    std::vector<float> filtered(next.size(), 0.0f);
    each.filter->lattice().slice(&arena_[each.values], layout_, ones.data(), begin, end, filtered.data());
    if (is_full) {
        std::vector<float> products(static_cast<std::size_t>(padded) * padded, 0.0f);
        filter_kernels().add_products(before, filtered.data(), layout_, end - begin, products.data());
        for (int from = 0; from < channels; ++from) {
            for (int to = 0; to < channels; ++to) sums[from * channels + to] += products[from * padded + to];
        }
    } else {
        for (int c = 0; c < channels; ++c) {
            float sum = 0.0f;
            for (std::int64_t i = 0; i < end - begin; ++i) sum += before[i * padded + c] * filtered[i * padded + c];
            sums[c * channels + c] += sum;
        }
    }
    if (each.matrix.empty()) {
        for (std::size_t i = 0; i < next.size(); ++i) next[i] += each.scale[i % padded] * filtered[i];
    } else {
        const std::vector<float> back = transposed(each.matrix, padded);
        filter_kernels().mix(filtered.data(), back.data(), layout_, end - begin, next.data());
    }
}

}  // namespace atrous
