// The extension module atrous._native: the dense CRF core, the runtime's image kernels, calibration's histogram, and
// what they stand on.
#include <pybind11/pybind11.h>

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
    atrous::bind_native(module);
    atrous::bind_calibration(module);
    atrous::bind_crf(module);
    atrous::bind_runtime(module);
}
