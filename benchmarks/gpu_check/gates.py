"""What the dense CRF promises, and for which parameters."""

from __future__ import annotations

from typing import Final

from atrous.crf import CRFParams

SETS: Final = {
    "P1": CRFParams.deeplab_v2_resnet(),
    "P2": CRFParams.deeplab_v2_vgg(),
    "P3": CRFParams.pydensecrf_readme(),
}
#: On the CPU against pydensecrf, on a GPU against the CPU core, by storage: max |ΔQ|, and the share of labels that
#: may flip.
GATES: Final = {"fp32": (1e-4, 0.0), "unorm16": (1e-2, 1e-4)}
