#include "mean_field.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>

#include "native/error.hpp"
#include "native/finite.hpp"
#include "native/parallel.hpp"

namespace atrous {

void Filter::build(const FeatureSource& source, Normalization normalization, int threads) {
    lattice_.build(source, threads);
    normalization_ = normalization;
    // The lattice's response to a unit impulse is too large by 1 + 2^-d.
    const float alpha = 1.0f / (1.0f + std::ldexp(1.0f, 1 - lattice_.corners()));
    constexpr ChannelLayout scalar = ChannelLayout::of<float>(1);
    const bool is_before = normalization == Normalization::before || normalization == Normalization::symmetric;
    const bool is_after = normalization == Normalization::after || normalization == Normalization::symmetric;
    Buffer<float> before(lattice_.pixels());
    Buffer<float> after(lattice_.pixels());
    Buffer<float> values;
    std::fill(before.begin(), before.end(), 1.0f);
    if (normalization != Normalization::none) {
        values.resize(lattice_.values_size(scalar));
        Buffer<float> scratch(lattice_.values_size(scalar));
        lattice_.splat_and_blur(before.data(), scalar, values.data(), scratch.data(), threads);
    }
    parallel_ranges(lattice_.pixels(), kTile, threads, [&](std::int64_t begin, std::int64_t end) {
        std::fill(&after[begin], &after[begin] + (end - begin), 0.0f);
        if (normalization != Normalization::none) {
            lattice_.slice(values.data(), scalar, &alpha, begin, end, &after[begin]);
        }
        for (std::int64_t p = begin; p < end; ++p) {
            const float sum = after[p] + 1e-20f;
            const float norm = 1.0f / (normalization == Normalization::symmetric ? std::sqrt(sum) : sum);
            before[p] = is_before ? norm : 1.0f;
            after[p] = is_after ? alpha * norm : alpha;
        }
    });
    lattice_.scale_weights(before.data(), after.data(), threads);
    if (takes_fractions_) lattice_.share_masses(threads);
}

void Filter::apply(const float* values, int channels, AxisOrder order, float* out, int threads) const {
    const bool is_one_sided = normalization_ == Normalization::before || normalization_ == Normalization::after;
    if (takes_fractions_ || (order == AxisOrder::reverse && is_one_sided)) {
        throw CrfError("this filter cannot be applied so: it takes fractions, or is normalised on one side");
    }
    const std::int64_t pixels = lattice_.pixels();
    const ChannelLayout layout = ChannelLayout::of<float>(channels);
    const std::int64_t stride = layout.padded();
    const std::vector<float> ones(stride, 1.0f);
    Buffer<float> rows(pixels * stride);
    parallel_ranges(pixels, kTile, threads, [&](std::int64_t begin, std::int64_t end) {
        std::fill(&rows[begin * stride], &rows[begin * stride] + (end - begin) * stride, 0.0f);
        for (int c = 0; c < channels; ++c) {
            for (std::int64_t p = begin; p < end; ++p) rows[p * stride + c] = values[c * pixels + p];
        }
    });
    Buffer<float> on_lattice(lattice_.values_size(layout));
    Buffer<float> scratch(lattice_.values_size(layout));
    lattice_.splat_and_blur(rows.data(), layout, on_lattice.data(), scratch.data(), threads, order);
    parallel_ranges(pixels, kTile, threads, [&](std::int64_t begin, std::int64_t end) {
        float* const filtered = &rows[begin * stride];
        std::fill(filtered, filtered + (end - begin) * stride, 0.0f);
        lattice_.slice(on_lattice.data(), layout, ones.data(), begin, end, filtered);
        for (int c = 0; c < channels; ++c) {
            for (std::int64_t p = begin; p < end; ++p) out[c * pixels + p] = rows[p * stride + c];
        }
    });
}

template <typename T>
MeanField<T>::MeanField(std::int64_t pixels, int channels, int threads)
    : pixels_(pixels), layout_(ChannelLayout::of<T>(channels)), threads_(threads) {
    logits_.resize(pixels * layout_.padded());
    marginals_.resize(pixels * layout_.padded());
}

template <typename T>
void MeanField<T>::check_filter(const Filter& filter) const {
    if (filter.lattice().pixels() != pixels_) {
        throw CrfError("the CRF has " + std::to_string(pixels_) + " pixels, the features have " +
                       std::to_string(filter.lattice().pixels()));
    }
    if (filter.lattice().has_shares() != std::is_same_v<T, Fraction>) {
        throw CrfError("the filter is for rows of another type than the CRF has");
    }
}

template <typename T>
void MeanField<T>::add_term(std::shared_ptr<const Filter> filter, Compatibility compatibility) {
    const int channels = layout_.channels;
    const int padded = layout_.padded();
    Term term;
    term.scale.assign(padded, 0.0f);
    if (compatibility.matrix.empty()) {
        for (int c = 0; c < channels; ++c) term.scale[c] = -compatibility.diagonal[c];
    } else {
        std::fill(term.scale.begin(), term.scale.begin() + channels, 1.0f);
        term.matrix.assign(static_cast<std::size_t>(padded) * padded, 0.0f);
        for (int from = 0; from < channels; ++from) {
            for (int to = 0; to < channels; ++to) {
                term.matrix[from * padded + to] = -compatibility.matrix[to * channels + from];
            }
        }
    }
    term.filter = std::move(filter);
    terms_.push_back(std::move(term));
}

/// What `subset` keeps of planar [classes, pixels] to padded rows times `sign`. False when a value is not finite.
template <typename T>
bool MeanField<T>::read_planar(const float* planar, const ClassSubset& subset, float sign, float* rows) const {
    std::atomic<bool> finite{true};
    const float padding = sign < 0.0f ? kPaddingLogit : 0.0f;
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (int c = 0; c < layout_.channels; ++c) {
            const float* plane = planar + subset.kept[c] * pixels_;
            for (std::int64_t p = begin; p < end; ++p) rows[p * stride + c] = sign * plane[p];
            if (!all_finite(plane + begin, end - begin)) finite = false;
        }
        for (std::int64_t p = begin; p < end; ++p) {
            std::fill(rows + p * stride + layout_.channels, rows + (p + 1) * stride, padding);
        }
    });
    return finite;
}

