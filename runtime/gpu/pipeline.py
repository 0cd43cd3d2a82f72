"""Images through the GPU: a pool of workers behind one queue, results as futures."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ...crf.cuda import CudaDenseCRF
from ...errors import EngineError, ShapeError
from ..band_images import Pixels
from .frame_program import FrameResult, Recipe
from .worker import Request, Requests, serve

if TYPE_CHECKING:
    from ...crf import DenseCRF
    from ...gpu import Device
    from ...manifest import Manifest
    from ..backends.base import DeviceBackend


class Pipeline:
    """Image → copy → preprocessing → engine → upsampling, with the CRF if wanted → labels, all on the GPU.

    Each worker is a thread with a device, three streams, and for each of the last few image sizes an engine of its
    own and a CUDA graph. Nobody else touches those, so any thread may submit. A worker has two batches in work: one is
    copied while the other is computed.

    Args:
        manifest: describes input, output and classes.
        backend: opens engines.
        crf: whose parameters, iterations and storage to refine with, or None.
        workers: threads on the GPU; each takes memory for itself.

    Raises:
        EngineError: `workers` is less than 1.
        MissingDependencyError: neither PyCUDA nor cuda-bindings is installed.
        DeviceError: there is no GPU that works.
        BundleError: the manifest has a softmax over one class.
    """

    def __init__(
        self, manifest: Manifest, backend: DeviceBackend, *, crf: DenseCRF | None = None, workers: int = 1
    ) -> None:
        if workers < 1:
            raise EngineError(f"workers must be 1 or more; got {workers}")
        recipe = Recipe(manifest.input, manifest.output, manifest.logits_channels, len(manifest.classes), backend)

        def make_crf(device: Device) -> CudaDenseCRF:
            assert crf is not None  # noqa: S101 - only called where there is one
            options: dict[str, Any] = {"iterations": crf.iterations, "storage": crf.storage}
            return CudaDenseCRF(crf.params, **options, compatibility=crf.compatibility, device=device)

        self._requests: Requests = SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._threads = threads = list[threading.Thread]()
        # Not a method: the threads must not keep the pipeline alive. Called when it is closed or forgotten, and at exit
        # before the GPU's contexts go, which the workers register first.
        self._stop = weakref.finalize(self, _stop, self._requests, threads)
        self._stop.atexit = False
        ready: list[Future[None]] = [Future() for _ in range(workers)]
        for index, one in enumerate(ready):
            arguments = (recipe, make_crf if crf is not None else None, self._requests, one)
            thread = threading.Thread(target=serve, args=arguments, name=f"atrous-gpu-{index}", daemon=True)
            thread.start()
            threads.append(thread)
        try:
            for one in ready:
                one.result()
        except BaseException:
            self._stop()
            raise
        atexit.register(self._stop)

    def submit(self, images: Sequence[Pixels], *, wants_probabilities: bool = False) -> Future[FrameResult]:
        """Segment a batch, later; returns at once.

        The images must not change before the result is there. Batches of one worker are done in order. `submit` never
        blocks, so an unbounded caller accumulates images: wait for earlier results, or use `Segmenter.stream`.

        Args:
            images: [H, W, 3] uint8 RGB, or of the network's bands, at least one, all of one size.
            wants_probabilities: copy the probabilities back as well.

        Returns:
            The result; `result()` raises what went wrong: EngineError, ShapeError, CRFError or DeviceError. The
            pipeline remains usable.

        Raises:
            ShapeError: there is no image, or they differ in size.
            EngineError: the pipeline is closed.
        """
        if len({image.shape for image in images}) != 1:
            shapes = [list(image.shape) for image in images]
            raise ShapeError(f"a batch is at least one image, and all are of one size; got {shapes}")
        request = Request(tuple(images), wants_probabilities)
        with self._lock:  # nothing comes after the workers are told to end
            if self._is_closed or not self._stop.alive:
                raise EngineError("the segmenter is closed; open a new one")
            self._requests.put(request)
        return request.future

    def check_may_wait(self) -> None:
        """Check that this thread may wait for results: a callback runs in the thread that would have to make them.

        Raises:
            EngineError: it may not.
        """
        if threading.current_thread() in self._threads:
            raise EngineError(
                "deadlock: a Future callback is waiting for the segmenter whose worker thread is running it. Do the "
                "work in another thread, or call submit() and do not wait"
            )

    def close(self) -> None:
        """Wait for what was submitted, and give the GPU back. May be called again."""
        with self._lock:
            self._is_closed = True
        atexit.unregister(self._stop)
        self._stop()


def _stop(requests: Requests, threads: list[threading.Thread]) -> None:
    for _ in threads:
        requests.put(None)
    for thread in threads:
        if thread is not threading.current_thread():  # the last reference may go in a worker
            thread.join()
