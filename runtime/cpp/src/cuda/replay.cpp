#include "cuda/replay.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace atrous::core::cuda {
namespace {

/// A kernel's arguments, packed like the members of a struct.
class PackedArguments {
  public:
    template <typename Value>
    void put(const Value& value) {
        size_ = (size_ + sizeof(Value) - 1) / sizeof(Value) * sizeof(Value);
        std::memcpy(bytes_.data() + size_, &value, sizeof(Value));
        size_ += sizeof(Value);
    }

    void* data() { return bytes_.data(); }
    std::size_t* size() { return &size_; }

  private:
    alignas(8) std::array<char, 256> bytes_;
    std::size_t size_ = 0;
};

}  // namespace

void PlanMemory::allocate(const LaunchPlan& plan, const std::shared_ptr<const Device>& device, const Stream& stream) {
    std::map<std::string, Memory> before = std::move(buffers_);
    buffers_.clear();
    for (const PlannedBuffer& planned : plan.buffers) {
        if (planned.use == BufferUse::given) continue;
        const auto bytes = static_cast<std::size_t>(planned.bytes);
        const auto old = before.find(planned.name);
        const bool fits = old != before.end() && old->second.region().bytes == bytes;
        buffers_.emplace(planned.name, fits ? old->second : Memory(device, bytes));
    }
    std::vector<std::vector<std::int64_t>> tables;  // stay until they are copied
    for (const Content& content : plan.contents) {
        const Region target = (*this)[content.buffer];
        const auto send = [&](const auto& values) {
            if constexpr (std::is_same_v<std::decay_t<decltype(values)>, Words>) {
                auto& table = tables.emplace_back();
                for (const auto& word : values) {
                    const auto* slot = std::get_if<Slot>(&word);
                    table.push_back(slot != nullptr ? static_cast<std::int64_t>(locate(*slot).address)
                                                    : std::get<std::int64_t>(word));
                }
                stream.upload(target, table.data(), target.bytes);
            } else {
                stream.upload(target, values.data(), target.bytes);
            }
        };
        std::visit(send, content.values);
    }
    stream.synchronize();
}

Region PlanMemory::locate(const Slot& slot, const Given& given) const {
    const auto found = given.find(slot.buffer);
    const Region whole = found != given.end() ? found->second : (*this)[slot.buffer];
    return whole.part(static_cast<std::size_t>(slot.offset), static_cast<std::size_t>(slot.bytes));
}

void Replayer::replay(const Sequence& sequence, const PlanMemory& memory, const Given& given, const Infer& infer) {
    for (const Step& step : sequence) {
        if (const auto* kernel = std::get_if<Launch>(&step.work)) {
            launch(*kernel, memory, given);
        } else if (const auto* fill = std::get_if<Fill>(&step.work)) {
            stream_.fill(memory.locate(fill->target, given), fill->word);
        } else if (const auto* copy = std::get_if<Copy>(&step.work)) {
            stream_.copy(memory.locate(copy->target, given), memory.locate(copy->source, given));
        } else {
            const auto& inference = std::get<Inference>(step.work);
            infer(memory.locate(inference.input, given), memory.locate(inference.logits, given));
        }
    }
}

void Replayer::launch(const Launch& launch, const PlanMemory& memory, const Given& given) {
    PackedArguments arguments;
    const auto put = [&](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Slot>) {
            arguments.put(memory.locate(value, given).address);
        } else {
            arguments.put(value);
        }
    };
    for (const Argument& argument : launch.arguments) std::visit(put, argument);
    void*& function = functions_[launch.kernel];
    if (function == nullptr) function = module_.function(launch.kernel.c_str());
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
    void* extra[] = {reinterpret_cast<void*>(1), arguments.data(), reinterpret_cast<void*>(2), arguments.size(),
                     nullptr};
    check(driver().cuLaunchKernel(function, static_cast<unsigned>(launch.blocks), 1, 1,
                                  static_cast<unsigned>(launch.width), static_cast<unsigned>(launch.height), 1, 0,
                                  stream_.handle(), nullptr, extra),
          launch.kernel.c_str());
}

}  // namespace atrous::core::cuda
