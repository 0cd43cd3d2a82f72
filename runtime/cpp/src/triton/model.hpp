// A model of Triton: the bundle in its folder, and how its configuration says to run it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "atrous/atrous.hpp"
#include "triton/core/tritonbackend.h"

namespace atrous::triton {

/// Types of a model's tensors, and whether they have a batch axis; the same for all its instances.
struct Layout {
    bool has_batches;
    int channels;
    atrous_dtype dtype;
    TRITONSERVER_DataType image_type;
    std::int64_t value_bytes;
    int classes;
    bool has_bands;
    bool is_wide;  ///< labels of 16 bits
};

/// What all instances of a model share.
class Model {
  public:
    /// Reads the configuration and opens the bundle that it names; throws Failure or Error.
    explicit Model(TRITONBACKEND_Model* model);

    const Layout& layout() const { return layout_; }

    /// A segmenter on the CPU, or on the GPU of that number.
    Segmenter open(std::optional<int> gpu) const;

  private:
    Model(TRITONBACKEND_Model* model, const nlohmann::json& config);

    Options options_;
    Bundle bundle_;
    Layout layout_;
};

/// One instance, which Triton calls from one thread at a time.
class Instance {
  public:
    Instance(const Model& model, std::optional<int> gpu) : layout_(model.layout()), segmenter_(model.open(gpu)) {}

    /// Answers and releases requests, and reports their times.
    void execute(TRITONBACKEND_ModelInstance* self, TRITONBACKEND_Request** requests, std::uint32_t count);

  private:
    std::int64_t answer(TRITONBACKEND_Request* request, TRITONBACKEND_Response* response);

    Layout layout_;
    Segmenter segmenter_;
    std::vector<std::uint8_t> pixels_;  ///< of requests whose pixels lie in pieces
    std::vector<std::uint8_t> labels_;
    std::vector<float> probabilities_;  ///< of requests that want their maxima alone
};

}  // namespace atrous::triton
