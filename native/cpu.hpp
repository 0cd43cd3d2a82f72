// The kind of CPU that this process runs on: what a measurement of speed holds for.
#pragma once

#include <string>
#include <vector>

namespace atrous {

struct CpuKind {
    std::string name;                ///< "Intel(R) Xeon(R) Platinum 8488C, family 6, model 143"; never empty
    std::vector<std::string> flags;  ///< those below that it has and the system lets run, named as Linux names them

    /// True if OpenVINO computes products in bfloat16 with instructions of this CPU, and does not emulate them.
    bool has_bf16() const;

    /// False where libraries add products of bytes in 16 bits, which overflow: an x86-64 without VNNI.
    bool sums_int8_exactly() const;

    friend bool operator==(const CpuKind& left, const CpuKind& right) {
        return left.name == right.name && left.flags == right.flags;
    }
};

/// Read from the CPU once. ATROUS_ISA does not change it: libraries do not obey that.
const CpuKind& cpu_kind();

}  // namespace atrous
