"""A `Device` whose kernels run on the CPU: the orchestration code under test cannot tell."""

# ruff: noqa: ARG002 - streams have no meaning where work is done at once, but a Device takes them
from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
from emulator.build import build

from atrous.errors import DeviceError
from atrous.gpu import Buffer, DeviceProperties, KernelSource, Launch

FORWARDS, BACKWARDS, SHUFFLED = 0, 1, 20110
"""Orders in which threads and blocks start; any other number is a seed."""

_POISON = 0xCB
"""What fresh memory holds: as a float a large negative number, as an index far out of range."""


_ONE_KERNEL = threading.Lock()
"""The emulator runs one kernel at a time."""


class EmulatedBuffer:
    """Host memory, at an address that is a multiple of 256, with guards before and after."""

    GUARD = 256

    def __init__(self, device: EmulatedDevice, nbytes: int) -> None:
        self._memory = np.full(nbytes + 3 * self.GUARD, _POISON, np.uint8)
        self._device = device
        start = -self._memory.ctypes.data % self.GUARD + self.GUARD
        self.bytes = self._memory[start : start + nbytes]
        self._guards = (self._memory[:start], self._memory[start + nbytes :])
        self.address = self._memory.ctypes.data + start
        self.nbytes = nbytes
        device.used_bytes += nbytes
        self._mark_guards("__asan_poison_memory_region")

    def __del__(self) -> None:
        self._mark_guards("__asan_unpoison_memory_region")
        self._device.used_bytes -= self.nbytes

    def _mark_guards(self, marker: str) -> None:
        """Tells AddressSanitizer that nobody may touch them, or that anybody may again."""
        if self._device.sanitize:
            for guard in self._guards:
                getattr(ctypes.CDLL(None), marker)(ctypes.c_void_p(guard.ctypes.data), ctypes.c_size_t(guard.nbytes))

    def guards_hold(self) -> bool:
        """Whether nothing wrote just outside."""
        return all((guard == _POISON).all() for guard in self._guards)

    def read(self, dtype: Any, count: int | None = None) -> np.ndarray:
        """A copy of the first `count` values, or of all."""
        return self.bytes.view(dtype)[:count].copy()


class EmulatedStream:
    """Does its work at once, or, on a lazy device, when somebody waits for it.

    Known by its handle, as a driver knows streams, to stand-ins for libraries that queue work by themselves.
    """

    of_handle: ClassVar[WeakValueDictionary[int, EmulatedStream]] = WeakValueDictionary()

    def __init__(self, device: EmulatedDevice) -> None:
        self.device = device
        self.handle = id(self)
        self.of_handle[self.handle] = self
        self._pending: deque[Callable[[], None]] = deque()

    def queue(self, work: Callable[[], None]) -> None:
        """Does it now, later, or in each replay of the graph that is being recorded."""
        self.device.check_thread()
        if self.device.recording is not None:
            self.device.recording.work.append(work)
        elif self.device.is_lazy:
            self._pending.append(work)
        else:
            work()

    def wait_for(self, event: EmulatedEvent) -> None:
        goal = event.asked
        self.queue(lambda: event.run_until(goal))

    def synchronize(self) -> None:
        self.device.refuse_while_capturing("waiting")
        while self._pending:
            self.run_one()

    def run_one(self) -> None:
        """The oldest piece of work; what it waits for in other streams runs first."""
        self._pending.popleft()()


class EmulatedModule:
    def __init__(self, device: EmulatedDevice, library: ctypes.CDLL) -> None:
        self._device = device
        self._library = library

    def launch(self, launch: Launch, stream: EmulatedStream) -> None:
        stream.queue(lambda: self._run(launch))

    def _run(self, launch: Launch) -> None:
        try:
            function = getattr(self._library, f"emulated_{launch.kernel}")
            wanted = getattr(self._library, f"emulated_arguments_{launch.kernel}")()
        except AttributeError:
            raise DeviceError(f"no kernel {launch.kernel}") from None
        if len(launch.args) != wanted:
            raise DeviceError(f"{launch.kernel} takes {wanted} arguments, got {len(launch.args)}")
        values = [np.frombuffer(_word(argument), np.uint8) for argument in launch.args]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        shape = (ctypes.c_uint * 6)(launch.grid, 1, 1, *launch.block, 1)
        function.restype = ctypes.c_char_p
        self._device.launches[launch.kernel] += 1
        with _ONE_KERNEL:
            error = function(pointers, shape, self._device.order)
        if error is not None:
            raise DeviceError(f"{launch.kernel}: {error.decode()}")


def _word(argument: Buffer | np.generic | None) -> bytes:
    if isinstance(argument, np.generic):
        return argument.tobytes()
    return np.uint64(0 if argument is None else argument.address).tobytes()


class EmulatedGraph:
    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self.work: list[Callable[[], None]] = []
        self.events: list[EmulatedEvent] = []

    def replay(self, stream: EmulatedStream) -> None:
        self._device.replays += 1
        for event in self.events:
            event.expect(stream)
        for piece in self.work:
            stream.queue(piece)


