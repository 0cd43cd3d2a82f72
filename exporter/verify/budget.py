"""Bounds of a verification: an input that memory or time does not allow is skipped, and said to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Seconds that the comparisons of one graph may take, all backends together.
BUDGET_S: Final = 180.0
#: Share of the free memory that an input may be expected to take.
_MEMORY_SHARE: Final = 0.7
#: Factor on the memory that is expected: buffers do not grow evenly.
_MEMORY_MARGIN: Final = 1.5
_SAMPLE_S: Final = 0.01
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True)
class _Run:
    seconds: float
    peak_bytes: int


@dataclass
class Budget:
    """Time and memory of runs so far, by their pixels, and whether another one fits.

    Both are taken to grow along the line through the smallest and the largest run, so that compiling and weights do not
    count with every pixel. Memory is known on Linux only; elsewhere the time alone bounds.
    """

    seconds: float = BUDGET_S
    _spent_s: float = 0.0
    _runs: dict[int, _Run] = field(default_factory=dict)

    def objection(self, pixels: int) -> str | None:
        """Reason why a run of so many pixels does not fit, or None, as for the first two sizes."""
        if len(self._runs) < 2:
            return None
        low, high = min(self._runs), max(self._runs)
        first, last = self._runs[low], self._runs[high]
        growth = (pixels - high) / (high - low)
        expected_s = max(0.0, last.seconds + growth * max(0.0, last.seconds - first.seconds))
        left_s = max(0.0, self.seconds - self._spent_s)
        if expected_s > left_s:
            return f"it would take about {expected_s:.0f} s of the {left_s:.0f} s left of {self.seconds:.0f} s"
        expected = _MEMORY_MARGIN * growth * max(0, last.peak_bytes - first.peak_bytes)
        free = _free_bytes()
        if free is not None and expected > _MEMORY_SHARE * free:
            return f"it would take about {expected / 1e9:.1f} GB more memory, and {free / 1e9:.1f} GB are free"
        return None

    @contextmanager
    def measure(self, pixels: int) -> Iterator[None]:
        """Time the block, and watch its memory."""
        start = time.perf_counter()
        with _watched_memory() as peak:
            yield
        seconds = time.perf_counter() - start
        self._spent_s += seconds
        self._runs[pixels] = _Run(seconds, peak[0])


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """The largest resident size while the block runs, in bytes, in a list of one; 0 where it cannot be known."""
    peak, done = [_resident_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            peak[0] = max(peak[0], _resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], _resident_bytes())


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _free_bytes() -> int | None:
    """Memory that is free to this process: the machine's, or what its control group leaves of it; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control groups, or "max"
        return free
    return min(free, max(0, limit - used))
