"""Image in, labels out: a bundle, a backend and, if wanted, the dense CRF behind one call."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

from ..arguments import MAX_THREADS, check_arguments, check_arguments_besides, describe
from ..bundle import Bundle
from ..crf import CRFParams, DenseCRF
from ..crf.stored import crf_from_stored
from ..errors import ArgumentError, AtrousError, BundleError, CRFError, EngineError
from ..manifest import Artifact, ClassInfo, Manifest
from .backends import BACKENDS, Backend, DeviceBackend, open_backend
from .backends.select import find_spec
from .cpu.path import CpuPath
from .gpu.path import GpuPath
from .image import ImageSource
from .path import Path, ReadImage, read_image
from .result import Result
from .stabilization import check_share, stabilized


@check_arguments_besides("crf")
def load(
    bundle: Bundle | str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "auto",
    crf: bool | CRFParams | DenseCRF = False,
    threads: int = 0,
    workers: int = 1,
    fast: bool = False,
) -> Segmenter:
    """Open a bundle, ready to segment.

    Args:
        bundle: a `NAME.atrous` directory, or a bundle that is open already.
        backend: a name in `runtime.backends.BACKENDS`, or `auto` for the first that works: an engine of the bundle
            that fits here, ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU.
        precision: `fp32`, `fp16`, `int8`, `bf16` for the FP32 graph in the bfloat16 of a CPU that has it, or `auto` for
            the most precise graph.
        crf: refine with the dense CRF: True for the bundle's parameters and iterations (DeepLab v2's where it has
            none), parameters of your own, or a CRF as it is, `threads` of its own included. On a GPU its parameters,
            iterations and storage count, and all classes take part.
        threads: CPU threads; 0 for all cores.
        workers: threads on the GPU, each with two images in work and memory of its own; nothing on the CPU.
        fast: let `auto` take `bf16` where `add_bf16` verified it on this kind of CPU.

    Raises:
        BundleError: not a bundle, damaged, or of another version.
        EngineError: the backend is unknown or refuses the artifact, `threads` is negative, or this CPU has no bfloat16.
        DeviceError: a GPU was asked for and cannot be used.
        CRFError: the bundle's CRF parameters are unusable, and `crf=True` asks for them; or `crf` has an unsupported
            type.
        MissingDependencyError: the backend's library is not installed.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    while True:
        try:
            running = open_backend(opened, backend=backend, precision=precision, threads=threads, fast=fast)
        except BundleError:
            if isinstance(bundle, Bundle) or opened.is_current:
                raise
            opened = Bundle.open(bundle)  # a writer replaced it between our reading its manifest and its graph
        else:
            return Segmenter(opened, running, crf=_chosen_crf(opened, crf, threads), threads=threads, workers=workers)


