// Which instruction set the hot loops run on: chosen once, at run time, so that one binary serves every CPU.
#pragma once

namespace atrous {

enum class Isa { baseline, avx2, avx512 };

/// The best instruction set of this CPU, or the lower one that the environment variable ATROUS_ISA names.
Isa active_isa();

const char* isa_name(Isa isa);

/// Picks the entry of a per-ISA table that active_isa() asks for.
template <typename Table>
const Table& select_by_isa(const Table& baseline, const Table& avx2, const Table& avx512) {
    switch (active_isa()) {
        case Isa::avx512:
            return avx512;
        case Isa::avx2:
            return avx2;
        default:
            return baseline;
    }
}

}  // namespace atrous
