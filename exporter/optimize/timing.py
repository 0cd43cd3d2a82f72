"""Timing of alternatives in turns, and the rule by which one counts as faster than another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

#: Share of the base's time below which an alternative must stay to be faster beyond noise.
_MARGIN: Final = 0.95
#: An alternative that is slower than the base by this factor in the first rounds is not timed any further.
_HOPELESS: Final = 1.25
_TRIAL_ROUNDS: Final = 2
_ROUNDS: Final = 9


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one alternative, a sample for each round."""

    samples_ms: Sequence[float]

    @property
    def median_ms(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.samples_ms))

    def is_faster_than(self, base: Timing) -> bool:
        """True if it took at most 95 % of the base's time in the median round, and less in three of four rounds.

        Rounds are compared with each other: what else the machine did in a round slowed both.
        """
        if len(self.samples_ms) < len(base.samples_ms):
            return False  # given up
        ratios = np.divide(self.samples_ms, base.samples_ms)
        return bool(np.median(ratios) <= _MARGIN and np.percentile(ratios, 75) < 1)


def time_in_turns(calls: Mapping[str, Callable[[], object]], base: str, rounds: int = _ROUNDS) -> dict[str, Timing]:
    """Time calls once a round, so that whatever else the machine does hits all; the first round is not counted.

    Args:
        calls: the alternatives by name.
        base: the one that the others are compared with; those that are far slower are given up after a few rounds.
        rounds: rounds that count.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    running = dict(calls)
    for number in range(1 + rounds):
        for name, call in running.items():
            start = time.perf_counter()
            call()
            if number > 0:
                samples[name].append((time.perf_counter() - start) * 1e3)
        if number == _TRIAL_ROUNDS:
            limit = _HOPELESS * min(samples[base])
            running = {name: call for name, call in running.items() if name == base or min(samples[name]) <= limit}
    return {name: Timing(times) for name, times in samples.items()}


def fastest(timings: Mapping[str, Timing], base: str) -> str:
    """The alternative with the smallest median among those that are faster than the base, or the base."""
    faster = [name for name, timing in timings.items() if name != base and timing.is_faster_than(timings[base])]
    return min(faster, key=lambda name: timings[name].median_ms, default=base)
