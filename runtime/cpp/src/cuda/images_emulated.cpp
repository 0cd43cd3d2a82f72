// For the stand-in driver of the tests, which brings kernels of its own and only looks for ELF's first bytes.
#include "cuda/images.hpp"

namespace atrous::core::cuda {

const char* const kCrfImage = "\177ELF";
const char* const kFrameImage = "\177ELF";

}  // namespace atrous::core::cuda
