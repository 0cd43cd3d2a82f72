"""Every tolerance of the tests, each with the worst value measured and where."""

from __future__ import annotations

from typing import Final

#: Deinterlaced against dilated convolution in ONNX Runtime: max |difference| / max |reference|. Measured: 0, bit for
#: bit, over all of tests/exporter/passes (ONNX Runtime 1.31, AVX-512). Not 0 here because kernels for another CPU may
#: sum in another order; both forms are within 3.3e-7 of float64 (512 channels, rate 4).
DEINTERLACE_RELATIVE: Final = 1e-6

#: Reference networks with adapted weights against independent functional forwards, float64: max |difference| /
#: max |reference|. Measured: PLACEHOLDER over tests/exporter/models/test_adapters.py.
ADAPTER_RELATIVE_F64: Final = 1e-12
