// The extension module atrous._native: the dense CRF core, the runtime's image kernels, calibration's histogram, and
// what they stand on.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu.hpp"
#include "isa.hpp"

namespace atrous {

void bind_calibration(pybind11::module_& module);
void bind_crf(pybind11::module_& module);
void bind_native(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);

}  // namespace atrous

PYBIND11_MODULE(_native, module) {
    atrous::active_isa();  // a wrong ATROUS_ISA must stop the import, not a later call
    module.def(
        "isa", [] { return atrous::isa_name(atrous::active_isa()); },
        "The instruction set in use: baseline, avx2 or avx512. ATROUS_ISA selects a lower one.");
    module.def(
        "cpu_kind",
        [] {
            return pybind11::make_tuple(atrous::cpu_kind().name,
                                        pybind11::tuple(pybind11::cast(atrous::cpu_kind().flags)));
        },
        "Name and flags of this CPU.");
    module.def(
        "cpu_has_bf16", [] { return atrous::cpu_kind().has_bf16(); }, "True if bfloat16 is computed, not emulated.");
    module.def(
        "cpu_sums_int8_exactly", [] { return atrous::cpu_kind().sums_int8_exactly(); },
        "False if sums of products of bytes overflow in the kernels of libraries.");
    atrous::bind_native(module);
    atrous::bind_calibration(module);
    atrous::bind_crf(module);
    atrous::bind_runtime(module);
}