class Segmenter:
    """Segments images with one opened bundle; safe to call from many threads.

    With a backend that computes on a GPU everything else happens there as well, and several images are in work at
    once.

    Args:
        bundle: describes input, output and classes.
        backend: runs the network.
        crf: refines the probabilities, or None.
        threads: of the native pre- and postprocessing; 0 for all cores.
        workers: threads on the GPU, each with two images in work; nothing on the CPU.

    A segmenter pickles, for the workers of `multiprocessing` and of data loaders: the other process opens the same
    artifact of the bundle, which must lie at the same path there, in the same backend, on a GPU a GPU of its own.

    Raises:
        EngineError: `workers` is less than 1, or `threads` is negative or excessive.
        DeviceError: the backend's GPU does not work.
    """

    @check_arguments
    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        crf: DenseCRF | None = None,
        threads: int = 0,
        workers: int = 1,
    ) -> None:
        artifact, infer = getattr(backend, "artifact", None), getattr(backend, "infer", None)
        if not (isinstance(artifact, Artifact) and callable(infer)):
            raise ArgumentError(
                f"backend must be an opened backend; got {describe(backend)}. `atrous.load` opens one",
                argument="backend",
            )
        if not 0 <= threads <= MAX_THREADS:
            raise EngineError(f"threads must be 0 (all cores) to {MAX_THREADS}; got {threads}")
        self.bundle = bundle
        self.backend = backend
        self.crf = crf
        self.threads = threads
        self._workers = workers
        self._path = _open_path(
            fitting_manifest(bundle.manifest, backend), backend, crf, threads=threads, workers=workers
        )

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours; `classes[i].id == i`."""
        return self.bundle.manifest.classes

    @property
    def in_work(self) -> int:
        """Images that a GPU works on at once; 0 on the CPU, where an image is done when `submit` returns."""
        return self._path.in_work

    def __call__(self, image: ImageSource) -> Result:
        """Segment one image: a path, a PIL image or an array [H, W, 3] uint8 RGB.

        Of a network with other bands, what `load_bands` takes: an array [H, W, B] of their type, or a TIFF.

        An image larger than the bundle's maximum input is cut into overlapping tiles.

        Raises:
            ImageError: the file is not a readable image.
            ShapeError: an array of another shape or dtype, or an image that cannot be tiled.
            EngineError: the backend failed.
        """
        self._path.check_may_wait()
        return self.submit(image).result()

    def submit(self, image: ImageSource) -> Future[Result]:
        """Segment one image on the GPU while the caller goes on; on the CPU it is done on return.

        Returns:
            A future of what a call returns or raises; `asyncio.wrap_future` makes it one to await.

        Raises:
            ImageError: the file is not a readable image.
            ShapeError: an array of another shape or dtype.
        """
        (future,) = self._path.submit([self._read(image)])
        return future

    @check_arguments
    def stream(self, images: Iterable[ImageSource], *, stabilize: float = 0.0) -> Iterator[Result]:
        """Segment images one after the other, those of a video for example; results come in the images' order.

        On the GPU the next images are read and copied while one is computed, so `images` runs ahead of the results,
        by two for each worker. Raises what a call raises, in its turn.

        Args:
            images: as a call takes them.
            stabilize: share of the previous frame where colours agree with it, at least 0 and below 1; `stabilized`
                says how. 0 leaves results as they are. With more, the CRF runs on the CPU.

        Raises:
            EvaluationError: `stabilize` is out of range.
        """
        if check_share(stabilize) == 0:
            return self._stream(images)
        network = Segmenter(self.bundle, self.backend, threads=self.threads, workers=self._workers)
        return stabilized(network.stream(images), self.bundle.manifest, self.crf, stabilize)

    def _stream(self, images: Iterable[ImageSource]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        for image in images:
            waiting.append(self._submit_or_fail(image))
            if len(waiting) > self._path.in_work:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    @check_arguments
    def batch(self, images: Sequence[ImageSource]) -> list[Result]:
        """Segment several images; those of one input size go through the network together.

        Timings of a shared inference are its time divided by the images in it. Raises what a single call raises.
        """
        self._path.check_may_wait()
        return [future.result() for future in self.submit_batch(images)]

    @check_arguments
    def submit_batch(self, images: Sequence[ImageSource]) -> list[Future[Result]]:
        """Segment several images as `batch` does, each with a future of its own, as `submit` returns it.

        Raises:
            ImageError: a file is not a readable image.
            ShapeError: an array of another shape or dtype.
        """
        return self._path.submit([self._read(image) for image in images])

    def close(self) -> None:
        """Give the GPU back; a segmenter that is forgotten does so by itself."""
        self._path.close()

    def __reduce__(self) -> tuple[Callable[..., Segmenter], tuple[object, ...]]:
        """Pickle as bundle, artifact and options; raises `EngineError` if that is not enough to open it again."""
        if self.backend.name not in BACKENDS:
            raise EngineError(
                f"a segmenter with the backend {self.backend.name!r} cannot be pickled, because another process could "
                f"not open it: expected {', '.join(BACKENDS)}. Make the segmenter in that process"
            )
        bundle = dataclasses.replace(self.bundle, path=self.bundle.path.absolute())
        return _reopen, (bundle, self.backend.name, self.backend.artifact, self.crf, self.threads, self._workers)

    def _read(self, image: ImageSource) -> ReadImage:
        return read_image(image, self.bundle.manifest.input.bands)

    def _submit_or_fail(self, image: ImageSource) -> Future[Result]:
        """A future in any case."""
        try:
            return self.submit(image)
        except AtrousError as exc:
            failed: Future[Result] = Future()
            failed.set_exception(exc)
            return failed


def _reopen(
    bundle: Bundle, backend: str, artifact: Artifact, crf: DenseCRF | None, threads: int, workers: int
) -> Segmenter:
    """Open a pickled segmenter; raises as `load`, and `BundleError` if the artifact is not the same file any longer."""
    running = find_spec(backend).open(bundle, artifact, threads=threads)
    return Segmenter(bundle, running, crf=crf, threads=threads, workers=workers)


def fitting_manifest(manifest: Manifest, backend: Backend) -> Manifest:
    """The manifest with the sizes that the backend's engine takes: it may have been built for fewer than the bundle."""
    engine = backend.artifact.engine
    if engine is None or engine.profile is None:
        return manifest
    return dataclasses.replace(manifest, input=manifest.input.within(engine.profile))


def _open_path(manifest: Manifest, backend: Backend, crf: DenseCRF | None, *, threads: int, workers: int) -> Path:
    """The path over the GPU where the backend computes there, else over the CPU."""
    if isinstance(backend, DeviceBackend):
        return GpuPath(manifest, backend, crf=crf, workers=workers)
    return CpuPath(manifest, backend.infer, source=backend.artifact.file, crf=crf, threads=threads)


def bundle_crf(bundle: Bundle, *, threads: int = 0, class_floor: float = 0.0) -> DenseCRF:
    """The dense CRF with the bundle's parameters and iterations, DeepLab v2's where it has none.

    Raises:
        CRFError: the bundle's parameters or `class_floor` are unusable.
    """
    return crf_from_stored(bundle.manifest.crf or {}, threads=threads, class_floor=class_floor)


def _chosen_crf(bundle: Bundle, crf: bool | CRFParams | DenseCRF, threads: int) -> DenseCRF | None:
    """The CRF that `load` is asked for."""
    if crf is False:
        return None
    if isinstance(crf, DenseCRF):
        return crf
    if crf is True:
        return bundle_crf(bundle, threads=threads)
    if not isinstance(crf, CRFParams):
        raise CRFError(f"crf must be True, False, a CRFParams or a DenseCRF, got {describe(crf)}")
    return DenseCRF(crf, threads=threads)
