"""Values of a quantization report, which the text and HTML renderers show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...arrays import Labels
from ...exporter.module_names import title
from ...manifest import ClassInfo
from ...runtime.metrics import Scores

#: Unit of accuracy: mean IoU with masks, otherwise the share of pixels with the same label as in FP32; both in
#: percentage points.
Metric = Literal["miou", "agreement"]


@dataclass(frozen=True)
class SkippedImage:
    """An unreadable image of the calibration set."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class TensorResult:
    """Range and histogram of one observed activation.

    Attributes:
        name: name of the value in the FP32 graph.
        amax: magnitude that maps to 127; larger ones are clipped.
        max_abs: largest magnitude observed.
        sqnr_db: power of the values over the power of their errors at `amax`, in dB; infinite if all are 0.
        counts: [B] int64, number of values in bin `b`, with magnitudes from `b * bin_width` to `(b + 1) * bin_width`.
        bin_width: width of a bin, in the unit of the activation.
    """

    name: str
    amax: float
    max_abs: float
    sqnr_db: float
    counts: NDArray[np.int64]
    bin_width: float

    @property
    def clipped_share(self) -> float:
        """Share of the values in bins beyond `amax`, 0–1."""
        total = int(self.counts.sum())
        beyond = self.counts[int(np.ceil(self.amax / self.bin_width)) :]
        return int(beyond.sum()) / total if total else 0.0


@dataclass(frozen=True)
class LayerResult:
    """Result of one layer (convolution or matrix product) that can be INT8.

    Attributes:
        name: name of the node in the FP32 graph.
        op: its operator.
        sqnr_db: SQNR of its output in the INT8 graph against FP32, in dB; None if not measured.
        alone_drop: points of agreement lost with only this layer in INT8; None if not measured.
        kept_gain: points of agreement gained by removing only this layer from INT8; None if not measured.
        reason: why the layer is not INT8; None if it is.
        module: path of its PyTorch module, as `backbone.layer3.0.conv2`; None where it is not known.
    """

    name: str
    op: str
    sqnr_db: float | None = None
    alone_drop: float | None = None
    kept_gain: float | None = None
    reason: str | None = None
    module: str | None = None

    @property
    def title(self) -> str:
        """Name for people: the module and, in brackets, the node."""
        return title(self.name, self.module)


@dataclass(frozen=True)
class BudgetStep:
    """One attempt to hold `max_drop`.

    Attributes:
        returned: all layers removed from INT8 in this attempt; none in the first.
        drop: points lost against FP32, in the metric of the report's `accuracy`.
    """

    returned: tuple[str, ...]
    drop: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Labels of both graphs on one image.

    Attributes:
        title: name of the image file.
        image: [H, W, 3] uint8 RGB.
        fp32_labels: [H, W] class ids.
        int8_labels: [H, W] class ids.
    """

    title: str
    image: NDArray[np.uint8]
    fp32_labels: Labels
    int8_labels: Labels


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Accuracy of the INT8 graph against the FP32 graph.

    Attributes:
        images: number of images labelled by both.
        agreement: share of pixels with the same label, 0–1.
        fp32: scores against the masks; None without masks.
        int8: scores against the masks; None without masks.
    """

    images: int
    agreement: float
    fp32: Scores | None = None
    int8: Scores | None = None

    @property
    def drop(self) -> float:
        """Points lost: of mean IoU with masks, otherwise of agreement."""
        if self.fp32 is None or self.int8 is None:
            return (1 - self.agreement) * 100
        return (self.fp32.miou - self.int8.miou) * 100

    @property
    def metric(self) -> Metric:
        """Unit of `drop`."""
        return "agreement" if self.fp32 is None or self.int8 is None else "miou"


@dataclass(frozen=True, eq=False)
class QuantizationReport:
    """Decisions and measurements of a quantization.

    Attributes:
        name: name of the bundle.
        created_by: program and version.
        classes: names and colours of the bundle's classes.
        method: method that chose the thresholds from the histograms.
        seed: random seed with which the images were chosen.
        images: number of images observed.
        reused: the thresholds come from an earlier calibration on the same images.
        skipped: unreadable images.
        model_sha256: hash of the FP32 graph.
        data_sha256: hash of the images and their preprocessing.
        rest: precision of the layers that are not INT8.
        fp32_bytes: size of the FP32 graph.
        int8_bytes: size of the INT8 graph.
        accuracy: accuracy of the final INT8 graph.
        sensitivity_images: number of images for the sensitivity of `layers`; 0 if it was not measured.
        tensors: every observed activation, in the order of the graph.
        layers: every layer that can be INT8, in the order of the graph.
        max_drop: the budget in points, or None.
        steps: attempts to hold it, in order; the one that held with the fewest layers removed was taken. Empty without
            a budget.
        samples: a few images, the ones with the lowest agreement first.
        seconds: duration of the quantization.
        versions: package → version.
    """

    name: str
    created_by: str
    classes: tuple[ClassInfo, ...]
    method: str
    seed: int
    images: int
    reused: bool
    skipped: tuple[SkippedImage, ...]
    model_sha256: str
    data_sha256: str
    rest: Literal["fp16", "fp32"]
    fp32_bytes: int
    int8_bytes: int
    accuracy: Accuracy
    sensitivity_images: int
    tensors: tuple[TensorResult, ...]
    layers: tuple[LayerResult, ...]
    max_drop: float | None
    steps: tuple[BudgetStep, ...]
    samples: tuple[Sample, ...]
    seconds: float
    versions: Mapping[str, str]
