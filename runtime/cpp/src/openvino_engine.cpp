// OpenVINO on the CPU: as runtime/backends/openvino.py.
#include <list>
#include <memory>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string>
#include <utility>

#include "catalogue.hpp"
#include "cpu_pipeline.hpp"
#include "failure.hpp"
#include "openvino_qdq.hpp"

namespace atrous::core {
namespace {

constexpr const char* kName = "openvino";
/// Compiled shapes kept; a video has one, a folder of photos a few.
constexpr std::size_t kMaxCompiledShapes = 4;

/// One for the process: making it loads plugins. Never destroyed, because its threads may outlive static destruction.
ov::Core& shared_core() {
    static ov::Core* const core = new ov::Core;
    return *core;
}

/// The network, compiled once for each input shape: a graph with fixed sizes is faster than one with dynamic ones.
class CompiledShapes {
  public:
    CompiledShapes(const std::string& graph, std::string name, int channels, ov::element::Type precision, int threads)
        : name_(std::move(name)), channels_(channels), model_(shared_core().read_model(graph, ov::Tensor())) {
        fuse_qdq(*model_);
        // FP32 runs in FP32: OpenVINO would pick bfloat16 on its own where the CPU has it, and change the answer.
        settings_ = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                     ov::hint::inference_precision(precision)};
        // Q/DQ round in FP32 where sums of bytes would overflow: no faster, but right.
        if (!cpu_kind().sums_int8_exactly()) settings_["LP_TRANSFORMS_MODE"] = "NO";
        if (threads > 0) settings_.insert(ov::inference_num_threads(threads));
        if (model_->inputs().size() != 1 || model_->outputs().size() != 1) {
            fail(ATROUS_ERROR_ENGINE, name_, " must have one input and one output");
        }
    }

    const std::string& name() const { return name_; }

    ov::CompiledModel of(const Size& size) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto entry = kept_.begin(); entry != kept_.end(); ++entry) {
            if (entry->first != size) continue;
            kept_.splice(kept_.begin(), kept_, entry);
            return entry->second;
        }
        const auto model = model_->clone();
        model->reshape(ov::PartialShape{1, channels_, size.height, size.width});
        kept_.emplace_front(size, shared_core().compile_model(model, "CPU", settings_));
        if (kept_.size() > kMaxCompiledShapes) kept_.pop_back();
        return kept_.front().second;
    }

  private:
    std::string name_;
    int channels_;  ///< of the input
    std::shared_ptr<ov::Model> model_;
    ov::AnyMap settings_;
    std::mutex mutex_;
    std::list<std::pair<Size, ov::CompiledModel>> kept_;  ///< last used first
};

class OpenVinoSession : public Session {
  public:
    explicit OpenVinoSession(std::shared_ptr<CompiledShapes> shapes) : shapes_(std::move(shapes)) {}

    float* input(const Size& size) override {
        if (size != size_) {
            size_ = {};
            request_ = shapes_->of(size).create_infer_request();
            size_ = size;
        }
        return request_.get_input_tensor().data<float>();
    }

    Logits run() override {
        request_.infer();
        const ov::Tensor output = request_.get_output_tensor();
        const ov::Shape& shape = output.get_shape();
        if (output.get_element_type() != ov::element::f32 || shape.size() != 4 || shape[0] != 1) {
            fail(ATROUS_ERROR_ENGINE, shapes_->name(), " answered ", output.get_element_type(), " ", shape,
                 "; expected float32 logits [1, C, h, w]. Pack or export the model again.");
        }
        return {output.data<const float>(),
                static_cast<int>(shape[1]),
                {static_cast<int>(shape[2]), static_cast<int>(shape[3])}};
    }

  private:
    std::shared_ptr<CompiledShapes> shapes_;
    ov::InferRequest request_;
    Size size_;  ///< that the request is for
};

class OpenVinoEngine : public Engine {
  public:
    explicit OpenVinoEngine(std::shared_ptr<CompiledShapes> shapes) : shapes_(std::move(shapes)) {}
    std::unique_ptr<Session> make_session() override { return std::make_unique<OpenVinoSession>(shapes_); }

  private:
    std::shared_ptr<CompiledShapes> shapes_;
};

/// As pip names it: "2026.4.0" of "2026.4.0-21234-5c6ab5b1c3a-releases/2026/4".
std::string version() {
    const std::string build = ov::get_openvino_version().buildNumber;
    return build.substr(0, build.find('-'));
}

void check_bf16() {
    if (cpu_kind().has_bf16()) return;
    fail(ATROUS_ERROR_ENGINE, "this CPU has no bfloat16 (it needs avx512_bf16 or amx_bf16): ", cpu_kind().name,
         "; use fp32");
}

std::unique_ptr<Pipeline> open(std::shared_ptr<const Bundle> bundle, const Options& options) {
    const bool is_bf16 = options.precision == "bf16";
    if (is_bf16) check_bf16();
    const Artifact& canonical = find_onnx(*bundle, options.precision, kName);
    const std::string precision = is_bf16 ? "bf16" : canonical.precision;
    const Artifact artifact = tuned_or(canonical, *bundle, precision, kName, version());
    const std::string name = (bundle->path() / artifact.file).string();
    std::unique_ptr<Engine> engine;
    try {
        engine = std::make_unique<OpenVinoEngine>(
            std::make_shared<CompiledShapes>(bundle->read(artifact), name, bundle->manifest().input.format().channels,
                                             is_bf16 ? ov::element::bf16 : ov::element::f32, options.threads));
    } catch (const ov::Exception& error) {
        fail(ATROUS_ERROR_ENGINE, "OpenVINO refuses ", name, ": ", error.what());
    }
    const Description description{kName, "CPU", precision, artifact.file, ""};
    return make_cpu_pipeline(std::move(bundle), std::move(engine), options, description);
}

}  // namespace

Backend openvino_backend() {
    return {kName, open};
}

}  // namespace atrous::core