template <typename T>
bool MeanField<T>::set_unary_from_probabilities(const float* planar, const ClassSubset& subset, float temperature) {
    if (!read_planar(planar, subset, 1.0f, logits_.data())) return false;
    const std::int64_t stride = layout_.padded();
    const float inverse = 1.0f / temperature;
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        filter_kernels().log_clipped(&logits_[begin * stride], (end - begin) * stride, kProbabilityFloor);
        if (inverse != 1.0f) {
            for (std::int64_t i = begin * stride; i < end * stride; ++i) logits_[i] *= inverse;
        }
        for (std::int64_t p = begin; p < end; ++p) {
            std::fill(&logits_[p * stride + layout_.channels], &logits_[p * stride] + stride, kPaddingLogit);
        }
    });
    return true;
}

/// Where Q is to be read: fractions leave it where the unaries were.
template <typename T>
float* MeanField<T>::result() {
    if constexpr (std::is_same_v<T, float>) {
        return marginals_.data();
    } else {
        return logits_.data();
    }
}

template <typename T>
void MeanField<T>::infer(int iterations, const std::function<void()>& between) {
    update(true, iterations == 0);
    for (int done = 1; done <= iterations; ++done) {
        update(false, done == iterations);
        between();
    }
}

/// Q = softmax(−U), or else one mean-field update; the last one leaves it in result().
template <typename T>
void MeanField<T>::update(bool is_first, bool is_last) {
    if (!is_first) filter_terms(marginals_.data());
    const FilterKernels& kernels = filter_kernels();
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> logits = unaries(begin, end);
        if (!is_first) add_responses(begin, end, logits);
        if (is_last) {
            kernels.sums.softmax(logits.data(), layout_, end - begin, result() + begin * stride);
        } else {
            kernels.rows<T>().softmax(logits.data(), layout_, end - begin, &marginals_[begin * stride]);
        }
    });
}

