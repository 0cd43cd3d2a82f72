"""A `Device` whose kernels run on the CPU: the orchestration code under test cannot tell."""

# ruff: noqa: ARG002 - streams have no meaning where work is done at once, but a Device takes them
from __future__ import annotations

import ctypes
from collections import Counter
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
    """Known by its handle, as a driver knows streams, to stand-ins for libraries that queue work by themselves."""

    of_handle: ClassVar[WeakValueDictionary[int, EmulatedStream]] = WeakValueDictionary()

    def __init__(self, device: EmulatedDevice) -> None:
        self.device = device
        self.handle = id(self)
        self.of_handle[self.handle] = self

    def wait_for(self, event: EmulatedEvent) -> None:
        """Work is done as soon as it is queued."""

    def synchronize(self) -> None:
        """Likewise."""


class EmulatedModule:
    def __init__(self, device: EmulatedDevice, library: ctypes.CDLL) -> None:
        self._device = device
        self._library = library

    def launch(self, launch: Launch, stream: EmulatedStream) -> None:
        self._device.queue(lambda: self._run(launch))

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
        error = function(pointers, shape, self._device.order)
        if error is not None:
            raise DeviceError(f"{launch.kernel}: {error.decode()}")


def _word(argument: Buffer | np.generic | None) -> bytes:
    if isinstance(argument, np.generic):
        return argument.tobytes()
    return np.uint64(0 if argument is None else argument.address).tobytes()


class EmulatedGraph:
    def __init__(self, device: EmulatedDevice, work: list[Callable[[], None]]) -> None:
        self._device = device
        self._work = work

    def replay(self, stream: EmulatedStream) -> None:
        self._device.replays += 1
        for piece in self._work:
            self._device.queue(piece)


class EmulatedEvent:
    def elapsed_ms(self, since: EmulatedEvent) -> float:
        """Time means nothing here."""
        return 0.0


class EmulatedDevice:
    """Counts what it is asked for: `allocations`, `launches` by kernel, `replays`.

    Args:
        order: in which threads and blocks start.
        total_bytes: of memory; an allocation beyond it fails.
        sanitize: run under AddressSanitizer, which must be preloaded.
    """

    def __init__(self, *, order: int = FORWARDS, total_bytes: int = 2**32, sanitize: bool = False) -> None:
        self.properties = DeviceProperties("CPU emulator", (9, 0), 2, total_bytes, cuda=(13, 0))
        self.order = order
        self.allocations = 0
        self.used_bytes = 0
        self.launches: Counter[str] = Counter()
        self.replays = 0
        self.waits = 0
        self.sanitize = sanitize
        self._recording: list[Callable[[], None]] | None = None

    def queue(self, work: Callable[[], None]) -> None:
        """Runs it, or records it while capturing."""
        if self._recording is not None:
            self._recording.append(work)
        else:
            work()

    def active(self, doing: str) -> AbstractContextManager[None]:
        return nullcontext()

    def free_bytes(self) -> int:
        return self.properties.total_bytes - self.used_bytes

    def load(self, source: KernelSource) -> EmulatedModule:
        return EmulatedModule(self, ctypes.CDLL(str(build(source, sanitize=self.sanitize))))

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        self._refuse_while_capturing("allocating")
        if nbytes <= 0 or nbytes > self.free_bytes():
            raise DeviceError(f"allocating {nbytes} bytes failed on {self.properties.name}")
        self.allocations += 1
        return EmulatedBuffer(self, nbytes)

    def stream(self) -> EmulatedStream:
        return EmulatedStream(self)

    def record(self, stream: EmulatedStream) -> EmulatedEvent:
        return EmulatedEvent()

    def fill(self, buffer: Buffer, word: int, stream: EmulatedStream) -> None:
        view = (ctypes.c_uint32 * (buffer.nbytes // 4)).from_address(buffer.address)
        self.queue(lambda: np.frombuffer(view, np.uint32).fill(word))

    def upload(self, buffer: Buffer, array: np.ndarray, stream: EmulatedStream) -> None:
        self._refuse_while_capturing("copying from pageable memory")
        assert array.flags.c_contiguous
        assert array.nbytes <= buffer.nbytes
        ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, buffer: Buffer, stream: EmulatedStream) -> None:
        self._refuse_while_capturing("waiting")
        assert array.flags.c_contiguous
        assert array.nbytes <= buffer.nbytes
        ctypes.memmove(array.ctypes.data, buffer.address, array.nbytes)

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: EmulatedStream) -> None:
        assert nbytes <= buffer.nbytes
        self.queue(lambda: ctypes.memmove(buffer.address, address, nbytes))

    def wait_for_others(self) -> None:
        self._refuse_while_capturing("waiting")
        self.waits += 1

    def capture(self, queue: Callable[[], None], stream: EmulatedStream) -> EmulatedGraph:
        self._recording = recorded = []
        try:
            queue()
        finally:
            self._recording = None
        return EmulatedGraph(self, recorded)

    def _refuse_while_capturing(self, what: str) -> None:
        if self._recording is not None:
            raise DeviceError(f"{what} while a graph is recorded")
