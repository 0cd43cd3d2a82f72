"""Run one thing for many inputs on all cores, in order and without getting far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

#: Each holds the activations of a picture.
_MAX_WORKERS: Final = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def parallel_map(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """The results in the order of the items; at most two a worker are ahead of the caller, which bounds the memory.

    For work that leaves the interpreter, such as inference with a thread a call: calls side by side need not wait for
    each other, as the threads of one inference do. What a call raises comes out in its turn; after that, or when the
    caller stops, nothing further is started.
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
