#include "mean_field.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "error.hpp"
#include "parallel.hpp"

namespace atrous {
namespace {

/// Pixels whose logits are updated together: they stay in the first-level cache between the terms.
constexpr std::int64_t kTile = 64;
/// Pixels a scheduled piece.
constexpr std::int64_t kPiecePixels = 2048;

}  // namespace

void Filter::build(const FeatureSource& source, Normalization normalization, int threads) {
    lattice_.build(source, threads);
    const std::int64_t pixels = lattice_.pixels();
    // The lattice response to a unit impulse is too large by 1 + 2^-d.
    const float alpha = 1.0f / (1.0f + std::ldexp(1.0f, 1 - lattice_.corners()));
    ones_.resize(pixels);
    response_.resize(pixels);
    values_.resize(lattice_.vertices());
    std::fill(ones_.begin(), ones_.end(), 1.0f);
    if (normalization != Normalization::none) {
        lattice_.splat_and_blur(ones_.data(), 1, values_.data(), threads);
        parallel_ranges(pixels, kPiecePixels, threads, [&](std::int64_t begin, std::int64_t end) {
            float* out = response_.data() + begin;
            std::fill(out, out + (end - begin), 0.0f);
            lattice_.slice(values_.data(), 1, &alpha, begin, end, out);
            for (std::int64_t i = 0; i < end - begin; ++i) {
                const float sum = out[i] + 1e-20f;
                out[i] = 1.0f / (normalization == Normalization::symmetric ? std::sqrt(sum) : sum);
            }
        });
    }
    const bool is_before = normalization == Normalization::before || normalization == Normalization::symmetric;
    const bool is_after = normalization == Normalization::after || normalization == Normalization::symmetric;
    const float* before = is_before ? response_.data() : ones_.data();
    const float* after = ones_.data();
    if (is_after) {
        for (std::int64_t i = 0; i < pixels; ++i) ones_[i] = alpha * response_[i];
    } else {
        for (std::int64_t i = 0; i < pixels; ++i) ones_[i] = alpha;
    }
    lattice_.scale_weights(before, after, threads);
}

MeanField::MeanField(std::int64_t pixels, int channels, int threads)
    : pixels_(pixels), channels_(channels), stride_(row_stride(channels)), threads_(threads) {
    logits_.resize(pixels * stride_);
    marginals_.resize(pixels * stride_);
}

void MeanField::check_pixels(const Filter& filter) const {
    if (filter.lattice().pixels() == pixels_) return;
    throw CrfError("the CRF has " + std::to_string(pixels_) + " pixels, the features have " +
                   std::to_string(filter.lattice().pixels()));
}

void MeanField::add_term(std::shared_ptr<const Filter> filter, Compatibility compatibility) {
    Term term;
    term.scale.assign(stride_, 0.0f);
    if (compatibility.matrix.empty()) {
        for (int c = 0; c < channels_; ++c) term.scale[c] = -compatibility.diagonal[c];
    } else {
        std::fill(term.scale.begin(), term.scale.begin() + channels_, 1.0f);
        term.matrix.assign(static_cast<std::size_t>(channels_) * stride_, 0.0f);
        for (int from = 0; from < channels_; ++from) {
            for (int to = 0; to < channels_; ++to) {
                term.matrix[from * stride_ + to] = -compatibility.matrix[to * channels_ + from];
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
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t tile = begin; tile < end; tile += kTile) {
            const std::int64_t stop = std::min(tile + kTile, end);
            for (int c = 0; c < channels_; ++c) {
                const float* plane = planar + c * pixels_;
                for (std::int64_t p = tile; p < stop; ++p) rows[p * stride_ + c] = sign * plane[p];
            }
            for (std::int64_t p = tile; p < stop; ++p) {
                std::fill(rows + p * stride_ + channels_, rows + (p + 1) * stride_, padding);
            }
        }
        if (!filter_kernels().all_finite(rows + begin * stride_, (end - begin) * stride_)) finite = false;
    });
    return finite;
}

bool MeanField::set_unary(const float* planar) {
    return read_planar(planar, -1.0f, logits_.data());
}

bool MeanField::set_unary_from_probabilities(const float* planar, float floor) {
    if (!read_planar(planar, 1.0f, logits_.data())) return false;
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        filter_kernels().log_clipped(logits_.data() + begin * stride_, (end - begin) * stride_, floor);
        for (std::int64_t p = begin; p < end; ++p) {
            std::fill(&logits_[p * stride_ + channels_], &logits_[p * stride_] + stride_, kPaddingLogit);
        }
    });
    return true;
}

