#include "compatibility.hpp"

#include <cstddef>

namespace atrous {

Compatibility compatibility_of(float weight, const std::vector<float>& factors, const std::vector<float>& matrix) {
    const std::size_t classes = factors.size();
    Compatibility compatibility;
    compatibility.matrix.resize(classes * classes);
    bool is_diagonal = true;
    for (std::size_t a = 0; a < classes; ++a) {
        for (std::size_t b = 0; b < classes; ++b) {
            const float factor = weight * (0.5f * (factors[a] + factors[b]));
            const float value = factor * (0.5f * (matrix[a * classes + b] + matrix[b * classes + a]));
            compatibility.matrix[a * classes + b] = value;
            is_diagonal = is_diagonal && (a == b || value == 0.0f);
        }
    }
    if (!is_diagonal) return compatibility;
    for (std::size_t c = 0; c < classes; ++c) compatibility.diagonal.push_back(compatibility.matrix[c * classes + c]);
    compatibility.matrix.clear();
    return compatibility;
}

}  // namespace atrous
