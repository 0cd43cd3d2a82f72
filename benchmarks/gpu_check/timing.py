"""Times between events on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from atrous.gpu import Device, Stream


def back_to_back_ms(
    device: Device, stream: Stream, work: Callable[[], object], *, warmup: int, repeats: int
) -> list[float]:
    """Milliseconds of each `work`, the next one queued before the last is done: what it takes in a stream of frames.

    Where the host queues more slowly than the GPU works, these are the host's times.
    """
    points = [device.record(stream)]
    for _ in range(warmup + repeats):
        work()
        points.append(device.record(stream))
    stream.synchronize()
    return [end.elapsed_ms(start) for start, end in pairwise(points)][warmup:]


def alone_ms(device: Device, stream: Stream, work: Callable[[], object], *, warmup: int, repeats: int) -> list[float]:
    """Milliseconds of each `work` on a GPU that waits for it: what the host takes to queue the first of it is in."""
    samples = []
    for _ in range(warmup + repeats):
        start = device.record(stream)
        work()
        samples.append(device.record(stream).elapsed_ms(start))
    return samples[warmup:]


def quartiles(samples: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of milliseconds."""
    low, median, high = (round(float(value), 4) for value in np.percentile(samples, [25, 50, 75]))
    return {"median_ms": median, "iqr_ms": [low, high]}
