"""Image in, labels out: a bundle, a backend and, if wanted, the dense CRF behind one call."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..crf import CRFParams, DenseCRF
from ..errors import AtrousError, CRFError, EngineError
from ..manifest import ClassInfo, Size
from .backends import Backend, DeviceBackend, open_backend
from .gpu_path import MAX_BATCH, GpuPath, ReadPicture
from .image import ImageSource, load_image
from .postprocess import upsample_labels, upsample_probabilities
from .preprocess import Geometry, plan_geometry, prepare_image
from .result import Result
from .tiling import blend_tiles, needs_tiles, plan_tiles


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "auto",
    crf: bool | CRFParams | DenseCRF = False,
    threads: int = 0,
    workers: int = 1,
) -> Segmenter:
    """Open a bundle, ready to segment.

    Args:
        path: a `NAME.atrous` directory.
        backend: a name in `runtime.backends.BACKENDS`, or `auto` for the first that works: an engine of the bundle
            that fits here, ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU.
        precision: `fp32`, `fp16`, `int8`, or `auto`.
        crf: refine with the dense CRF: True for the bundle's parameters (DeepLab v2's where it has none), parameters of
            your own, or a CRF as it is, `threads` of its own included. On a GPU its parameters, iterations and
            precision count.
        threads: CPU threads; 0 for all cores.
        workers: threads on the GPU, each with two pictures in work and memory of its own; nothing on the CPU.

    Raises:
        BundleError: not a bundle, damaged, or of another version.
        EngineError: the backend is unknown or refuses the artifact, or `threads` is negative.
        DeviceError: a GPU was asked for and cannot be used.
        CRFError: the bundle's CRF parameters are unusable, and `crf=True` asks for them; or `crf` is something else.
        MissingDependencyError: the backend's library is not installed.
    """
    bundle = Bundle.open(path)
    return Segmenter(
        bundle,
        open_backend(bundle, backend=backend, precision=precision, threads=threads),
        crf=_chosen_crf(bundle, crf, threads),
        threads=threads,
        workers=workers,
    )


class Segmenter:
    """Segments pictures with one opened bundle; safe to call from many threads.

    With a backend that computes on a GPU everything else happens there as well, and several pictures are in work at
    once.

    Args:
        bundle: describes input, output and classes.
        backend: runs the network.
        crf: refines the probabilities, or None.
        threads: of the native pre- and postprocessing; 0 for all cores.
        workers: threads on the GPU, each with two pictures in work; nothing on the CPU.

    Raises:
        EngineError: `workers` is less than 1.
        DeviceError: the backend's GPU does not work.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        crf: DenseCRF | None = None,
        threads: int = 0,
        workers: int = 1,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.crf = crf
        self.threads = threads
        manifest = bundle.manifest
        engine = backend.artifact.engine
        if engine is not None and engine.profile is not None:  # it may have been built for fewer sizes
            manifest = dataclasses.replace(manifest, input=manifest.input.within(engine.profile))
        self._input = manifest.input
        self._output = bundle.manifest.output
        self._gpu: GpuPath | None = None
        if isinstance(backend, DeviceBackend):
            self._gpu = GpuPath(manifest, backend, crf=crf, workers=workers)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours; `classes[i].id == i`."""
        return self.bundle.manifest.classes

    def __call__(self, image: ImageSource) -> Result:
        """Segment one picture: a path, a PIL image or an array [H, W, 3] uint8 RGB.

        A picture larger than the bundle's maximum input is cut into overlapping tiles.

        Raises:
            ImageError: the file is not a readable picture.
            ShapeError: an array of another shape or dtype, or a picture that cannot be tiled.
            EngineError: the backend failed.
        """
        if self._gpu is not None:
            self._gpu.check_may_wait()
        return self.submit(image).result()

    def submit(self, image: ImageSource) -> Future[Result]:
        """Segment one picture on the GPU while the caller goes on; on the CPU it is done on return.

        Returns:
            A future of what a call returns or raises; `asyncio.wrap_future` makes it one to await.

        Raises:
            ImageError: the file is not a readable picture.
            ShapeError: an array of another shape or dtype.
        """
        picture, geometry, clock = self._read(image)
        if self._gpu is not None:
            return self._gpu.submit([clock.stop(picture)])[0]
        done: Future[Result] = Future()
        try:
            done.set_result(self._segment(picture, geometry, clock))
        except AtrousError as exc:
            done.set_exception(exc)
        return done

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Result]:
        """Segment pictures one after the other, those of a video for example; results come in the pictures' order.

        On the GPU the next pictures are read and copied while one is computed, so `images` runs ahead of the results,
        by two for each worker. Raises what a call raises, in its turn.
        """
        ahead = self._gpu.in_work if self._gpu is not None else 0
        waiting: deque[Future[Result]] = deque()
        for image in images:
            waiting.append(self._submit_or_fail(image))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _submit_or_fail(self, image: ImageSource) -> Future[Result]:
        """A future in any case."""
        try:
            return self.submit(image)
        except AtrousError as exc:
            failed: Future[Result] = Future()
            failed.set_exception(exc)
            return failed

    def close(self) -> None:
        """Gives the GPU back; a segmenter that is forgotten does so by itself."""
        if self._gpu is not None:
            self._gpu.close()

    def batch(self, images: Sequence[ImageSource]) -> list[Result]:
        """Segment several pictures; those of one input size go through the network together.

        Timings of a shared inference are its time divided by the pictures in it. Raises what a single call raises.
        """
        if self._gpu is not None:
            return self._batch_on_gpu(self._gpu, images)
        results: list[Result | None] = [None] * len(images)
        waiting: defaultdict[tuple[int, int], list[_Pending]] = defaultdict(list)
        for index, image in enumerate(images):
            picture, geometry, clock = self._read(image)
            # A graph with a fixed size has a fixed batch of one as well.
            if self._input.size.is_fixed or self._needs_tiles(geometry):
                results[index] = self._segment(picture, geometry, clock)
                continue
            prepared = self._prepare(picture, geometry.input_size, clock)
            group = waiting[geometry.input_size]
            group.append(_Pending(index, picture, geometry, prepared, clock))
            if len(group) == MAX_BATCH:
                self._flush(group, results)
        for group in waiting.values():
            self._flush(group, results)
        return [result for result in results if result is not None]

    def _batch_on_gpu(self, gpu: GpuPath, images: Sequence[ImageSource]) -> list[Result]:
        read = [self._read(image) for image in images]
        return [future.result() for future in gpu.submit([clock.stop(pixels) for pixels, _, clock in read])]

    def _read(self, image: ImageSource) -> tuple[NDArray[np.uint8], Geometry, _Clock]:
        """A picture, where its logits will lie, and the clock of its stages."""
        clock = _Clock()
        with clock.measure("preprocess"):
            picture = load_image(image)
            return picture, plan_geometry(_size(picture), self._input), clock

    def _needs_tiles(self, geometry: Geometry) -> bool:
        return needs_tiles(geometry, self._input)

    def _segment(self, picture: NDArray[np.uint8], geometry: Geometry, clock: _Clock) -> Result:
        """One picture by itself, in tiles where it must be."""
        if self._needs_tiles(geometry):
            logits, geometry = self._run_tiled(picture, geometry, clock)
        else:
            logits = self._run_one(picture, geometry.input_size, clock)
        return self._finish(picture, logits, geometry, clock)

    def _run_one(self, picture: NDArray[np.uint8], input_size: Size, clock: _Clock) -> NDArray[np.float32]:
        """Coarse logits [C, h, w] of a picture or tile that fits into `input_size`."""
        prepared = self._prepare(picture, input_size, clock)
        with clock.measure("inference"):
            own: NDArray[np.float32] = self._infer(prepared[None])[0]
        return own

    def _prepare(self, picture: NDArray[np.uint8], input_size: Size, clock: _Clock) -> NDArray[np.float32]:
        with clock.measure("preprocess"):
            return prepare_image(picture, input_size, self._input, threads=self.threads)

    def _flush(self, group: list[_Pending], results: list[Result | None]) -> None:
        if not group:
            return
        start = time.perf_counter()
        logits = self._infer(np.stack([pending.prepared for pending in group]))
        share_ms = (time.perf_counter() - start) * 1e3 / len(group)
        for pending, own in zip(group, logits, strict=True):
            pending.clock.timings_ms["inference"] = share_ms
            results[pending.index] = self._finish(pending.picture, own, pending.geometry, pending.clock)
        group.clear()

    def _run_tiled(
        self, picture: NDArray[np.uint8], geometry: Geometry, clock: _Clock
    ) -> tuple[NDArray[np.float32], Geometry]:
        plan = plan_tiles(geometry, self._input, self._output)
        height, width = plan.tile_size

        def infer(top: int, left: int) -> NDArray[np.float32]:
            return self._run_one(picture[top : top + height, left : left + width], plan.tile_size, clock)

        logits = blend_tiles(plan, infer)
        return logits, Geometry(geometry.image_size, plan.full_size, plan.full_size)

    def _infer(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = self.backend.infer(prepared)
        if logits.shape[1] != len(self.classes):
            raise EngineError(
                f"{self.backend.artifact.file} gives {logits.shape[1]} classes; the manifest lists {len(self.classes)}"
            )
        return logits

    def _finish(
        self, picture: NDArray[np.uint8], logits: NDArray[np.float32], geometry: Geometry, clock: _Clock
    ) -> Result:
        """From coarse logits [C, h, w] to the result; full-resolution logits exist only where the CRF needs them."""

        def softmax() -> NDArray[np.float32]:
            return upsample_probabilities(
                logits,
                geometry.full_size,
                crop=geometry.image_size,
                align_corners=self._output.align_corners,
                threads=self.threads,
            )

        if self.crf is None:
            with clock.measure("postprocess"):
                labels = upsample_labels(
                    logits,
                    geometry.full_size,
                    crop=geometry.image_size,
                    align_corners=self._output.align_corners,
                    threads=self.threads,
                )
            return Result(labels, picture, self.classes, clock.timings_ms, softmax)
        with clock.measure("postprocess"):
            probabilities = softmax()
        with clock.measure("crf"):
            labels, marginals = self.crf.labels_and_marginals(probabilities, picture)
        return Result(labels, picture, self.classes, clock.timings_ms, lambda: marginals)


@dataclass
class _Clock:
    """Milliseconds by stage; a stage that runs several times adds up."""

    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3

    def stop(self, pixels: NDArray[np.uint8]) -> ReadPicture:
        """For the GPU, which times the other stages: so far the picture was only read."""
        return ReadPicture(pixels, self.timings_ms["preprocess"])


@dataclass(frozen=True)
class _Pending:
    """A picture of a batch that waits for its inference."""

    index: int
    picture: NDArray[np.uint8]
    geometry: Geometry
    prepared: NDArray[np.float32]
    clock: _Clock


def _size(picture: NDArray[np.uint8]) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def _chosen_crf(bundle: Bundle, crf: bool | CRFParams | DenseCRF, threads: int) -> DenseCRF | None:
    """The CRF that `load` is asked for."""
    if crf is False:
        return None
    if isinstance(crf, DenseCRF):
        return crf
    if crf is True:
        stored = bundle.manifest.crf
        crf = CRFParams.from_dict(stored) if stored else CRFParams.deeplab_v2_resnet()
    if not isinstance(crf, CRFParams):
        raise CRFError(f"crf must be True, False, a CRFParams or a DenseCRF, got {crf!r}")
    return DenseCRF(crf, threads=threads)
