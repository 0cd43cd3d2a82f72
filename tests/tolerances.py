"""Every tolerance of the tests, each with the worst value measured and where."""

from __future__ import annotations

from typing import Final

#: Deinterlaced against dilated convolution in ONNX Runtime: max |difference| / max |reference|.
DEINTERLACE_RELATIVE: Final = 1e-5
