// The six functions that Triton looks up in libtriton_atrous.so.
#include <memory>
#include <optional>

#include "model.hpp"
#include "status.hpp"

using namespace atrous::triton;

namespace {

/// Triton keeps this interface within a major version.
constexpr std::uint32_t kApiMajor = 1;

Model* state_of(TRITONBACKEND_Model* model) {
    void* state = nullptr;
    require(TRITONBACKEND_ModelState(model, &state));
    return static_cast<Model*>(state);
}

Instance* state_of(TRITONBACKEND_ModelInstance* instance) {
    void* state = nullptr;
    require(TRITONBACKEND_ModelInstanceState(instance, &state));
    return static_cast<Instance*>(state);
}

/// The GPU that an instance belongs to, if it belongs to one.
std::optional<int> gpu_of(TRITONBACKEND_ModelInstance* instance) {
    TRITONSERVER_InstanceGroupKind kind;
    std::int32_t device = 0;
    require(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    require(TRITONBACKEND_ModelInstanceDeviceId(instance, &device));
    if (kind != TRITONSERVER_INSTANCEGROUPKIND_GPU) return std::nullopt;
    return device;
}

}  // namespace

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*) {
    return guarded([&] {
        std::uint32_t major = 0, minor = 0;
        require(TRITONBACKEND_ApiVersion(&major, &minor));
        if (major != kApiMajor) {
            fail(TRITONSERVER_ERROR_UNSUPPORTED, "this server has backend API ", major, ".", minor, "; expected ",
                 kApiMajor, ".x");
        }
    });
}

TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model* model) {
    return guarded([&] {
        auto state = std::make_unique<Model>(model);
        require(TRITONBACKEND_ModelSetState(model, state.get()));
        state.release();
    });
}

TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model* model) {
    return guarded([&] { delete state_of(model); });
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
    return guarded([&] {
        TRITONBACKEND_Model* model = nullptr;
        require(TRITONBACKEND_ModelInstanceModel(instance, &model));
        auto state = std::make_unique<Instance>(*state_of(model), gpu_of(instance));
        require(TRITONBACKEND_ModelInstanceSetState(instance, state.get()));
        state.release();
    });
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* instance) {
    return guarded([&] { delete state_of(instance); });
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* instance,
                                                       TRITONBACKEND_Request** requests, const std::uint32_t count) {
    // With an error the requests stay Triton's: it must come before the first of them is answered.
    return guarded([&] { state_of(instance)->execute(instance, requests, count); });
}

}  // extern "C"
