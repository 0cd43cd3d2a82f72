"""Progress of a build, and stopping it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...runtime.backends.tensorrt_types import IProgressMonitor, TensorRTModule

#: Called with what is being done and the share of the build that is done, 0–1.
BuildProgress = Callable[[str, float], None]


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class BuildWatch:
    """What happens during one build: reports it, and asks the builder to stop.

    The builder calls from C++, through which no exception may pass. What goes wrong in a call, and Ctrl-C, is kept, the
    builder is told to stop, and `reraise` raises it once the builder has returned.
    """

    def __init__(self, progress: BuildProgress | None) -> None:
        self._progress = progress
        self._phases: list[_Phase] = []
        self._most = 0.0
        self._problem: BaseException | None = None
        self._lock = threading.Lock()

    def reraise(self) -> None:
        """Raises what stopped the build, if anything did."""
        if self._problem is not None:
            raise self._problem

    def start(self, name: str, steps: int) -> None:
        """A phase starts within the one that started last."""
        with self._lock:
            self._phases.append(_Phase(name, max(steps, 1)))
        self._report(name)

    def step(self, name: str, number: int) -> bool:
        """A step of a phase is done; says whether to go on."""
        with self._lock:
            for phase in self._phases:
                if phase.name == name:
                    phase.done = number + 1
        self._report(name)
        return self._problem is None

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            self._phases = [phase for phase in self._phases if phase.name != name]

    @contextmanager
    def stopping_on_ctrl_c(self) -> Iterator[None]:
        """While the block runs, Ctrl-C stops the build in an orderly way instead of raising somewhere in a callback.

        Only in the main thread, which gets the signals, and only where Python's own handler is in place.
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
        """Of the whole build, which only grows: a step of a phase may hold several phases, one after the other."""
        with self._lock:
            share = 0.0
            for phase in reversed(self._phases):
                share = min((phase.done + share) / phase.steps, 1.0)
            self._most = max(self._most, share)
            return self._most


def make_monitor(trt: TensorRTModule, watch: BuildWatch) -> IProgressMonitor:
    """The builder's side of a `BuildWatch`."""

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
