// TensorRT engines: as runtime/backends/tensorrt.py. A plan is code to TensorRT: it gets one only after its identity
// fits this machine and its SHA-256 is the manifest's.
#include <NvInferRuntime.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "catalogue.hpp"
#include "cuda/device_pipeline.hpp"
#include "engine_fit.hpp"
#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

constexpr const char* kName = "tensorrt";
constexpr std::size_t kMinScratchBytes = 256;

/// Keeps what TensorRT says is wrong, for the message of the call that failed.
class Log : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) return;
        try {
            const std::lock_guard<std::mutex> lock(mutex_);
            last_ = message;
        } catch (...) {  // no memory for words
        }
    }
    std::string last() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return last_.empty() ? "it does not say why" : last_;
    }

  private:
    mutable std::mutex mutex_;
    std::string last_;
};

/// One for the process, and never destroyed: TensorRT keeps the first that it is given.
Log& shared_log() {
    static Log* const log = new Log;
    return *log;
}

std::string library_version() {
    return text(getInferLibMajorVersion(), ".", getInferLibMinorVersion(), ".", getInferLibPatchVersion(), ".",
                getInferLibBuildVersion());
}

bool is_half(nvinfer1::DataType type, const std::string& file) {
    if (type == nvinfer1::DataType::kHALF) return true;
    if (type == nvinfer1::DataType::kFLOAT) return false;
    fail(ATROUS_ERROR_ENGINE, file, " reads or writes neither single nor half precision. Build it again");
}

std::string to_text(const nvinfer1::Dims& shape) {
    std::string joined;
    for (int i = 0; i < shape.nbDims; ++i) joined += text(i == 0 ? "" : "x", shape.d[i]);
    return joined;
}

/// A deserialized engine and what was asked of it once.
class Plan {
  public:
    Plan(std::shared_ptr<const Device> device, const std::string& bytes, const Artifact& artifact, int channels)
        : device_(std::move(device)), file_(artifact.file), channels_(channels) {
        const Current current(*device_);
        runtime_.reset(nvinfer1::createInferRuntime(shared_log()));
        if (!runtime_) refuse("TensorRT does not start");
        if (artifact.engine->version_compatible) runtime_->setEngineHostCodeAllowed(true);
        engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine_) refuse("TensorRT refuses");
        if (engine_->getNbIOTensors() != 2) {
            fail(ATROUS_ERROR_ENGINE, file_, " has ", engine_->getNbIOTensors(), " tensors; expected input and output");
        }
        const bool first_is_input =
            engine_->getTensorIOMode(engine_->getIOTensorName(0)) == nvinfer1::TensorIOMode::kINPUT;
        input_ = engine_->getIOTensorName(first_is_input ? 0 : 1);
        output_ = engine_->getIOTensorName(first_is_input ? 1 : 0);
    }

    ~Plan() {
        try {
            const Current current(*device_);
            engine_.reset();
            runtime_.reset();
        } catch (const Failure&) {  // the context is gone, and with it the engine
        }
    }
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    const std::shared_ptr<const Device>& device() const { return device_; }
    const std::string& file() const { return file_; }
    /// Of the input.
    int channels() const { return channels_; }
    nvinfer1::ICudaEngine& engine() const { return *engine_; }
    const char* input() const { return input_.c_str(); }
    const char* output() const { return output_.c_str(); }

    [[noreturn]] void refuse(const char* what) const {
        fail(ATROUS_ERROR_ENGINE, what, " ", file_, ": ", shared_log().last());
    }

  private:
    std::shared_ptr<const Device> device_;
    std::string file_, input_, output_;
    int channels_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;  // must outlive the engine
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

/// One execution context, with exactly the memory that its shape needs.
class TensorRtEngine : public DeviceEngine {
  public:
    explicit TensorRtEngine(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}
    ~TensorRtEngine() override {
        try {
            const Current current(*plan_->device());
            context_.reset();
        } catch (const Failure&) {  // the GPU's context is gone, and with it this one
        }
    }