class EmulatedEvent:
    """Counts how often it was asked for and how often it was reached; time is the CPU's."""

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self._stream: EmulatedStream | None = None
        self._reached_at_ms = 0.0
        self._reached = 0
        self.asked = 0

    def record(self, stream: EmulatedStream) -> None:
        if self._device.recording is not None:
            self._device.recording.events.append(self)
        else:
            self.expect(stream)
        stream.queue(self._reach)

    def expect(self, stream: EmulatedStream) -> None:
        self._stream = stream
        self.asked += 1

    def _reach(self) -> None:
        self._reached += 1
        self._reached_at_ms = time.perf_counter() * 1e3

    def run_until(self, goal: int) -> None:
        while self._reached < goal:
            self._stream.run_one()

    def synchronize(self) -> None:
        self._device.refuse_while_capturing("waiting")
        self.run_until(self.asked)

    def elapsed_ms(self, since: EmulatedEvent) -> float:
        self.synchronize()
        return self._reached_at_ms - since._reached_at_ms


class EmulatedDevice:
    """Counts what it is asked for: `allocations` of memory, streams, events and graphs `made`, `launches`, `replays`.

    Args:
        order: in which threads and blocks start.
        total_bytes: of memory; an allocation beyond it fails.
        sanitize: run under AddressSanitizer, which must be preloaded.
        is_lazy: streams work only when somebody waits for them, and then only as much as he waits for: what depends on
            another stream without waiting for it goes wrong.
        is_bound: refuse other threads than the one that makes it, as a PyCudaDevice does.
    """

    def __init__(
        self,
        *,
        order: int = FORWARDS,
        total_bytes: int = 2**32,
        sanitize: bool = False,
        is_lazy: bool = False,
        is_bound: bool = False,
    ) -> None:
        self.properties = DeviceProperties("CPU emulator", (9, 0), 2, total_bytes, cuda=(13, 0))
        self.order = order
        self.allocations = 0
        self.made = 0
        self.used_bytes = 0
        self.launches: Counter[str] = Counter()
        self.replays = 0
        self.waits = 0
        self.sanitize = sanitize
        self.is_lazy = is_lazy
        self.recording: EmulatedGraph | None = None
        self._options = {
            "order": order,
            "total_bytes": total_bytes,
            "sanitize": sanitize,
            "is_lazy": is_lazy,
            "is_bound": is_bound,
        }
        self._thread = threading.get_ident() if is_bound else None

    def __reduce__(self) -> tuple[Any, ...]:
        """The same GPU in another process."""
        return functools.partial(EmulatedDevice, **self._options), ()

    def check_thread(self) -> None:
        """Refuses other threads than its own."""
        if self._thread not in (None, threading.get_ident()):
            raise DeviceError("the device of another thread: make one in each thread")

    def active(self, doing: str) -> AbstractContextManager[None]:
        self.check_thread()
        return nullcontext()

    def free_bytes(self) -> int:
        return self.properties.total_bytes - self.used_bytes

    def load(self, source: KernelSource) -> EmulatedModule:
        return EmulatedModule(self, ctypes.CDLL(str(build(source, sanitize=self.sanitize))))

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        self.check_thread()
        self.refuse_while_capturing("allocating")
        if nbytes <= 0 or nbytes > self.free_bytes():
            raise DeviceError(f"allocating {nbytes} bytes failed on {self.properties.name}")
        self.allocations += 1
        return EmulatedBuffer(self, nbytes)

    def allocate_host(self, nbytes: int) -> np.ndarray:
        self.refuse_while_capturing("allocating")
        self.allocations += 1
        return np.full(nbytes, _POISON, np.uint8)

    def stream(self) -> EmulatedStream:
        self.made += 1
        return EmulatedStream(self)

    def event(self) -> EmulatedEvent:
        self.made += 1
        return EmulatedEvent(self)

    def record(self, stream: EmulatedStream) -> EmulatedEvent:
        event = self.event()
        event.record(stream)
        return event

    def fill(self, buffer: Buffer, word: int, stream: EmulatedStream) -> None:
        def work() -> None:
            view = (ctypes.c_uint32 * (buffer.nbytes // 4)).from_address(buffer.address)
            np.frombuffer(view, np.uint32).fill(word)

        stream.queue(work)

    def upload(self, buffer: Buffer, array: np.ndarray, stream: EmulatedStream) -> None:
        self.refuse_while_capturing("copying from pageable memory")
        self.upload_async(buffer, array.copy() if self.is_lazy else array, stream)

    def upload_async(self, buffer: Buffer, array: np.ndarray, stream: EmulatedStream) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= buffer.nbytes
        stream.queue(lambda: ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes))

    def download(self, array: np.ndarray, buffer: Buffer, stream: EmulatedStream) -> None:
        self.refuse_while_capturing("waiting")
        self.download_async(array, buffer, stream)
        stream.synchronize()

    def download_async(self, array: np.ndarray, buffer: Buffer, stream: EmulatedStream) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= buffer.nbytes
        stream.queue(lambda: ctypes.memmove(array.ctypes.data, buffer.address, array.nbytes))

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: EmulatedStream) -> None:
        assert nbytes <= buffer.nbytes
        stream.queue(lambda: ctypes.memmove(buffer.address, address, nbytes))

    def wait_for_others(self) -> None:
        self.refuse_while_capturing("waiting")
        self.waits += 1

    def capture(self, queue: Callable[[], None], stream: EmulatedStream) -> EmulatedGraph:
        self.made += 1
        self.recording = graph = EmulatedGraph(self)
        try:
            queue()
        finally:
            self.recording = None
        return graph

    def refuse_while_capturing(self, what: str) -> None:
        if self.recording is not None:
            raise DeviceError(f"{what} while a graph is recorded")
