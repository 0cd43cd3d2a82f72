// Machine code of the kernels, for every GPU that the build was configured for.
#pragma once

namespace atrous::core::cuda {

extern const char* const kCrfImage;    ///< crf/kernels/dense_crf.cu
extern const char* const kFrameImage;  ///< runtime/kernels/frame.cu

}  // namespace atrous::core::cuda
