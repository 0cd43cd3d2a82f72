"""Every tolerance of the tests, each with the worst value measured and where."""

from __future__ import annotations

from typing import Final

#: Deinterlaced against dilated convolution in ONNX Runtime: max |difference| / max |reference|. Measured: 0, bit for
#: bit, over all of tests/exporter/passes (ONNX Runtime 1.31, AVX-512). Not 0 here because kernels for another CPU may
#: sum in another order; both forms are within 3.3e-7 of float64 (512 channels, rate 4).
DEINTERLACE_RELATIVE: Final = 1e-6

#: Reference networks with adapted weights against independent functional forwards, float32: max |difference| /
#: max |reference|. Measured: 4.7e-7 (smp DeepLabV3Plus ResNet-50, oneDNN on AVX-512); in float64, against the original
#: modules themselves, at most 1.2e-15 over all of them. A rate or stride that is off gives more than 1e-1.
ADAPTER_RELATIVE: Final = 1e-5

#: Dense CRF against the float64 step-by-step lattice: max |ΔQ|. Measured: PLACEHOLDER.
CRF_LATTICE_ABS: Final = 1e-5

#: Dense CRF against the exact sum over all pairs.
CRF_EXACT_MEAN_ABS: Final = 1e-2

#: Marginals of one pixel, summed in float32 over up to 256 classes: |sum − 1|.
CRF_SUM_ABS: Final = 1e-5

#: Bilinear upsampling against torch, logits of magnitude up to 20: max |difference|.
RESAMPLE_ABS: Final = 1e-5
