"""Order and batches of a model's queue, with a segmenter that notes what it is given."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from segmenters import picture

import atrous
from atrous.bundle import Bundle
from atrous.errors import ServeError
from atrous.serve.limits import Limits
from atrous.serve.metrics import Metrics
from atrous.serve.models import LoadOptions, Models
from atrous.serve.refusals import RefusedError
from atrous.serve.scheduler import Job, Scheduler


class Gated:
    """A real segmenter that begins when it is told to, and notes its batches."""

    def __init__(self, segmenter: atrous.Segmenter) -> None:
        self.bundle = segmenter.bundle
        self.batches: list[list[tuple[int, int]]] = []
        self.begin = threading.Event()
        self.entered = threading.Event()
        self._segmenter = segmenter

    def submit_batch(self, images):
        self.entered.set()
        assert self.begin.wait(30)
        self.batches.append([image.shape[:2] for image in images])
        return self._segmenter.submit_batch(images)


@pytest.fixture
def gated(tiny: atrous.Segmenter) -> Gated:
    return Gated(tiny)


def scheduler(max_batch: int = 8, limit: int = 100) -> Scheduler:
    return Scheduler("tiny", limit=limit, threads=1, max_batch=max_batch, observe_batch=lambda _: None)


def job(gated: Gated, size: tuple[int, int], *, seconds: float = 60) -> Job:
    return Job(gated, picture(size), lambda result, _: result.labels, deadline=time.monotonic() + seconds)


def run(gated: Gated, jobs: list[Job], made: Scheduler) -> None:
    """Queues jobs behind one that is in work already, and waits for all."""
    first = job(gated, (32, 32))
    made.submit(first)
    assert gated.entered.wait(30)
    for each in jobs:
        made.submit(each)
    gated.begin.set()
    made.close()
    assert first.future.done()


A, B = (40, 48), (48, 40)


@pytest.mark.parametrize(
    ("max_batch", "sizes", "batches"),
    [
        (8, [A, A, A, A], [[A] * 4]),
        (8, [A, B, A, B], [[A, A], [B, B]]),
        (8, [A, A, A], [[A, A], [A]]),  # powers of two
        (8, [A] * 11, [[A] * 8, [A] * 2, [A]]),
        (2, [A, A, A, A], [[A, A], [A, A]]),
        (1, [A, B, A], [[A], [B], [A]]),
    ],
)
def test_equal_sizes_share_a_batch(gated: Gated, tiny, max_batch: int, sizes, batches) -> None:
    jobs = [job(gated, size) for size in sizes]
    run(gated, jobs, scheduler(max_batch))
    assert gated.batches[1:] == batches
    for each in jobs:
        np.testing.assert_array_equal(each.future.result(), tiny(each.pixels).labels)


def test_a_full_queue_refuses(gated: Gated) -> None:
    made = scheduler(limit=2)
    with pytest.raises(RefusedError, match="model 'tiny' has 2 images waiting") as raised:
        run(gated, [job(gated, A) for _ in range(3)], made)
    assert raised.value.status == 503
    assert raised.value.retry_after_s == 1
    gated.begin.set()
    made.close()


def test_a_closed_queue_refuses(gated: Gated) -> None:
    made = scheduler()
    made.close()
    with pytest.raises(RefusedError, match="the server is stopping"):
        made.submit(job(gated, A))


def test_jobs_that_nobody_waits_for_are_skipped(gated: Gated) -> None:
    given_up, late, wanted = job(gated, A), job(gated, A, seconds=-1), job(gated, A)
    assert given_up.future.cancel()
    run(gated, [given_up, late, wanted], scheduler(1))
    assert gated.batches[1:] == [[A]]
    assert wanted.future.result().shape == A
    with pytest.raises(RefusedError, match="waited too long in the queue"):
        late.future.result()


def test_an_error_is_its_own_jobs(gated: Gated) -> None:
    wrong = Job(gated, np.zeros((8, 8, 4), np.float32), lambda result, _: result, deadline=time.monotonic() + 60)
    broken = Job(gated, picture(A), lambda *_: 1 / 0, deadline=time.monotonic() + 60)
    right = job(gated, A)
    run(gated, [wrong, broken, right], scheduler())
    assert isinstance(wrong.future.exception(), ValueError)
    assert isinstance(broken.future.exception(), ZeroDivisionError)
    assert right.future.result().shape == A


class TestModels:
    def test_names_must_differ(self, tiny_bundle: Bundle) -> None:
        with pytest.raises(ServeError, match=r"served by their names, which must differ; got .*tiny\.atrous, "):
            Models([tiny_bundle.path] * 2, LoadOptions(), Limits(), Metrics())

    def test_there_must_be_one(self) -> None:
        with pytest.raises(ServeError, match="which must differ; got no bundle"):
            Models([], LoadOptions(), Limits(), Metrics())

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"precisions": ()}, "precisions must have at least one"), ({"max_batch": 9}, r"0 \(automatic\) to 8; got 9")],
    )
    def test_options(self, options, message: str) -> None:
        with pytest.raises(ServeError, match=message):
            LoadOptions(**options)
