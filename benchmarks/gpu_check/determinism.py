"""Mean field gives the same bits in every run, whatever else the GPU does meanwhile.

Between runs the device computes other sizes, half of the runs are a new CRF's in new memory, and all the while another
thread keeps the GPU busy. Prints one JSON object a line; fails if a run differs from the first.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from steps import sized

from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Device, open_device

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from photos import network_like, photo

RUNS = sized(20, rehearsal=6)
SIZE = sized((513, 513), rehearsal=(17, 24))
OTHER_SIZES = sized([(375, 500), (1, 1), (129, 640)], rehearsal=[(12, 16), (1, 1)])
CLASSES = 21


def scene(size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities [C, H, W] and a photo [H, W, 3]."""
    return network_like(CLASSES, size), photo("china.jpg", size)


def differing_runs(device: Device, storage: str) -> int:
    """How many of the later runs give other marginals or labels than the first."""
    probabilities, image = scene(SIZE)
    others = itertools.cycle([scene(size) for size in OTHER_SIZES])
    between = CudaDenseCRF(storage=storage, device=device)
    crf = CudaDenseCRF(storage=storage, device=device)
    first, labels = crf(probabilities, image).tobytes(), crf.labels(probabilities, image).tobytes()
    differing = 0
    for run in range(1, RUNS):
        between.labels(*next(others))
        if run % 2:
            crf = CudaDenseCRF(storage=storage, device=device)
        same = crf(probabilities, image).tobytes() == first
        differing += not (same and crf.labels(probabilities, image).tobytes() == labels)
    return differing


def keep_busy(make_device: Callable[[], Device], is_over: threading.Event) -> int:
    """Runs the CRF of another size until told to stop: how often it did."""
    crf, (probabilities, image) = CudaDenseCRF(device=make_device()), scene(OTHER_SIZES[0])
    for done in itertools.count(1):
        crf.labels(probabilities, image)
        if is_over.is_set():
            return done
    raise AssertionError


def check(make_device: Callable[[], Device], storage: str) -> dict[str, Any]:
    """One line of the report."""
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(keep_busy, make_device, is_over)
        try:
            differing = differing_runs(make_device(), storage)
        finally:
            is_over.set()
        return {"storage": storage, "runs": RUNS, "differing": differing, "runs_beside": busy.result()}


def main() -> int:
    """1 if a run differed."""
    rows = [check(open_device, storage) for storage in ("fp32", "unorm16")]
    for row in rows:
        print(json.dumps(row))
    return int(any(row["differing"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
