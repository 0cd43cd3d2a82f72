"""Pictures, and segmenters of them on the CPU and on a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from standins.onnx_device_backend import OnnxDeviceBackend

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.exporter.sizes import DynamicSize
from atrous.runtime.backends import open_reference
from atrous.runtime.segmenter import Segmenter

SIZES = DynamicSize((16, 16), (64, 64), (256, 256), multiple=8)
CRF = CRFParams.deeplab_v2_resnet()

Pixels = NDArray[np.uint8]


def picture(size: tuple[int, int], seed: int = 0) -> Pixels:
    """Blocks of colour with some noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(30, 226, size=(size[0] // 9 + 1, size[1] // 11 + 1, 3))
    blocks = blocks.repeat(9, axis=0).repeat(11, axis=1)[: size[0], : size[1]]
    return np.clip(blocks + rng.integers(-12, 13, size=(*size, 3)), 0, 255).astype(np.uint8)


def on_cpu(bundle: Bundle, crf: DenseCRF | None = None) -> Segmenter:
    """What a segmenter on a device is compared with."""
    return Segmenter(bundle, open_reference(bundle), crf=crf)


class Opened:
    """Segmenters on the device, closed after the test."""

    def __init__(self) -> None:
        self.segmenters: list[Segmenter] = []

    def __call__(self, bundle: Bundle, *args, crf: DenseCRF | None = None, workers: int = 1, **options) -> Segmenter:
        backend = OnnxDeviceBackend(bundle, *args, **options)
        self.segmenters.append(Segmenter(bundle, backend, crf=crf, workers=workers))
        return self.segmenters[-1]
