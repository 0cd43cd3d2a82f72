// A stand-in for as much of TensorRT as src/cuda/tensorrt_engine.cpp uses, under TensorRT's names. A plan is a text:
// "plan" runs the network of pixels.cu for 16x16 to 64x64 pixels, "int8 plan" has tensors of a type that nobody wants.
// Like TensorRT, it refuses calls in the wrong order. The file was compiled with TensorRT's own headers as well.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/driver.hpp"

using cudaStream_t = void*;

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };

struct Dims {
    std::int32_t nbDims;
    std::int64_t d[8];
};
struct Dims4 : Dims {
    Dims4(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t e) : Dims{4, {a, b, c, e}} {}
};

class ILogger {
  public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, const char* message) noexcept = 0;

  protected:
    virtual ~ILogger() = default;
};

class IExecutionContext {
  public:
    explicit IExecutionContext(int* alive) : alive_(alive) { ++*alive_; }
    ~IExecutionContext() { --*alive_; }
    IExecutionContext(const IExecutionContext&) = delete;
    IExecutionContext& operator=(const IExecutionContext&) = delete;

    bool setInputShape(const char* name, const Dims& shape) noexcept {
        shape_ = shape;
        return std::strcmp(name, "image") == 0;
    }
    std::int32_t inferShapes(std::int32_t, const char**) noexcept { return shape_.nbDims == 4 ? 0 : 1; }
    Dims getTensorShape(const char*) const noexcept { return {4, {shape_.d[0], 3, shape_.d[2] / 8, shape_.d[3] / 8}}; }
    std::size_t updateDeviceMemorySizeForShapes() noexcept { return 1000; }
    void setDeviceMemoryV2(void* memory, std::int64_t bytes) noexcept {
        has_memory_ = memory != nullptr && bytes >= 1000;
    }
    bool setTensorAddress(const char* name, void* address) noexcept {
        (std::strcmp(name, "image") == 0 ? image_ : logits_) = address;
        return address != nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept {
        if (!has_memory_ || image_ == nullptr || logits_ == nullptr || stream == nullptr) return false;
        struct {
            void* image;
            std::int32_t height, width;
            void* logits;
        } arguments{image_, static_cast<std::int32_t>(shape_.d[2]), static_cast<std::int32_t>(shape_.d[3]), logits_};
        std::size_t bytes = sizeof arguments;
        void* extra[] = {reinterpret_cast<void*>(1), &arguments, reinterpret_cast<void*>(2), &bytes, nullptr};
        const auto& driver = atrous::core::cuda::driver();
        void* function = nullptr;
        return driver.cuModuleGetFunction(&function, nullptr, "pixels_network") == 0 &&
               driver.cuLaunchKernel(function, 2, 1, 1, 64, 1, 1, 0, stream, nullptr, extra) == 0;
    }

  private:
    int* alive_;
    Dims shape_{};
    bool has_memory_ = false;
    void* image_ = nullptr;
    void* logits_ = nullptr;
};

class ICudaEngine {
  public:
    ICudaEngine(bool is_int8, int* alive) : is_int8_(is_int8), alive_(alive) { ++*alive_; }
    ~ICudaEngine() {
        if (contexts_ != 0) std::terminate();  // an engine goes after its contexts
        --*alive_;
    }
    ICudaEngine(const ICudaEngine&) = delete;
    ICudaEngine& operator=(const ICudaEngine&) = delete;

    std::int32_t getNbIOTensors() const noexcept { return 2; }
    const char* getIOTensorName(std::int32_t index) const noexcept { return index == 0 ? "logits" : "image"; }
    TensorIOMode getTensorIOMode(const char* name) const noexcept {
        return std::strcmp(name, "image") == 0 ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(const char*) const noexcept { return is_int8_ ? DataType::kINT8 : DataType::kFLOAT; }
    Dims getProfileShape(const char*, std::int32_t, OptProfileSelector which) const noexcept {
        const std::int64_t side = which == OptProfileSelector::kMIN ? 16 : which == OptProfileSelector::kOPT ? 32 : 64;
        return {4, {1, 3, side, side}};
    }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept {
        return new IExecutionContext(&contexts_);
    }

  private:
    bool is_int8_;
    int* alive_;
    int contexts_ = 0;
};

class IRuntime {
  public:
    explicit IRuntime(ILogger& logger) : logger_(logger) {}
    ~IRuntime() {
        if (engines_ != 0) std::terminate();  // a runtime goes after its engines
    }
    IRuntime(const IRuntime&) = delete;
    IRuntime& operator=(const IRuntime&) = delete;

    void setEngineHostCodeAllowed(bool) noexcept {}
    ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t bytes) noexcept {
        const std::string plan(static_cast<const char*>(blob), bytes);
        if (plan == "plan" || plan == "int8 plan") return new ICudaEngine(plan != "plan", &engines_);
        logger_.log(ILogger::Severity::kERROR, "magic tag does not match");
        return nullptr;
    }

  private:
    ILogger& logger_;
    int engines_ = 0;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept {
    return new IRuntime(logger);
}

}  // namespace nvinfer1

inline std::int32_t getInferLibMajorVersion() noexcept {
    return 11;
}
inline std::int32_t getInferLibMinorVersion() noexcept {
    return 4;
}
inline std::int32_t getInferLibPatchVersion() noexcept {
    return 0;
}
inline std::int32_t getInferLibBuildVersion() noexcept {
    return 12;
}
