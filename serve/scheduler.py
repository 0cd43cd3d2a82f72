"""Queue of a model: bounded, and worked off in small batches of equal images."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import AtrousError
from ..runtime.band_images import Pixels
from ..runtime.result import Result
from ..runtime.segmenter import Segmenter
from .refusals import RefusedError

#: Weight of the newest batch in the mean time of an image.
_NEWEST: Final = 0.2

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """An image to segment.

    Attributes:
        segmenter: what does it.
        pixels: [H, W, 3] uint8, or the network's bands.
        finish: makes of the result what the request asks for, on the scheduler's thread.
        deadline: of `time.monotonic`, after which nobody waits for it.
        future: gets what `finish` returns; a job whose future is cancelled is skipped.
        queued: when it was made, of `time.perf_counter`.
    """

    segmenter: Segmenter
    pixels: Pixels
    finish: Callable[[Result, float], Any]
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    queued: float = field(default_factory=time.perf_counter)

    def shares_batch(self, other: Job) -> bool:
        """True if both may go through the network together."""
        return self.segmenter is other.segmenter and self.pixels.shape == other.pixels.shape


class Scheduler:
    """Threads that work a queue off; safe to use from many threads.

    Each takes the oldest job and, up to `max_batch`, those behind it of the same segmenter and size: what queued up
    while the network was busy shares an inference, and nothing waits for company. Batches are powers of two, so that
    a backend that compiles for each shape, as OpenVINO does, meets few of them.

    Args:
        name: of the model, for messages.
        limit: jobs that wait at most.
        threads: batches in work at once.
        max_batch: images that share an inference at most, where the network takes batches.
        observe_batch: told the number of images of each batch.
    """

    def __init__(
        self, name: str, *, limit: int, threads: int, max_batch: int, observe_batch: Callable[[int], object]
    ) -> None:
        self._name = name
        self._limit = limit
        self._max_batch = max_batch
        self._observe_batch = observe_batch
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._image_s = 0.0
        self._threads = [threading.Thread(target=self._work, name=f"{name} {i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    def check_room(self) -> None:
        """Refuse with 503 where a job would not find a place in the queue."""
        if len(self._jobs) >= self._limit:
            wait_s = len(self._jobs) * self._image_s / len(self._threads)
            raise RefusedError(
                503, f"model {self._name!r} has {self._limit} images waiting", retry_after_s=max(1, math.ceil(wait_s))
            )
        if self._closed:
            raise RefusedError(503, "the server is stopping", retry_after_s=1)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue; raises `RefusedError` (503) where it is full."""
        with self._changed:
            self.check_room()
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Finish what is queued, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while jobs := self._next_batch():
            start = time.perf_counter()
            self._observe_batch(len(jobs))
            _segment(jobs, start)
            image_s = (time.perf_counter() - start) / len(jobs)
            self._image_s += (image_s - self._image_s) * (_NEWEST if self._image_s else 1)

    def _next_batch(self) -> list[Job]:
        """Jobs to do together; none when the queue is closed and empty."""
        with self._changed:
            while True:
                while not self._jobs:
                    if self._closed:
                        return []
                    self._changed.wait()
                batch = [job for job in self._take() if _is_wanted(job)]
                if batch:
                    return batch

    def _take(self) -> list[Job]:
        """The oldest job and those that share its batch, off the queue."""
        first = self._jobs.popleft()
        if self._max_batch == 1 or not first.segmenter.bundle.manifest.input.takes_batches:
            return [first]
        others = [job for job in self._jobs if job.shares_batch(first)][: self._max_batch - 1]
        count = 1 << (1 + len(others)).bit_length() - 1
        others = others[: count - 1]
        for job in others:
            self._jobs.remove(job)
        return [first, *others]


def _is_wanted(job: Job) -> bool:
    """False for a job that was given up, and for one that waited too long, which is told so."""
    if not job.future.set_running_or_notify_cancel():
        return False
    if time.monotonic() < job.deadline:
        return True
    job.future.set_exception(RefusedError(503, "the image waited too long in the queue", retry_after_s=1))
    return False


def _segment(jobs: Sequence[Job], start: float) -> None:
    """Segment a batch; each job's future gets its own outcome."""
    try:
        results = jobs[0].segmenter.submit_batch([job.pixels for job in jobs])
    except Exception as exc:
        for job in jobs:
            _fail(job, exc)
        return
    for job, result in zip(jobs, results, strict=True):
        try:
            job.future.set_result(job.finish(result.result(), (start - job.queued) * 1e3))
        except Exception as exc:
            _fail(job, exc)


def _fail(job: Job, exc: Exception) -> None:
    if not isinstance(exc, AtrousError):
        _logger.error("an image of %s failed", list(job.pixels.shape), exc_info=exc)
    job.future.set_exception(exc)
