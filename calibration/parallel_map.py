"""Ordered parallel map with bounded look-ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

#: Limit on memory: every worker holds the activations of one image.
_MAX_WORKERS: Final = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def parallel_map(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Map `function` over `items` in threads and yield the results in order, at most two per worker in advance.

    Meant for work that releases the GIL, such as single-threaded inference: independent calls scale better than the
    threads of one inference, which wait for each other. An exception is raised in its turn; after that, or when the
    caller stops iterating, no further call starts.
    """
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
