#include "cuda/crf_field.hpp"

#include <utility>
#include <vector>

#include "failure.hpp"

namespace atrous::core::cuda {

Field::Field(Replayer& queue, const FieldSpec& spec, std::optional<KernelCompatibilities> compatibilities)
    : queue_(queue), spec_(spec) {
    if (!compatibilities && spec.params.interaction) {
        const ClassInteraction& learned = *spec.params.interaction;
        compatibilities = KernelCompatibilities{compatibility_of(1, learned.gaussian, learned.matrix),
                                                compatibility_of(1, learned.bilateral, learned.matrix)};
    } else if (!compatibilities) {
        const Compatibility potts{std::vector<float>(spec.classes, -1.0f), {}};
        compatibilities = KernelCompatibilities{potts, potts};
    }
    const auto& device = queue.device();
    const LaunchPlan build = plan_field(spec, *compatibilities, device->multiprocessors(), std::nullopt);
    check_memory();
    memory_.allocate(build, device, queue.stream());
    queue.replay(build.sequences.at("build"), memory_);
    const FieldReport built = read_report();
    check_sigmas(spec, built.failures, true);
    LaunchPlan plan = plan_field(spec, *compatibilities, device->multiprocessors(), built.gaussian_vertices);
    memory_.allocate(plan, device, queue.stream());
    sequences_ = std::move(plan.sequences);
}

void Field::check_memory() const {
    const std::int64_t estimate = spec_.estimate_bytes();
    const std::size_t free = queue_.device()->free_bytes();
    if (static_cast<std::size_t>(estimate) <= free) return;
    constexpr double kGiB = 1 << 30;
    fail(ATROUS_ERROR_MEMORY, spec_.describe(), " needs about ", static_cast<double>(estimate) / kGiB,
         " GiB of GPU memory, and ", static_cast<double>(free) / kGiB, " GiB are free on ", queue_.device()->name(),
         ". Use 16-bit fractions (crf_storage), smaller pictures, or fewer calls at once");
}

FieldReport Field::read_report() const {
    FieldReport report{};
    queue_.stream().download(&report, this->report(), sizeof report);
    queue_.stream().synchronize();
    return report;
}

}  // namespace atrous::core::cuda
