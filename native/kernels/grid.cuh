// Shapes of launches that all kernels and those that plan them must agree on: plain C++.
#pragma once

namespace atrous {

constexpr int kThreads = 256;  ///< threads of every block whose size does not depend on the number of channels
constexpr int kWarp = 32;
/// Blocks of a launch for each multiprocessor, at most: enough to keep one busy to the end; kernels loop over the rest.
constexpr int kBlocksPerMultiprocessor = 16;

}  // namespace atrous