bool MeanField::write_marginals(const float* planar) {
    return read_planar(planar, 1.0f, marginals_.data());
}

void MeanField::start() {
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        filter_kernels().softmax(&logits_[begin * stride_], stride_, end - begin, &marginals_[begin * stride_]);
    });
}

void MeanField::filter_terms() {
    for (Term& term : terms_) {
        // A filter may have been rebuilt since the last step.
        check_pixels(*term.filter);
        term.values.resize(term.filter->lattice().vertices() * stride_);
        term.filter->lattice().splat_and_blur(marginals_.data(), stride_, term.values.data(), threads_);
    }
}

/// logits[i] −= Σ_k μ_k(K̂_k Q) for pixels in [begin, end); `scratch` holds as many rows.
void MeanField::add_terms(std::int64_t begin, std::int64_t end, float* logits, float* scratch) const {
    for (const Term& term : terms_) {
        const Lattice& lattice = term.filter->lattice();
        if (term.matrix.empty()) {
            lattice.slice(term.values.data(), stride_, term.scale.data(), begin, end, logits);
            continue;
        }
        std::fill(scratch, scratch + (end - begin) * stride_, 0.0f);
        lattice.slice(term.values.data(), stride_, term.scale.data(), begin, end, scratch);
        for (std::int64_t i = 0; i < end - begin; ++i) {
            float* out = logits + i * stride_;
            for (int from = 0; from < channels_; ++from) {
                const float value = scratch[i * stride_ + from];
                const float* row = &term.matrix[from * stride_];
                for (int to = 0; to < stride_; ++to) out[to] += value * row[to];
            }
        }
    }
}

void MeanField::step() {
    filter_terms();
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> tile(2 * kTile * stride_);
        float* logits = tile.data();
        for (std::int64_t at = begin; at < end; at += kTile) {
            const std::int64_t stop = std::min(at + kTile, end);
            std::memcpy(logits, &logits_[at * stride_], (stop - at) * stride_ * sizeof(float));
            add_terms(at, stop, logits, logits + kTile * stride_);
            filter_kernels().softmax(logits, stride_, stop - at, &marginals_[at * stride_]);
        }
    });
}

void MeanField::read_marginals(float* planar) const {
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t tile = begin; tile < end; tile += kTile) {
            const std::int64_t stop = std::min(tile + kTile, end);
            for (int c = 0; c < channels_; ++c) {
                float* plane = planar + c * pixels_;
                for (std::int64_t p = tile; p < stop; ++p) plane[p] = marginals_[p * stride_ + c];
            }
        }
    });
}

void MeanField::read_labels(std::uint8_t* labels) const {
    parallel_ranges(pixels_, kPiecePixels, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* row = &marginals_[p * stride_];
            labels[p] = static_cast<std::uint8_t>(std::max_element(row, row + channels_) - row);
        }
    });
}

double MeanField::kl_divergence() {
    filter_terms();
    const std::int64_t pieces = (pixels_ + kTile - 1) / kTile;
    std::vector<double> partial(pieces);
    parallel_pieces(pieces, threads_, [&](std::int64_t piece) {
        const std::int64_t begin = piece * kTile;
        const std::int64_t end = std::min(begin + kTile, pixels_);
        std::vector<float> tile(2 * kTile * stride_);
        float* energies = tile.data();  // −U − Σ_k μ_k(K̂_k Q)
        std::memcpy(energies, &logits_[begin * stride_], (end - begin) * stride_ * sizeof(float));
        add_terms(begin, end, energies, energies + kTile * stride_);
        double sum = 0.0;
        for (std::int64_t i = 0; i < end - begin; ++i) {
            for (int c = 0; c < channels_; ++c) {
                const double q = marginals_[(begin + i) * stride_ + c];
                sum += q * (std::log(std::max(q, 1e-20)) - energies[i * stride_ + c]);
            }
        }
        partial[piece] = sum;
    });
    double total = 0.0;  // in a fixed order: the same bits for any number of threads
    for (const double sum : partial) total += sum;
    return total;
}

}  // namespace atrous
