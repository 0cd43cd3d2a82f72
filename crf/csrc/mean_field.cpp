#include "mean_field.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "error.hpp"
#include "parallel.hpp"

namespace atrous {
namespace {

/// Pixels of a piece of work: few enough that their rows stay in the nearest caches, enough to hide the scheduling.
constexpr std::int64_t kTile = 512;

}  // namespace

void Filter::build(const FeatureSource& source, Normalization normalization, int threads) {
    lattice_.build(source, threads);
    // The lattice's response to a unit impulse is too large by 1 + 2^-d.
    const float alpha = 1.0f / (1.0f + std::ldexp(1.0f, 1 - lattice_.corners()));
    constexpr ChannelLayout scalar(1);
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
}

MeanField::MeanField(std::int64_t pixels, int channels, int threads)
    : pixels_(pixels), layout_(channels), threads_(threads) {
    logits_.resize(pixels * layout_.padded());
    marginals_.resize(pixels * layout_.padded());
}

void MeanField::check_pixels(const Filter& filter) const {
    if (filter.lattice().pixels() == pixels_) return;
    throw CrfError("the CRF has " + std::to_string(pixels_) + " pixels, the features have " +
                   std::to_string(filter.lattice().pixels()));
}

void MeanField::add_term(std::shared_ptr<const Filter> filter, Compatibility compatibility) {
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

/// Planar [channels, pixels] to padded rows times `sign`. False when a value is not finite.
bool MeanField::read_planar(const float* planar, float sign, float* rows) const {
    std::atomic<bool> finite{true};
    const float padding = sign < 0.0f ? kPaddingLogit : 0.0f;
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (int c = 0; c < layout_.channels; ++c) {
            const float* plane = planar + c * pixels_;
            for (std::int64_t p = begin; p < end; ++p) rows[p * stride + c] = sign * plane[p];
            if (!filter_kernels().all_finite(plane + begin, end - begin)) finite = false;
        }
        for (std::int64_t p = begin; p < end; ++p) {
            std::fill(rows + p * stride + layout_.channels, rows + (p + 1) * stride, padding);
        }
    });
    return finite;
}

bool MeanField::set_unary(const float* planar) {
    return read_planar(planar, -1.0f, logits_.data());
}

bool MeanField::set_unary_from_probabilities(const float* planar, float floor) {
    if (!read_planar(planar, 1.0f, logits_.data())) return false;
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        filter_kernels().log_clipped(&logits_[begin * stride], (end - begin) * stride, floor);
        for (std::int64_t p = begin; p < end; ++p) {
            std::fill(&logits_[p * stride + layout_.channels], &logits_[p * stride] + stride, kPaddingLogit);
        }
    });
    return true;
}

bool MeanField::write_marginals(const float* planar) {
    return read_planar(planar, 1.0f, marginals_.data());
}

void MeanField::start() {
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t at = begin * layout_.padded();
        filter_kernels().softmax(&logits_[at], layout_, end - begin, &marginals_[at]);
    });
}

/// Values stay until all terms are sliced, but scratch memory is free again after a term's blur: the term with the most
/// vertices goes first, and what was its scratch memory holds the others.
void MeanField::filter_terms() {
    std::vector<Term*> order;
    for (Term& term : terms_) {
        check_pixels(*term.filter);  // a filter may have been rebuilt since the last step
        order.push_back(&term);
    }
    const auto size = [&](const Term* term) { return term->filter->lattice().values_size(layout_); };
    std::stable_sort(order.begin(), order.end(), [&](const Term* a, const Term* b) { return size(a) > size(b); });
    std::size_t begin = 0;
    std::size_t end = 0;
    for (Term* term : order) {
        term->values = begin;
        begin += size(term);
        end = std::max(end, begin + size(term));
    }
    arena_.resize(end);
    for (Term* term : order) {
        float* const values = &arena_[term->values];
        term->filter->lattice().splat_and_blur(marginals_.data(), layout_, values, values + size(term), threads_);
    }
}

/// −U − Σ_k μ_k(K̂_k Q) for pixels in [begin, end), after filter_terms().
std::vector<float> MeanField::energies(std::int64_t begin, std::int64_t end) const {
    const float* from = &logits_[begin * layout_.padded()];
    std::vector<float> sum(from, from + (end - begin) * layout_.padded());
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
    return sum;
}

void MeanField::step() {
    filter_terms();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        const std::vector<float> logits = energies(begin, end);
        filter_kernels().softmax(logits.data(), layout_, end - begin, &marginals_[begin * layout_.padded()]);
    });
}

void MeanField::read_marginals(float* planar) const {
    const std::int64_t stride = layout_.padded();
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (int c = 0; c < layout_.channels; ++c) {
            float* plane = planar + c * pixels_;
            for (std::int64_t p = begin; p < end; ++p) plane[p] = marginals_[p * stride + c];
        }
    });
}

void MeanField::read_labels(std::uint8_t* labels) const {
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* row = &marginals_[p * layout_.padded()];
            labels[p] = static_cast<std::uint8_t>(std::max_element(row, row + layout_.channels) - row);
        }
    });
}

double MeanField::kl_divergence() {
    filter_terms();
    const std::int64_t stride = layout_.padded();
    std::vector<double> partial((pixels_ + kTile - 1) / kTile);
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        const std::vector<float> minus_energy = energies(begin, end);
        double sum = 0.0;
        for (std::int64_t p = begin; p < end; ++p) {
            for (int c = 0; c < layout_.channels; ++c) {
                const double q = marginals_[p * stride + c];
                sum += q * (std::log(std::max(q, 1e-20)) - minus_energy[(p - begin) * stride + c]);
            }
        }
        partial[begin / kTile] = sum;
    });
    return std::accumulate(partial.begin(), partial.end(), 0.0);  // in order: the same bits for any number of threads
}

}  // namespace atrous
