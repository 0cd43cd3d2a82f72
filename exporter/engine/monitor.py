"""Progress and cancellation of an engine build."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...runtime.backends.tensorrt_types import IProgressMonitor, TensorRTModule

#: Called with the current step and the finished share of the build, 0–1.
BuildProgress = Callable[[str, float], None]


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class BuildWatch:
    """Reports the progress of one build and cancels it.

    The builder calls from C++, through which no exception may pass. An exception in a callback, or Ctrl-C, is stored,
    the builder is asked to stop, and `reraise` raises the exception once the builder has returned.
    """

    def __init__(self, progress: BuildProgress | None) -> None:
        self._progress = progress
        self._phases: list[_Phase] = []
        self._max_share = 0.0
        self._problem: BaseException | None = None
        self._lock = threading.Lock()

    def reraise(self) -> None:
        """Raise the exception that stopped the build, if any."""
        if self._problem is not None:
            raise self._problem

    def start(self, name: str, steps: int) -> None:
        """Start a phase within the phase that started last."""
        with self._lock:
            self._phases.append(_Phase(name, max(steps, 1)))
        self._report(name)

    def step(self, name: str, number: int) -> bool:
        """Finish a step of a phase; returns True to continue the build."""
        with self._lock:
            for phase in self._phases:
                if phase.name == name:
                    phase.done = number + 1
        self._report(name)
        return self._problem is None

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            self._phases = [phase for phase in self._phases if phase.name != name]

    @contextmanager
    def stopping_on_ctrl_c(self) -> Iterator[None]:
        """Make Ctrl-C cancel the build in this block, instead of raising inside a callback.

        Only in the main thread, which receives signals, and only if Python's default handler is installed.
        """
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, *_: object) -> None:
        self._problem = KeyboardInterrupt()

    def _report(self, name: str) -> None:
        if self._progress is None or self._problem is not None:
            return
        try:
            self._progress(name, self._share())
        except BaseException as exc:  # raised again by `reraise`
            self._problem = exc

    def _share(self) -> float:
        """Finished share of the build, never decreasing: a step may contain several phases, one after the other."""
        with self._lock:
            share = 0.0
            for phase in reversed(self._phases):
                share = min((phase.done + share) / phase.steps, 1.0)
            self._max_share = max(self._max_share, share)
            return self._max_share


def make_monitor(trt: TensorRTModule, watch: BuildWatch) -> IProgressMonitor:
    """Adapt a `BuildWatch` to TensorRT's progress monitor."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:  # noqa: ANN401, ARG002
            watch.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
