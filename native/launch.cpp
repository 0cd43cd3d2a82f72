#include "launch.hpp"

#include <set>

namespace atrous {

void PlanWriter::declare(const std::string& name, std::int64_t bytes, BufferUse use) {
    PlannedBuffer& buffer = declared_.insert({name, {name, 0, use}}).first->second;
    buffer.bytes = std::max(buffer.bytes, bytes);
}

void PlanWriter::begin(std::string part, std::string lattice) {
    part_ = std::move(part);
    lattice_ = std::move(lattice);
}

void PlanWriter::add(Work work) {
    plan_.sequences[sequence_].push_back({std::move(work), part_, lattice_});
}

LaunchPlan PlanWriter::take() {
    std::set<std::string> used;
    const auto use = [&used](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Slot>) used.insert(value.buffer);
    };
    for (const auto& [name, sequence] : plan_.sequences) {
        for (const Step& step : sequence) {
            if (const auto* launch = std::get_if<Launch>(&step.work)) {
                for (const Argument& argument : launch->arguments) std::visit(use, argument);
            } else if (const auto* fill = std::get_if<Fill>(&step.work)) {
                use(fill->target);
            } else if (const auto* copy = std::get_if<Copy>(&step.work)) {
                use(copy->source);
                use(copy->target);
            } else {
                use(std::get<Inference>(step.work).input);
                use(std::get<Inference>(step.work).logits);
            }
        }
    }
    for (const Content& content : plan_.contents) {
        used.insert(content.buffer);
        if (const auto* words = std::get_if<Words>(&content.values)) {
            for (const auto& word : *words) std::visit(use, word);
        }
    }
    for (const auto& [name, buffer] : declared_) {
        if (buffer.use == BufferUse::given || used.count(name) != 0) plan_.buffers.push_back(buffer);
    }
    return std::move(plan_);
}

}  // namespace atrous
