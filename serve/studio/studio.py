"""Work of a studio: the network through the model's queue, the dense CRF on threads of its own."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from starlette.requests import Request

from ...bundle import Bundle, extend_bundle
from ...errors import BundleError
from ...manifest_schema import SCHEMA_VERSION
from ...runtime.result import Result
from ...runtime.segmenter import Segmenter
from ..inference import confidence_of
from ..models import Model, OpenedBundle
from ..refusals import RefusedError
from ..service import Service, Task, trace_of
from .kept import KeptImage, KeptImages, Outcome
from .refinement import Refinement, preview_step, refine

T = TypeVar("T")

#: Images and what was made of them, of all pages together.
_KEPT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class View:
    """Choice of what a page shows of an image.

    Attributes:
        precision: of the network.
        refinement: of the CRF; None without it.
        is_preview: whether a coarse one is enough.
    """

    precision: str
    refinement: Refinement | None = None
    is_preview: bool = False


class Studio(AbstractContextManager["Studio"]):
    """Means with which the routes of a page do their work; a context manager that ends its threads.

    Args:
        service: of the server, with one model.
        bundle: path of the bundle as the user wrote it, which snippets of code repeat.
        writable: whether pages may write parameters of the CRF into the bundle.
        is_local: whether only this machine reaches the server.
        threads: of the CRF; 0 for all cores.
    """

    def __init__(self, service: Service, bundle: str, *, writable: bool, is_local: bool, threads: int = 0) -> None:
        self.service = service
        self.bundle = bundle
        self.writable = writable
        self.is_local = is_local
        self.images = KeptImages(_KEPT_BYTES)
        self._threads = threads
        # A preview does not wait for an image that is refined at its full size.
        self._previews = _Lane("preview", service.limits.queue)
        self._refinements = _Lane("refine", service.limits.queue)

    def __exit__(self, *_: object) -> None:
        """Finish what has begun."""
        self._previews.close()
        self._refinements.close()

    @property
    def model(self) -> Model:
        """The model of the page."""
        return self.service.models.only()

    @property
    def opened(self) -> OpenedBundle:
        """The bundle as it was opened last."""
        return self.model.opened

    async def outcome(self, request: Request, image: KeptImage, view: View) -> tuple[Outcome, int]:
        """Labels and confidence of an image, kept ones where it can be, and the step between their pixels.

        Raises:
            RefusedError: the precision or the parameters are wrong, the image is too large, or a queue is full.
            ClientDisconnect: the client went away; what has not begun is left out.
        """
        opened = self.opened
        segmenter = opened.choose({"precision": view.precision, "crf": False})
        size = image.pixels.shape[0], image.pixels.shape[1]
        key = segmenter, view.refinement
        if key in image.outcomes:
            return image.outcomes[key], 1
        step = preview_step(*size) if view.refinement is not None and view.is_preview else 1
        opened.check_probabilities(size, self.service.limits)
        result = await self._result(request, image, segmenter)
        work: Callable[[], Outcome]
        if view.refinement is None:
            work = partial(_unrefined, result)
        else:
            manifest = opened.bundle.manifest
            work = partial(refine, result, manifest, view.refinement, threads=self._threads, step=step)
        lane = self._previews if step > 1 else self._refinements
        with trace_of(request).measure("refine"):
            outcome = await self.service.wait(request, lane.submit(work))
        if step == 1 and opened is self.opened:
            image.keep_outcome(key, outcome)
        self.images.settle(image)
        return outcome, step

    async def write_crf(self, refinement: Refinement) -> None:
        """Write the parameters of the CRF into the bundle, and serve it as it is then.

        Raises:
            RefusedError: the studio may not write (403), or the bundle cannot be written (409).
        """
        if not self.writable:
            raise RefusedError(403, "this studio does not change its bundle; start it with --write")
        try:
            await self.service.run_apart(store_crf, self.opened.bundle, refinement)
        except BundleError as exc:
            raise RefusedError(409, str(exc)) from exc
        await self.service.run_apart(self.model.reload)
        self.images.forget_results()

    async def _result(self, request: Request, image: KeptImage, segmenter: Segmenter) -> Result:
        """The network's result, which an image has once for each precision."""
        async with image.lock:
            if segmenter not in image.results:
                task = Task(self.model, segmenter, image.pixels, _with_probabilities)
                result = await self.service.segment(request, task)
                if not isinstance(result, Result):
                    raise TypeError(f"expected a Result; got {type(result).__name__}")
                image.results[segmenter] = result
            image.results.move_to_end(segmenter)
            return image.results[segmenter]


class _Lane:
    """A thread with a bounded queue."""

    def __init__(self, name: str, limit: int) -> None:
        self._limit = limit
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"atrous-{name}")

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Call `work` behind the others; raises `RefusedError` (503) where too many wait."""
        with self._lock:
            if self._waiting >= self._limit:
                raise RefusedError(503, f"the studio has {self._limit} images waiting", retry_after_s=1)
            self._waiting += 1
        future = self._thread.submit(work)
        future.add_done_callback(self._leave)
        return future

    def close(self) -> None:
        """Finish what has begun, and leave the rest."""
        self._thread.shutdown(cancel_futures=True)

    def _leave(self, _future: Future[T]) -> None:
        with self._lock:
            self._waiting -= 1


def store_crf(bundle: Bundle, refinement: Refinement) -> Bundle:
    """Write the parameters and iterations of the CRF into the manifest of a bundle as it is now, whole or not at all.

    Raises:
        BundleError: the bundle cannot be written, or another writer does not end.
    """
    with extend_bundle(bundle) as staged:
        crf = refinement.stored_in(staged.manifest)
        # Nobody fitted these: what the manifest says of the last ones does not hold.
        changed = dataclasses.replace(staged.manifest, crf=crf, crf_fit=None, schema_version=SCHEMA_VERSION)
        staged.write_manifest(changed)
    return Bundle.open(bundle.path)


def _with_probabilities(result: Result) -> Result:
    """The result with its probabilities computed, which everything in the studio needs."""
    result.probabilities  # noqa: B018 - a cached property
    return result


def _unrefined(result: Result) -> Outcome:
    return Outcome(result, confidence_of(result.probabilities))
