"""State of one frame in work; several slots let several frames be under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import label_type
from ...crf.cuda_field import REPORT_BYTES
from ...gpu import Buffer, Device, Graph, Region, ceil_div
from ...manifest import Size

#: Frames of one size in work at once: while one is computed, the next is copied.
SLOTS: Final = 2

#: Where things lie in what is copied back: the first logit that is not finite, the report of the CRF, the labels.
_CRF_REPORT_AT: Final = 16
_LABELS_AT: Final = _CRF_REPORT_AT + REPORT_BYTES
_ALIGNMENT: Final = 16


@dataclass(frozen=True, slots=True)
class FrameKey:
    """Key of a program: everything that it depends on besides the bundle.

    Attributes:
        count: images of a batch.
        size: (H, W) of each of them.
        wants_probabilities: whether they are copied back with the labels.
    """

    count: int
    size: Size
    wants_probabilities: bool


class Slot:
    """State of one frame in work: its images and results on host and device, and its events."""

    def __init__(self, device: Device, key: FrameKey, classes: int, pixel_bytes: int) -> None:
        pixels = key.count * key.size[0] * key.size[1]
        label_bytes = pixels * label_type(classes).itemsize
        probabilities_at = _LABELS_AT + ceil_div(label_bytes, _ALIGNMENT) * _ALIGNMENT
        answer_bytes = probabilities_at + (4 * classes * pixels if key.wants_probabilities else 0)
        self.pictures = device.allocate(ceil_div(pixel_bytes * pixels, 4) * 4)
        self.answer = device.allocate(answer_bytes)
        self.sent = device.allocate_host(pixel_bytes * pixels)
        self.received = device.allocate_host(answer_bytes)
        self.first_bad = Region(self.answer, 0, 4)
        self.crf_report = Region(self.answer, _CRF_REPORT_AT, REPORT_BYTES)
        self.labels = Region(self.answer, _LABELS_AT, label_bytes)
        self.probabilities = Region(self.answer, probabilities_at, answer_bytes - probabilities_at)
        self.upload = (device.event(), device.event())
        self.stages = [device.event() for _ in range(5)]
        self.computed = device.event()
        self.download = (device.event(), device.event())
        self.graph: Graph | None = None
        self.is_free = True

    @property
    def memory(self) -> dict[str, Buffer]:
        """Buffers that the launch plan names."""
        names = ("pictures", "first_bad", "labels", "probabilities")
        return {name: getattr(self, name) for name in names}

    def bytes_received(self, region: Region) -> NDArray[np.uint8]:
        """One part of the results on the host; the next frame overwrites it."""
        return self.received[region.offset : region.offset + region.nbytes]
