"""Service behind the routes: bodies in, images through a model's queue, answers out, without holding up the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request

from ..manifest import Size
from ..runtime.band_images import Pixels
from ..runtime.result import Result
from ..runtime.segmenter import Segmenter
from .limits import Budget, Holding, Limits
from .metrics import Metrics
from .models import Model, Models, OpenedBundle
from .refusals import RefusedError, bad_request
from .scheduler import Job
from .trace import Trace

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes that are parsed or written on the event loop itself; more would hold other requests up.
_LIGHT_BYTES: Final = 64 << 10
#: Copying bytes is at least so many times as fast as parsing them.
_COPY_EASE: Final = 16
#: Threads that decode and encode.
_THREADS: Final = 2


@dataclass(frozen=True, eq=False)
class Task:
    """An image for a model.

    Attributes:
        model: whose queue it goes through.
        segmenter: of that model, as the request's parameters chose it.
        pixels: the image.
        finish: makes of the result what the answer needs, off the event loop.
    """

    model: Model
    segmenter: Segmenter
    pixels: Pixels
    finish: Callable[[Result], object]


class Service:
    """Means with which routes do their work; all on one event loop.

    Args:
        models: what is served.
        limits: of requests.
        metrics: of the server.
        allow_reload: whether clients may have bundles opened again.
    """

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, *, allow_reload: bool) -> None:
        self.models = models
        self.limits = limits
        self.metrics = metrics
        self.allow_reload = allow_reload
        self.budget = Budget(limits.held_bytes)
        metrics.held_bytes.set_function(lambda: self.budget.held_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="atrous-serve")

    def hold(self, request: Request) -> Holding:
        """Bytes that a request holds until its answer is sent."""
        return trace_of(request).until_sent.enter_context(self.budget.hold())

    async def read_body(self, request: Request, holding: Holding) -> bytes:
        """The body of a request, within limits of bytes and seconds.

        Raises:
            RefusedError: it is compressed, too long (413), or too slow (408).
            ClientDisconnect: the client went away.
        """
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise RefusedError(415, f"the body has Content-Encoding {encoding[:40]!r}; send it as it is")
        limits = self.limits
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limits.body_bytes:
            raise RefusedError(413, f"the body has {announced} bytes, of at most {limits.body_bytes}")
        parts: list[bytes] = []
        received = 0
        try:
            with trace_of(request).measure("receive"), anyio.fail_after(limits.body_s):
                async for part in request.stream():
                    received += len(part)
                    if received > limits.body_bytes:
                        raise RefusedError(413, f"the body has more than {limits.body_bytes} bytes")
                    holding.add(len(part))
                    parts.append(part)
        except TimeoutError as exc:
            raise RefusedError(
                408, f"the body was not there after {limits.body_s:g} s; {received} bytes of it were"
            ) from exc
        return await self.run(received // _COPY_EASE, b"".join, parts)

    async def run(self, size_bytes: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function here where little is to be done, else on a thread; `size_bytes` says how much."""
        if size_bytes <= _LIGHT_BYTES:
            return function(*args, **kwargs)
        return await self.run_apart(function, *args, **kwargs)

    async def run_apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def check_probabilities(self, opened: OpenedBundle, task: Task, holding: Holding, *, wanted: bool) -> None:
        """Hold the bytes of an image's probabilities, where its outputs or the CRF need them.

        Raises:
            RefusedError: they are too many.
        """
        if wanted or task.segmenter.crf is not None:
            size: Size = (task.pixels.shape[0], task.pixels.shape[1])
            holding.add(opened.check_probabilities(size, self.limits))

    async def segment(self, request: Request, task: Task) -> object:
        """Put an image in its model's queue, and return what `finish` made of the result.

        Raises:
            RefusedError: the queue is full, or it took too long (503).
            AtrousError: as `Segmenter.submit`.
            ClientDisconnect: the client went away; its image is not segmented if that has not begun.
        """
        trace = trace_of(request)

        def finish(result: Result, queue_ms: float) -> object:
            trace.stages_ms["queue"] = queue_ms
            trace.stages_ms |= result.timings_ms
            with trace.measure("finish"):
                return task.finish(result)

        job = Job(task.segmenter, task.pixels, finish, deadline=time.monotonic() + self.limits.wait_s)
        task.model.scheduler.submit(job)
        return await self.wait(request, job.future)

    async def wait(self, request: Request, future: Future[T]) -> T:
        """Wait for what a thread does for a request whose body was read, and cancel it where nobody waits any longer.

        Raises:
            RefusedError: it took too long (503).
            ClientDisconnect: the client went away.
        """
        done = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((done, gone), timeout=self.limits.wait_s, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if gone.done():
                raise ClientDisconnect
            raise RefusedError(503, f"the image was not segmented within {self.limits.wait_s:g} s", retry_after_s=1)
        finally:
            gone.cancel()
            done.cancel()

    def close(self) -> None:
        """Finish what is queued, and end the threads."""
        self.models.close()
        self._threads.shutdown()


def service_of(request: Request) -> Service:
    """The service of the application that got a request."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError(f"expected a Service in the application's state; got {type(service).__name__}")
    return service


def trace_of(request: Request) -> Trace:
    """The trace that the gate gave a request."""
    trace: Trace = request.state.trace
    return trace


def query_flag(request: Request, name: str) -> bool | None:
    """A flag in the query; None where it is not there."""
    value = request.query_params.get(name)
    if value is None:
        return None
    if value.lower() not in ("true", "false", "1", "0"):
        raise bad_request(f"{name} must be true or false; got {value[:40]!r}")
    return value.lower() in ("true", "1")


async def _disconnected(request: Request) -> None:
    """Wait until the client of a request whose body was read goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
