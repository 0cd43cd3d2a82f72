"""Labels of a quantized graph against those of the FP32 graph, as the runtime labels whole images."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..arrays import Labels
from ..bundle import Bundle
from ..errors import CalibrationError, ImageError
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from ..runtime.band_images import Pixels, load_pixels
from ..runtime.cpu.path import CpuPath, Infer
from ..runtime.evaluation import Pair, load_truth, pair_by_stem
from ..runtime.image import ImageSource
from ..runtime.mask_rules import MaskRules
from ..runtime.masks import MaskReader, check_void
from ..runtime.metrics import Counts, Tally
from ..runtime.path import read_image
from ..runtime.preprocess import color_image
from .parallel_map import parallel_map
from .report.model import Accuracy, Sample, SkippedImage


@dataclass(frozen=True, eq=False)
class Comparison:
    """One graph against FP32.

    Attributes:
        accuracy: over all images.
        agreements: share of pixels with the same label, 0–1, for each image in order.
    """

    accuracy: Accuracy
    agreements: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Labelled:
    """An image's FP32 labels, compressed: a hundredth of their size, so that they can be kept for every image."""

    source: ImageSource | Pair
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    packed: bytes

    @classmethod
    def pack(cls, source: ImageSource | Pair, labels: Labels) -> _Labelled:
        return cls(source, (labels.shape[0], labels.shape[1]), labels.dtype, zlib.compress(labels.tobytes(), level=1))

    @property
    def labels(self) -> Labels:
        return np.frombuffer(zlib.decompress(self.packed), self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class _Segmented:
    """An image, its labels, and how those compare with its mask, if it has one."""

    picture: Labels
    labels: Labels
    counts: Counts | None


class Reference:
    """The labels of the FP32 graph, which those of other graphs are compared with.

    Inference is ONNX Runtime's on the CPU, a thread an image; the rest is what `atrous eval` does, tiles included.

    Args:
        bundle: has an FP32 graph.
        pictures: as the runtime takes them; files, where there are masks. Unreadable ones are left out.
        masks: folder with a mask `NAME.png` for each image `NAME.*`, or None.
        ignore: ids of masks that are void, besides the bundle's own.
        rules: how masks are called and what their pixels mean.
        progress: told of each image.

    Attributes:
        skipped: the images that were left out.

    Raises:
        CalibrationError: there are masks, and nothing in them is scored.
        EvaluationError: there are masks, and an image is no file or has none that fits it, or ids to ignore are out
            of range; or a class is in no mask while much is void.
        EngineError: ONNX Runtime fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        pictures: Sequence[ImageSource],
        *,
        masks: Path | None = None,
        ignore: Collection[int] = (),
        rules: MaskRules | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._bundle = bundle
        self._reader = MaskReader(bundle.manifest, ignore=ignore, rules=rules)
        self._pictures: list[_Labelled] = []
        self.skipped: list[SkippedImage] = []
        network = open_reference(bundle, precision="fp32", threads=1)
        path = self._path(network.infer, network.artifact.file)
        tally = self._tally()
        sources = pictures if masks is None else pair_by_stem(pictures, masks, rules)
        results = parallel_map(lambda source: self._try(path, source), sources)
        for number, (source, result) in enumerate(zip(sources, results, strict=True), start=1):
            if isinstance(result, ImageError):
                self.skipped.append(SkippedImage(_title(source, number), str(result)))
            else:
                if result.counts:
                    tally.add(result.counts)
                self._pictures.append(_Labelled.pack(source, result.labels))
            progress(number)
        self._scores = tally.scores() if masks else None
        if self._scores and math.isnan(self._scores.miou):
            raise CalibrationError(
                f"nothing in the masks is scored: every pixel of {masks} is void. Leave the masks out, or ignore fewer "
                "ids."
            )
        if self._scores:
            check_void(self._scores, bundle.manifest)

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """The images that could be read."""
        return tuple(_picture(known.source) for known in self._pictures)

    def compare(self, graph: onnx.ModelProto, *, progress: Callable[[int], None] = lambda _: None) -> Comparison:
        """Label every image with another graph; raises `EngineError` where ONNX Runtime fails in it."""
        tally = self._tally()
        agreements: list[float] = []
        equal = pixels = 0
        for number, (known, result) in enumerate(self._label(graph, self._pictures), start=1):
            same = int(np.count_nonzero(result.labels == known.labels))
            agreements.append(same / result.labels.size)
            equal, pixels = equal + same, pixels + result.labels.size
            if result.counts:
                tally.add(result.counts)
            progress(number)
        scores = tally.scores() if self._scores else None
        return Comparison(Accuracy(len(agreements), equal / pixels, self._scores, scores), tuple(agreements))

    def samples(self, graph: onnx.ModelProto, comparison: Comparison, *, most: int = 3) -> tuple[Sample, ...]:
        """The images on which the graph agreed least with FP32, the worst first."""
        worst = sorted(range(len(self._pictures)), key=lambda index: comparison.agreements[index])[:most]
        chosen = [self._pictures[index] for index in worst]
        return tuple(
            Sample(_title(known.source, index + 1), result.picture, known.labels, result.labels)
            for index, (known, result) in zip(worst, self._label(graph, chosen), strict=True)
        )

    def _label(self, graph: onnx.ModelProto, pictures: Sequence[_Labelled]) -> Iterator[tuple[_Labelled, _Segmented]]:
        session = OnnxSession(graph.SerializeToString(), name="the quantized graph", threads=1)
        path = self._path(session.infer, session.name)
        results = parallel_map(lambda known: self._segment(path, known.source), pictures)
        return zip(pictures, results, strict=True)

    def _path(self, infer: Infer, source: str) -> CpuPath:
        """The steps of `atrous eval` around a network, with a thread for each image."""
        return CpuPath(self._bundle.manifest, infer, source=source, threads=1)

    def _try(self, path: CpuPath, source: ImageSource | Pair) -> _Segmented | ImageError:
        try:
            return self._segment(path, source)
        except ImageError as exc:
            return exc

    def _segment(self, path: CpuPath, source: ImageSource | Pair) -> _Segmented:
        bands = self._bundle.manifest.input.bands
        if not isinstance(source, Pair):
            pixels = load_pixels(source, bands)
            return _Segmented(color_image(pixels, bands), self._labels(path, pixels), None)
        truth = load_truth(source, self._reader, self._bundle.manifest)
        labels = self._labels(path, truth.picture)
        return _Segmented(color_image(truth.picture, bands), labels, truth.count(labels))

    def _labels(self, path: CpuPath, pixels: Pixels) -> Labels:
        """Labels [H, W] of an image [H, W, bands]."""
        (future,) = path.submit([read_image(pixels, self._bundle.manifest.input.bands)])
        return future.result().labels

    def _tally(self) -> Tally:
        return Tally(len(self._bundle.manifest.classes), ignored=self._reader.ignored)


def _picture(source: ImageSource | Pair) -> ImageSource:
    return source.image if isinstance(source, Pair) else source


def _title(source: ImageSource | Pair, number: int) -> str:
    path = _picture(source)
    return Path(path).name if isinstance(path, (str, os.PathLike)) else f"picture {number}"
