"""Launch plans on a `Device`: their memory, and their sequences in a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._native import LaunchPlan, PlannedFill, PlannedLaunch, Slot, Step
from .device import Argument, Buffer, Device, KernelSource, Launch, Stream
from .queue import Region

#: Buffers by the names of a plan.
Memory: TypeAlias = Mapping[str, Buffer]


def allocate(plan: LaunchPlan, device: Device, stream: Stream, kept: Memory | None = None) -> dict[str, Buffer]:
    """Memory for a plan, with the content that it starts with, except for what is given.

    Args:
        plan: what it is for.
        device: where it is.
        stream: where copies of the content are queued.
        kept: of an earlier plan; what this one has under the same name and in the same size goes over.

    Raises:
        DeviceError: there is not enough.
    """
    kept = kept or {}
    memory: dict[str, Buffer] = {}
    for planned in plan.buffers:
        if planned.use == "given":
            continue
        old = kept.get(planned.name)
        fits = old is not None and old.nbytes == planned.nbytes
        memory[planned.name] = old if old is not None and fits else device.allocate(planned.nbytes)
    for content in plan.contents:
        device.upload(memory[content.buffer], _array(content.values, memory), stream)
    return memory


class Replayer:
    """Puts sequences of launch plans into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
        source: the kernels.
    """

    def __init__(self, device: Device, stream: Stream, source: KernelSource) -> None:
        self.device = device
        self.stream = stream
        self._module = device.load(source)

    def replay(self, sequence: Sequence[Step], memory: Memory) -> None:
        """Queues a sequence on this memory, in which a caller may have put other buffers for those that he gives."""
        for step in sequence:
            work = step.work
            if isinstance(work, PlannedLaunch):
                args = [_argument(value, memory) for value in work.args]
                self._module.launch(Launch(work.kernel, work.grid, work.block, args), self.stream)
            elif isinstance(work, PlannedFill):
                self.device.fill(_located(work.target, memory), work.word, self.stream)
            else:
                source, target = _located(work.source, memory), _located(work.target, memory)
                self.device.copy_from_address(target, source.address, work.source.nbytes, self.stream)


def _argument(value: Slot | float, memory: Memory) -> Argument:
    if isinstance(value, Slot):
        return _located(value, memory)
    if isinstance(value, int):
        integer: np.int32 = np.int32(value)
        return integer
    number: np.float32 = np.float32(value)
    return number


def _located(slot: Slot, memory: Memory) -> Buffer:
    whole = memory[slot.buffer]
    return whole if slot.offset == 0 and slot.nbytes == whole.nbytes else Region(whole, slot.offset, slot.nbytes)


def _array(values: NDArray[np.float32] | Sequence[Slot | int], memory: Memory) -> NDArray[Any]:
    """What is copied to a buffer: the numbers, or the words with the addresses that they stand for."""
    if isinstance(values, np.ndarray):
        return values
    words = [_located(value, memory).address if isinstance(value, Slot) else value for value in values]
    return np.array(words, np.int64)
