#include "cpu.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace atrous {
namespace {

#if defined(__x86_64__)

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned part = 0) {
    Registers found;
    __get_cpuid_count(leaf, part, &found.eax, &found.ebx, &found.ecx, &found.edx);
    return found;
}

/// What the system saves of the registers (XCR0); 0 where it saves none beyond SSE.
unsigned saved_states() {
    constexpr unsigned kOsSaves = 1u << 27;
    if ((cpuid(1).ecx & kOsSaves) == 0) return 0;
    unsigned low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

std::vector<std::string> read_flags() {
    constexpr unsigned kYmm = 0x06, kZmm = 0xe6, kTiles = 0x60006;  // bits of XCR0
    const unsigned saved = saved_states();
    const Registers seven = cpuid(7), more = cpuid(7, 1);
    struct Flag {
        const char* name;
        unsigned word, bit, states;
    };
    const Flag known[] = {
        {"avx2", seven.ebx, 5, kYmm},         {"avx_vnni", more.eax, 4, kYmm},     {"avx512f", seven.ebx, 16, kZmm},
        {"avx512_vnni", seven.ecx, 11, kZmm}, {"avx512_bf16", more.eax, 5, kZmm},  {"avx512_fp16", seven.edx, 23, kZmm},
        {"amx_bf16", seven.edx, 22, kTiles},  {"amx_int8", seven.edx, 25, kTiles}, {"amx_fp16", more.eax, 21, kTiles},
    };
    std::vector<std::string> flags;
    for (const Flag& flag : known) {
        if ((flag.word >> flag.bit & 1u) != 0 && (saved & flag.states) == flag.states) flags.emplace_back(flag.name);
    }
    return flags;
}

std::string read_name() {
    char brand[49] = {};
    for (unsigned part = 0; part < 3; ++part) {
        const Registers found = cpuid(0x80000002u + part);
        std::memcpy(brand + 16 * part, &found, 16);
    }
    std::string name = brand;
    name.erase(name.find_last_not_of(' ') + 1);
    name.erase(0, std::min(name.find_first_not_of(' '), name.size()));
    // A virtual machine may say no more than "AMD EPYC": family and model tell the generations apart.
    const unsigned version = cpuid(1).eax;
    const unsigned base = version >> 8 & 0xf;
    const unsigned family = base == 0xf ? base + (version >> 20 & 0xff) : base;
    const unsigned model = (version >> 4 & 0xf) | (base == 6 || base == 0xf ? version >> 12 & 0xf0 : 0);
    return (name.empty() ? "x86-64" : name) + ", family " + std::to_string(family) + ", model " + std::to_string(model);
}

#else

/// The value of the first line of /proc/cpuinfo with this key, or nothing.
std::string cpuinfo(const std::string& key) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.compare(0, key.size(), key) == 0) return line.substr(std::min(line.find(": ") + 2, line.size()));
    }
    return "";
}

std::string read_name() {
    const std::string part = cpuinfo("CPU part");
    return part.empty() ? "unknown" : "implementer " + cpuinfo("CPU implementer") + ", part " + part;
}

std::vector<std::string> read_flags() {
    std::vector<std::string> flags;
#if defined(__aarch64__) && defined(__linux__)
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    if ((first >> 20 & 1u) != 0) flags.emplace_back("asimddp");
    if ((first >> 22 & 1u) != 0) flags.emplace_back("sve");
    if ((second >> 13 & 1u) != 0) flags.emplace_back("i8mm");
#endif
    return flags;
}

#endif

}  // namespace

bool CpuKind::has_bf16() const {
    return std::any_of(flags.begin(), flags.end(),
                       [](const std::string& flag) { return flag == "avx512_bf16" || flag == "amx_bf16"; });
}

bool CpuKind::sums_int8_exactly() const {
#if defined(__x86_64__)
    const auto has = [this](const char* flag) { return std::find(flags.begin(), flags.end(), flag) != flags.end(); };
    return has("avx_vnni") || has("avx512_vnni") || has("amx_int8");
#else
    return true;
#endif
}

const CpuKind& cpu_kind() {
    static const CpuKind kind{read_name(), read_flags()};
    return kind;
}

}  // namespace atrous
