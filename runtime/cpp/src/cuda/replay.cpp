#include "cuda/replay.hpp"

#include <utility>
#include <vector>

namespace atrous::core::cuda {

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
        const void* source = nullptr;
        if (const auto* numbers = std::get_if<std::vector<float>>(&content.values)) {
            source = numbers->data();
        } else {
            auto& table = tables.emplace_back();
            for (const auto& word : std::get<1>(content.values)) {
                const auto* slot = std::get_if<Slot>(&word);
                table.push_back(slot != nullptr ? static_cast<std::int64_t>(locate(*slot).address) : std::get<1>(word));
            }
            source = table.data();
        }
        stream.upload(target, source, target.bytes);
    }
    stream.synchronize();
}

Region PlanMemory::locate(const Slot& slot, const std::map<std::string, Region>& given) const {
    const auto found = given.find(slot.buffer);
    const Region whole = found != given.end() ? found->second : (*this)[slot.buffer];
    return whole.part(static_cast<std::size_t>(slot.offset), static_cast<std::size_t>(slot.bytes));
}

void replay(const Sequence& sequence, KernelQueue& queue, const PlanMemory& memory,
            const std::map<std::string, Region>& given) {
    for (const Step& step : sequence) {
        if (const auto* launch = std::get_if<Launch>(&step.work)) {
            PackedArguments arguments;
            for (const Argument& argument : launch->arguments) {
                if (const auto* slot = std::get_if<Slot>(&argument)) {
                    arguments.put(memory.locate(*slot, given));
                } else if (const auto* integer = std::get_if<std::int32_t>(&argument)) {
                    arguments.put(*integer);
                } else {
                    arguments.put(std::get<float>(argument));
                }
            }
            queue.launch(launch->kernel.c_str(), launch->blocks, launch->width, launch->height, arguments);
        } else if (const auto* fill = std::get_if<Fill>(&step.work)) {
            queue.stream().fill(memory.locate(fill->target, given), fill->word);
        } else {
            const auto& copy = std::get<Copy>(step.work);
            queue.stream().copy(memory.locate(copy.target, given), memory.locate(copy.source, given));
        }
    }
}

}  // namespace atrous::core::cuda
