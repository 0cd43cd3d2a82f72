"""Test-time augmentation, as published scores are measured: mirrored images, and windows that slide over the image.

As in mmsegmentation: logits of overlapping windows are averaged, and probabilities of an image and its mirror image.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..arguments import check_fields
from ..arrays import FloatArray, label_type
from ..bundle import Bundle
from ..crf import DenseCRF
from ..errors import EvaluationError
from ..manifest import ClassInfo, Size
from .backends import Backend
from .band_images import Pixels
from .channels import refined_labels
from .image import ImageSource
from .path import read_image
from .preprocess import color_image
from .result import Result, unchanged
from .segmenter import Segmenter


@dataclass(frozen=True)
class Augmentation:
    """Views of one image that are averaged.

    Attributes:
        flip: the image, and its mirror image.
        window: (height, width) of windows that slide over the image, smaller at most as the image is; None for whole
            images.
        stride: (vertical, horizontal) pixels from window to window; None for two thirds of the window.
    """

    flip: bool = False
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name, size in (("window", self.window), ("stride", self.stride)):
            if size is not None and min(size) < 1:
                raise EvaluationError(f"a {name} has a positive height and width; got {size}")
        if self.stride is not None:
            if self.window is None:
                raise EvaluationError("a stride is that of windows; pass the window as well")
            if any(step > length for step, length in zip(self.stride, self.window, strict=True)):
                raise EvaluationError(f"a stride of {self.stride} leaves gaps between windows of {self.window}")

    def to_dict(self) -> dict[str, Any]:
        """JSON values that say the same."""
        return {"flip": self.flip, "window": self.window, "stride": self.steps}

    @property
    def steps(self) -> Size | None:
        """Pixels from window to window; None without windows."""
        if self.window is None:
            return None
        height, width = self.window
        return self.stride or (max(1, height * 2 // 3), max(1, width * 2 // 3))

    def windows(self, size: Size) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each window over an image; the last ones end with the image."""
        if self.window is None or self.steps is None:
            yield slice(0, size[0]), slice(0, size[1])
            return
        axes = zip(size, self.window, self.steps, strict=True)
        yield from itertools.product(*(list(_spans(*axis)) for axis in axes))


def _spans(length: int, window: int, step: int) -> Iterator[slice]:
    window = min(window, length)
    for index in range(-(-(length - window) // step) + 1):
        start = min(index * step, length - window)
        yield slice(start, start + window)


class AugmentedSegmenter:
    """A segmenter that averages what it says of several views of an image; the CRF, if any, comes behind, on the CPU.

    Args:
        segmenter: runs the network.
        augmentation: the views.

    Raises:
        EvaluationError: windows are asked for, and the bundle resizes each image to its input.
    """

    def __init__(self, segmenter: Segmenter, augmentation: Augmentation) -> None:
        resize = segmenter.bundle.manifest.input.resize
        if augmentation.window is not None and resize != "none":
            raise EvaluationError(
                f"the bundle resizes its images ({resize}), so each window would be resized as well; expected a bundle "
                "with resize none. Export it without --resize, or leave the window out"
            )
        self.augmentation = augmentation
        self.bundle: Bundle = segmenter.bundle
        self.backend: Backend = segmenter.backend
        self.crf: DenseCRF | None = segmenter.crf
        self._segmenter = Segmenter(segmenter.bundle, segmenter.backend, threads=segmenter.threads)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours; `classes[i].id == i`."""
        return self.bundle.manifest.classes

    def __call__(self, image: ImageSource) -> Result:
        """Segment one image; raises as a segmenter does."""
        bands = self.bundle.manifest.input.bands
        read = read_image(image, bands)
        timings_ms = {"preprocess": read.read_ms}
        probabilities = self._windowed(read.pixels, timings_ms)
        if self.augmentation.flip:
            mirrored = self._windowed(np.ascontiguousarray(read.pixels[:, ::-1]), timings_ms)
            probabilities = np.float32(0.5) * (probabilities + mirrored[:, :, ::-1])
        labels = probabilities.argmax(axis=0).astype(label_type(len(self.classes)))
        if self.crf is not None:
            start = time.perf_counter()
            labels, probabilities = self.crf.labels_and_marginals(
                probabilities, color_image(read.pixels, bands, weighted=True)
            )
            timings_ms["crf"] = (time.perf_counter() - start) * 1e3
        labels = refined_labels(labels, probabilities, self.bundle.manifest.output.channels)
        return Result(labels, read.pixels, self.classes, timings_ms, partial(unchanged, probabilities), bands)

    def _windowed(self, pixels: Pixels, timings_ms: dict[str, float]) -> FloatArray:
        """Probabilities [C, H, W] whose logits are the mean of those of the windows."""
        height, width = pixels.shape[:2]
        total = np.zeros((len(self.classes), height, width), np.float32)
        times = np.zeros((height, width), np.float32)
        for rows, columns in self.augmentation.windows((height, width)):
            result = self._segmenter(np.ascontiguousarray(pixels[rows, columns]))
            for stage, spent in result.timings_ms.items():
                timings_ms[stage] = timings_ms.get(stage, 0.0) + spent
            # Logarithms of probabilities are logits but for a constant of each pixel, which the softmax takes away.
            total[:, rows, columns] += np.log(np.maximum(result.probabilities, np.finfo(np.float32).tiny))
            times[rows, columns] += 1
        total /= times
        np.exp(total - total.max(axis=0), out=total)
        total /= total.sum(axis=0)
        return total