/// Values stay until all terms are sliced, but scratch memory is free again after a term's blur: the term with the most
/// vertices goes first, and what was its scratch memory holds the others.
template <typename T>
void MeanField<T>::filter_terms(const T* rows, AxisOrder order) {
    std::vector<Term*> by_size;
    for (Term& term : terms_) {
        check_filter(*term.filter);  // a filter may have been rebuilt since the last step
        by_size.push_back(&term);
    }
    const auto size = [&](const Term* term) { return term->filter->lattice().values_size(layout_); };
    std::stable_sort(by_size.begin(), by_size.end(), [&](const Term* a, const Term* b) { return size(a) > size(b); });
    std::size_t begin = 0;
    std::size_t end = 0;
    for (Term* term : by_size) {
        term->values = begin;
        begin += size(term);
        end = std::max(end, begin + size(term));
    }
    arena_.resize(end);
    for (Term* term : by_size) {
        T* const values = &arena_[term->values];
        term->filter->lattice().splat_and_blur(rows, layout_, values, values + size(term), threads_, order);
    }
}

/// −U for pixels in [begin, end).
template <typename T>
std::vector<float> MeanField<T>::unaries(std::int64_t begin, std::int64_t end) const {
    const float* from = &logits_[begin * layout_.padded()];
    return {from, from + (end - begin) * layout_.padded()};
}

/// Adds −Σ_k μ_k(K̂_k Q) for pixels in [begin, end), after filter_terms().
template <typename T>
void MeanField<T>::add_responses(std::int64_t begin, std::int64_t end, std::vector<float>& sum) const {
    std::vector<float> response;
    for (const Term& term : terms_) {
        const Lattice& lattice = term.filter->lattice();
        if (term.matrix.empty()) {
            lattice.slice(&arena_[term.values], layout_, term.scale.data(), begin, end, sum.data());
            continue;
        }
        response.assign(sum.size(), 0.0f);
        lattice.slice(&arena_[term.values], layout_, term.scale.data(), begin, end, response.data());
        filter_kernels().mix(response.data(), term.matrix.data(), layout_, end - begin, sum.data());
    }
}

template <typename T>
void MeanField<T>::read_marginals(float* planar, const ClassSubset& subset) const {
    const std::int64_t stride = layout_.padded();
    const float* const rows = result();
    const float mass = subset.kept_mass();
    const std::vector<int> left_out = subset.left_out();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (int c = 0; c < layout_.channels; ++c) {
            float* plane = planar + subset.kept[c] * pixels_;
            for (std::int64_t p = begin; p < end; ++p) plane[p] = mass * rows[p * stride + c];
        }
        for (const int c : left_out)
            std::fill(planar + c * pixels_ + begin, planar + c * pixels_ + end, kProbabilityFloor);
    });
}

template <typename T>
template <typename Label>
void MeanField<T>::read_labels(Label* labels, const ClassSubset& subset) const {
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* row = result() + p * layout_.padded();
            const auto best = std::max_element(row, row + layout_.channels) - row;
            labels[p] = static_cast<Label>(subset.kept[best]);
        }
    });
}

template class MeanField<float>;
template class MeanField<Fraction>;
template void MeanField<float>::read_labels(std::uint8_t* labels, const ClassSubset& subset) const;
template void MeanField<float>::read_labels(std::uint16_t* labels, const ClassSubset& subset) const;
template void MeanField<Fraction>::read_labels(std::uint8_t* labels, const ClassSubset& subset) const;
template void MeanField<Fraction>::read_labels(std::uint16_t* labels, const ClassSubset& subset) const;

}  // namespace atrous
