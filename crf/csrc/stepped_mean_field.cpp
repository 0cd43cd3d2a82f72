#include "stepped_mean_field.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "native/parallel.hpp"

namespace atrous {

double SteppedMeanField::kl_divergence() {
    filter_terms(marginals_.data());
    const std::int64_t stride = layout_.padded();
    std::vector<double> partial((pixels_ + kTile - 1) / kTile);
    parallel_ranges(pixels_, kTile, threads_, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> minus_energy = unaries(begin, end);
        add_responses(begin, end, minus_energy);
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
