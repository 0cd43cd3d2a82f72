"""Images to results on the CPU, around any network that takes and gives arrays of the host."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ...arrays import FloatArray, Labels
from ...crf import DenseCRF
from ...errors import AtrousError, EngineError
from ...manifest import Manifest, Size
from ..band_images import Pixels
from ..channels import label_logits, probability_logits, refined_labels
from ..path import MAX_BATCH, ReadImage
from ..postprocess import upsample_labels, upsample_probabilities
from ..preprocess import Geometry, color_image, plan_geometry, prepare_image
from ..result import Result, unchanged
from ..tiling import blend_tiles, needs_tiles, plan_tiles

#: Coarse logits [N, C, h, w] float32 of prepared images [N, bands, H, W] float32.
Infer = Callable[[FloatArray], FloatArray]


class CpuPath:
    """Prepares images, runs the network, and makes labels of its logits; everything is done when `submit` returns.

    Images larger than the network's maximum input are cut into overlapping tiles.

    Args:
        manifest: describes input, output and classes.
        infer: runs the network; safe to call from many threads.
        source: what errors call the network.
        crf: refines the probabilities, or None.
        threads: of preprocessing and upsampling; 0 for all cores.

    Raises:
        BundleError: the manifest has a softmax over one class.
    """

    def __init__(
        self, manifest: Manifest, infer: Infer, *, source: str, crf: DenseCRF | None = None, threads: int = 0
    ) -> None:
        self.in_work = 0
        self._inputs = manifest.input
        self._output = manifest.output
        self._classes = manifest.classes
        self._channels = manifest.logits_channels
        self._infer = infer
        self._source = source
        self._crf = crf
        self._threads = threads
        self._max_batch = MAX_BATCH if manifest.input.takes_batches else 1

    def submit(self, images: Sequence[ReadImage]) -> list[Future[Result]]:
        """A future for each image, in their order, all of them done; the same input sizes share an inference."""
        frames = [_Frame(image, plan_geometry(image.size, self._inputs)) for image in images]
        groups: defaultdict[Size, list[_Frame]] = defaultdict(list)
        for frame in frames:
            size = frame.geometry.input_size
            if needs_tiles(frame.geometry, self._inputs):
                with frame.errors():
                    self._segment_in_tiles(frame)
                continue
            groups[size].append(frame)
            if len(groups[size]) == self._max_batch:
                self._segment_together(groups.pop(size))
        for group in groups.values():
            self._segment_together(group)
        return [frame.future for frame in frames]

    def check_may_wait(self) -> None:
        """Waiting is always allowed: there is nothing to wait for."""

    def close(self) -> None:
        """Nothing is held."""

    def _segment_together(self, frames: Sequence[_Frame]) -> None:
        """Frames of one input size, in one inference."""
        try:
            prepared = [self._prepare(frame, frame.image.pixels, frame.geometry.input_size) for frame in frames]
            start = time.perf_counter()
            logits = self._run(prepared[0][None] if len(prepared) == 1 else np.stack(prepared))
            share_ms = (time.perf_counter() - start) * 1e3 / len(frames)
        except AtrousError as exc:
            for frame in frames:
                frame.future.set_exception(exc)
            return
        for frame, own in zip(frames, logits, strict=True):
            frame.timings_ms["inference"] = share_ms
            with frame.errors():
                self._finish(frame, own, frame.geometry)

    def coarse_logits(self, image: ReadImage) -> tuple[FloatArray, Geometry]:
        """Coarse logits [channels, h, w] float32 of an image, and where they lie in it.

        Raises:
            EngineError: the backend failed.
            ShapeError: the image cannot be tiled.
        """
        frame = _Frame(image, plan_geometry(image.size, self._inputs))
        if needs_tiles(frame.geometry, self._inputs):
            return self._blend_tiles(frame)
        prepared = self._prepare(frame, image.pixels, frame.geometry.input_size)
        return self._run(prepared[None])[0], frame.geometry

    def probabilities(self, logits: FloatArray, geometry: Geometry) -> FloatArray:
        """Probabilities [C, H, W] float32 of coarse logits, as the CRF gets them."""
        return self._activation(logits, geometry)()

    def labels(self, logits: FloatArray, geometry: Geometry) -> Labels:
        """Labels [H, W] of coarse logits without a CRF."""
        return upsample_labels(
            label_logits(logits, self._output.channels),
            geometry,
            align_corners=self._output.align_corners,
            threads=self._threads,
        )

    def _segment_in_tiles(self, frame: _Frame) -> None:
        self._finish(frame, *self._blend_tiles(frame))

    def _blend_tiles(self, frame: _Frame) -> tuple[FloatArray, Geometry]:
        plan = plan_tiles(frame.geometry, self._inputs, self._output)
        height, width = plan.tile_size

        def infer(top: int, left: int) -> FloatArray:
            tile = frame.image.pixels[top : top + height, left : left + width]
            prepared = self._prepare(frame, tile, plan.tile_size)
            with frame.measure("inference"):
                own: FloatArray = self._run(prepared[None])[0]
            return own

        logits = blend_tiles(plan, infer)
        return logits, Geometry(frame.geometry.image_size, plan.full_size, self._inputs.resize)

    def _prepare(self, frame: _Frame, pixels: Pixels, input_size: Size) -> FloatArray:
        """The network's input [bands, H, W] of an image or a tile of it."""
        with frame.measure("preprocess"):
            return prepare_image(pixels, input_size, self._inputs, threads=self._threads)

    def _run(self, prepared: FloatArray) -> FloatArray:
        logits = self._infer(prepared)
        if logits.shape[1] != self._channels:
            raise EngineError(f"{self._source} gives {logits.shape[1]} channels; the manifest says {self._channels}")
        return logits

    def _finish(self, frame: _Frame, logits: FloatArray, geometry: Geometry) -> None:
        """Make the result of coarse logits [channels, h, w]; full-size ones exist only where the CRF needs them."""
        channels = self._output.channels
        activated = self._activation(logits, geometry)
        pixels, bands, timings_ms = frame.image.pixels, self._inputs.bands, frame.timings_ms
        if self._crf is None:
            with frame.measure("postprocess"):
                labels = self.labels(logits, geometry)
            frame.future.set_result(Result(labels, pixels, self._classes, timings_ms, activated, bands))
            return
        with frame.measure("postprocess"):
            probabilities = activated()
        with frame.measure("crf"):
            colors = color_image(pixels, bands, weighted=True)
            most_probable, marginals = self._crf.labels_and_marginals(probabilities, colors)
            labels = refined_labels(most_probable, marginals, channels)
        frame.future.set_result(Result(labels, pixels, self._classes, timings_ms, partial(unchanged, marginals), bands))

    def _activation(self, logits: FloatArray, geometry: Geometry) -> Callable[[], FloatArray]:
        """The computation of probabilities [C, H, W]; it pickles with the coarse logits, which are small."""
        return partial(
            upsample_probabilities,
            probability_logits(logits, self._output.channels),
            geometry,
            align_corners=self._output.align_corners,
            threads=self._threads,
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    """An image on its way.

    Attributes:
        geometry: where its logits will lie.
        timings_ms: milliseconds by stage; a stage that runs several times adds up.
        future: gets the result, or the error.
    """

    image: ReadImage
    geometry: Geometry
    timings_ms: dict[str, float] = field(default_factory=dict)
    future: Future[Result] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.timings_ms["preprocess"] = self.image.read_ms

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        yield
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Pass what the block raises on to the future."""
        try:
            yield
        except AtrousError as exc:
            self.future.set_exception(exc)
