#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace atrous {
namespace {

#if defined(__x86_64__)
/// What for_each_isa.inc compiles for: a CPU must have all of it, and a system that saves its registers. Read from the
/// CPU itself: __builtin_cpu_supports() answers from the compiler's own library, and Zig's says no to everything.
Isa best_isa() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return Isa::baseline;
    constexpr unsigned kSaved = bit_OSXSAVE | bit_AVX | bit_FMA;
    if ((ecx & kSaved) != kSaved || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return Isa::baseline;
    unsigned saved = 0, upper = 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
    constexpr unsigned kYmm = 0x06, kZmm = 0xe6;  // state components: SSE and AVX; the three of AVX-512 besides
    constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((saved & kYmm) != kYmm || (ebx & bit_AVX2) == 0) return Isa::baseline;
    return (saved & kZmm) == kZmm && (ebx & kAvx512) == kAvx512 ? Isa::avx512 : Isa::avx2;
}
#else
Isa best_isa() {
    return Isa::baseline;
}
#endif

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
