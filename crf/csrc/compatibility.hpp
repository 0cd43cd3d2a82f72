// How classes interact in the pairwise potential.
#pragma once

#include <vector>

namespace atrous {

/// μ: how labels interact. Either a factor a channel (Potts: −w for all) or a symmetric matrix.
struct Compatibility {
    std::vector<float> diagonal;  ///< [channels], or empty
    std::vector<float> matrix;    ///< [channels, channels], used when diagonal is empty
};

/// What bundles store of it: a factor of each kernel's weight for each class, and a matrix [classes, classes] for both.
struct ClassInteraction {
    std::vector<float> gaussian, bilateral, matrix;
};

/// μ[a, b] = weight · ½(f[a] + f[b]) · ½(m[a, b] + m[b, a]), with the roundings of crf/compatibility.py.
Compatibility compatibility_of(float weight, const std::vector<float>& factors, const std::vector<float>& matrix);

}  // namespace atrous
