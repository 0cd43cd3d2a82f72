"""What a quantization found out: plain values, which the report and the text summary show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...manifest import ClassInfo
from ...runtime.metrics import Scores

#: What accuracy is counted in: mean IoU where there are masks, else the share of pixels that are labelled as in FP32.
#: Both in percentage points.
Metric = Literal["miou", "agreement"]


@dataclass(frozen=True)
class SkippedPicture:
    """A picture of the calibration set that was left out because it cannot be read."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class TensorResult:
    """An activation that was observed and given a scale.

    Attributes:
        name: of the value in the FP32 graph.
        amax: the magnitude that becomes 127; what lies beyond is clipped.
        max_abs: the largest magnitude seen.
        sqnr_db: power of the values over that of their errors at `amax`, in dB; infinite where all are 0.
        counts: [B] int64, values whose magnitude lies in bin `b`, from `b * bin_width` to `(b + 1) * bin_width`.
        bin_width: in the unit of the activation.
    """

    name: str
    amax: float
    max_abs: float
    sqnr_db: float
    counts: NDArray[np.int64]
    bin_width: float

    @property
    def clipped_share(self) -> float:
        """Share of the values that lie in bins beyond `amax`, 0–1."""
        total = int(self.counts.sum())
        beyond = self.counts[int(np.ceil(self.amax / self.bin_width)) :]
        return int(beyond.sum()) / total if total else 0.0


@dataclass(frozen=True)
class LayerResult:
    """A convolution or matrix product that can be INT8.

    Attributes:
        name: of the node in the FP32 graph.
        op: its operator.
        sqnr_db: its output in the INT8 graph against FP32, in dB; None where it was not measured.
        alone_drop: points of agreement lost when this layer alone is INT8; None where it was not measured.
        kept_gain: points of agreement won when this layer alone is taken out of the INT8 graph; None likewise.
        reason: why it is not INT8; None where it is.
    """

    name: str
    op: str
    sqnr_db: float | None = None
    alone_drop: float | None = None
    kept_gain: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class BudgetStep:
    """One try to hold `max_drop`.

    Attributes:
        returned: all layers that this try had taken out of INT8; none in the first.
        drop: points lost against FP32, of the metric of the report's `accuracy`.
    """

    returned: tuple[str, ...]
    drop: float


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture as both graphs label it.

    Attributes:
        title: what to call it: the name of its file.
        image: [H, W, 3] uint8 RGB.
        fp32_labels: [H, W] uint8 class ids.
        int8_labels: likewise.
    """

    title: str
    image: NDArray[np.uint8]
    fp32_labels: NDArray[np.uint8]
    int8_labels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The INT8 graph against the FP32 graph.

    Attributes:
        pictures: how many were labelled by both.
        agreement: share of pixels with the same label, 0–1.
        fp32: scores against the masks; None without masks.
        int8: likewise.
    """

    pictures: int
    agreement: float
    fp32: Scores | None = None
    int8: Scores | None = None

    @property
    def drop(self) -> float:
        """Points lost: of mean IoU where there are masks, else of agreement."""
        if self.fp32 is None or self.int8 is None:
            return (1 - self.agreement) * 100
        return (self.fp32.miou - self.int8.miou) * 100

    @property
    def metric(self) -> Metric:
        """What `drop` is counted in."""
        return "agreement" if self.fp32 is None or self.int8 is None else "miou"


@dataclass(frozen=True, eq=False)
class QuantizationReport:
    """Everything that a quantization decided and measured.

    Attributes:
        name: of the bundle.
        created_by: program and version.
        classes: of the bundle, for names and colours.
        method: how thresholds were chosen from the histograms.
        seed: chose the pictures.
        images: how many pictures were observed.
        reused: whether the thresholds were taken from an earlier calibration on the same pictures.
        skipped: pictures that could not be read.
        model_sha256: of the FP32 graph.
        data_sha256: of the pictures.
        rest: what the layers that are not INT8 compute in.
        fp32_bytes: size of the FP32 graph.
        int8_bytes: size of the INT8 graph.
        accuracy: of the finished INT8 graph.
        sensitivity_pictures: how many pictures `layers` were measured on; 0 where they were not measured.
        tensors: every observed activation, in the order of the graph.
        layers: every layer that can be INT8, in the order of the graph.
        max_drop: the budget in points, or None.
        steps: the tries to hold it, in order; the one with the fewest layers returned that held was taken. Empty
            without a budget.
        samples: a few pictures, those that the graphs disagree on most first.
        seconds: that the quantization took.
        versions: package → version.
    """

    name: str
    created_by: str
    classes: tuple[ClassInfo, ...]
    method: str
    seed: int
    images: int
    reused: bool
    skipped: tuple[SkippedPicture, ...]
    model_sha256: str
    data_sha256: str
    rest: Literal["fp16", "fp32"]
    fp32_bytes: int
    int8_bytes: int
    accuracy: Accuracy
    sensitivity_pictures: int
    tensors: tuple[TensorResult, ...]
    layers: tuple[LayerResult, ...]
    max_drop: float | None
    steps: tuple[BudgetStep, ...]
    samples: tuple[Sample, ...]
    seconds: float
    versions: Mapping[str, str]
