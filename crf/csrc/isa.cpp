#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace atrous {
namespace {

Isa best_isa() {
#if defined(__x86_64__)
    // What for_each_isa.inc compiles for: a CPU must have all of it.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return Isa::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
    return Isa::baseline;
}

Isa choose_isa() {
    const Isa best = best_isa();
    const char* wanted = std::getenv("ATROUS_ISA");
    if (wanted == nullptr || *wanted == '\0') return best;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (std::string(wanted) != isa_name(isa)) continue;
        if (isa <= best) return isa;
        throw std::runtime_error(std::string("ATROUS_ISA=") + wanted + ": this CPU runs at most " + isa_name(best));
    }
    throw std::runtime_error(std::string("ATROUS_ISA=") + wanted + ": expected baseline, avx2 or avx512");
}

}  // namespace

Isa active_isa() {
    static const Isa isa = choose_isa();
    return isa;
}

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        default:
            return "baseline";
    }
}

}  // namespace atrous