    EngineLayout prepare(const Size& input) override {
        nvinfer1::ICudaEngine& engine = plan_->engine();
        check_profile(input);
        context_.reset(engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
        const nvinfer1::Dims4 shape(1, plan_->channels(), input.height, input.width);
        if (!context_ || !context_->setInputShape(plan_->input(), shape)) plan_->refuse("TensorRT cannot prepare");
        const char* missing = nullptr;
        if (context_->inferShapes(1, &missing) != 0) plan_->refuse("TensorRT cannot tell the output's shape in");
        const nvinfer1::Dims output = context_->getTensorShape(plan_->output());
        if (output.nbDims != 4 || output.d[0] != 1) {
            fail(ATROUS_ERROR_ENGINE, plan_->file(), " answers ", to_text(output), "; expected logits 1xCxhxw");
        }
        scratch_ = Memory(plan_->device(), std::max(context_->updateDeviceMemorySizeForShapes(), kMinScratchBytes));
        context_->setDeviceMemoryV2(reinterpret_cast<void*>(scratch_.region().address),
                                    static_cast<std::int64_t>(scratch_.region().bytes));
        return {is_half(engine.getTensorDataType(plan_->input()), plan_->file()),
                static_cast<int>(output.d[1]),
                {static_cast<int>(output.d[2]), static_cast<int>(output.d[3])},
                is_half(engine.getTensorDataType(plan_->output()), plan_->file())};
    }

    void queue(const Region& source, const Region& result, const Stream& stream) override {
        const bool is_set = context_->setTensorAddress(plan_->input(), reinterpret_cast<void*>(source.address)) &&
                            context_->setTensorAddress(plan_->output(), reinterpret_cast<void*>(result.address));
        // A CUstream is a cudaStream_t.
        if (!is_set || !context_->enqueueV3(static_cast<cudaStream_t>(stream.handle()))) {
            plan_->refuse("TensorRT failed in");
        }
    }

    bool is_capturable() const override { return true; }

  private:
    void check_profile(const Size& input) const {
        const auto bound = [&](nvinfer1::OptProfileSelector which) {
            return plan_->engine().getProfileShape(plan_->input(), 0, which);
        };
        const nvinfer1::Dims low = bound(nvinfer1::OptProfileSelector::kMIN);
        const nvinfer1::Dims high = bound(nvinfer1::OptProfileSelector::kMAX);
        const auto fits = [](std::int64_t value, std::int64_t least, std::int64_t most) {
            return least <= value && value <= most;
        };
        if (low.nbDims == 4 && high.nbDims == 4 && fits(1, low.d[0], high.d[0]) &&
            fits(plan_->channels(), low.d[1], high.d[1]) && fits(input.height, low.d[2], high.d[2]) &&
            fits(input.width, low.d[3], high.d[3])) {
            return;
        }
        fail(ATROUS_ERROR_ENGINE, plan_->file(), " was asked for 1x", plan_->channels(), "x", to_text(input),
             ", which is outside of its profile: min ", to_text(low), ", max ", to_text(high),
             ". Build an engine for this shape, or resize the picture");
    }

    std::shared_ptr<const Plan> plan_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    Memory scratch_;
};

class TensorRtBackend : public DeviceBackend {
  public:
    explicit TensorRtBackend(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}
    std::unique_ptr<DeviceEngine> open_engine() override { return std::make_unique<TensorRtEngine>(plan_); }

  private:
    std::shared_ptr<const Plan> plan_;
};

std::unique_ptr<Pipeline> open(std::shared_ptr<const Bundle> bundle, const Options& options) {
    // Before TensorRT is asked anything: without a driver it can answer with what is no object.
    const auto device = std::make_shared<const Device>(options.device);
    const EngineHost host{kName, library_version(), device->compute_capability(), device->name(), device->cuda_major()};
    const Artifact& artifact = find_engine(*bundle, options.precision, host);
    auto plan = std::make_shared<const Plan>(device, bundle->read(artifact), artifact,
                                             bundle->manifest().input.format().channels);
    const Description description{kName, device->name(), artifact.precision, artifact.file, ""};
    return make_device_pipeline(device, bundle, std::make_shared<TensorRtBackend>(std::move(plan)), options,
                                description);
}

}  // namespace
}  // namespace atrous::core::cuda

namespace atrous::core {

Backend tensorrt_backend() {
    return {cuda::kName, cuda::open};
}

}  // namespace atrous::core
