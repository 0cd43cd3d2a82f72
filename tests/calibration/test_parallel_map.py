from __future__ import annotations

import threading
import time

import pytest

from atrous.calibration.parallel_map import parallel_map


def test_results_come_in_order() -> None:
    def slow(item: int) -> int:
        time.sleep(0.01 if item % 3 == 0 else 0)
        return item * item

    assert list(parallel_map(slow, range(50))) == [item * item for item in range(50)]


def test_it_does_not_get_far_ahead() -> None:
    taken = []
    results = parallel_map(lambda item: item, (taken.append(item) or item for item in range(1000)))
    assert next(results) == 0
    assert len(taken) <= 16
    results.close()
    assert len(taken) <= 16


def test_what_is_raised_comes_in_its_turn() -> None:
    started = []

    def fail(item: int) -> int:
        started.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    results = parallel_map(fail, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)
    assert len(started) <= 3 + 16


def test_threads_end() -> None:
    before = threading.active_count()
    list(parallel_map(lambda item: item, range(3)))
    assert threading.active_count() == before
