// Gives OpenVINO the form of Q/DQ that it computes right: as runtime/backends/openvino_qdq.py.
#pragma once

#include <openvino/core/model.hpp>

namespace atrous::core {

/// Replaces every pair on activations whose scale and zero point are single constants by one FakeQuantize.
///
/// OpenVINO reads a QuantizeLinear/DequantizeLinear pair as rounding to INT8, two conversions and a product. Behind a
/// Concat its low-precision passes then mistake the values that are joined for INT8 already, and round them to whole
/// numbers (OpenVINO 2026.4).
void fuse_qdq(ov::Model& model);

}  // namespace atrous::core
