"""Launch plans on a `Device`: their memory, and their sequences in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._native import LaunchPlan, PlannedCopy, PlannedFill, PlannedInference, PlannedLaunch, Slot, Step
from .device import Buffer, Device, KernelSource, Launch, Stream
from .region import Region

#: Buffers by the names of a plan.
Memory: TypeAlias = Mapping[str, Buffer]

#: Queues an inference from the network's input to its logits.
Infer: TypeAlias = Callable[[Buffer, Buffer, Stream], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A `Slot`, as fast to read as anything in Python."""

    buffer: str
    offset: int
    nbytes: int

    @classmethod
    def of(cls, slot: Slot) -> Part:
        """The same part."""
        return cls(slot.buffer, slot.offset, slot.nbytes)

    def within(self, memory: Memory) -> Buffer:
        """The part as a buffer, within allocated memory."""
        whole = memory[self.buffer]
        is_whole = self.offset == 0 and self.nbytes == whole.nbytes
        return whole if is_whole else Region(whole, self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A launch: numbers have the types of the kernel's parameters."""

    name: str
    grid: int
    block: tuple[int, int]
    args: tuple[Part | np.int32 | np.float32, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """Sets every 32-bit word of `target`."""

    target: Part
    word: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Copies on the device."""

    source: Part
    target: Part


@dataclass(frozen=True, slots=True)
class Inference:
    """Runs the network."""

    input: Part
    logits: Part


#: What a sequence consists of, ready to be queued.
Work: TypeAlias = Kernel | Fill | Copy | Inference


def prepare(sequence: Iterable[Step]) -> list[Work]:
    """Prepared launches for `Replayer.replay`."""
    return [_prepared(step.work) for step in sequence]


def _prepared(work: PlannedLaunch | PlannedFill | PlannedCopy | PlannedInference) -> Work:
    if isinstance(work, PlannedFill):
        return Fill(Part.of(work.target), work.word)
    if isinstance(work, PlannedCopy):
        return Copy(Part.of(work.source), Part.of(work.target))
    if isinstance(work, PlannedInference):
        return Inference(Part.of(work.input), Part.of(work.logits))
    return Kernel(work.kernel, work.grid, work.block, tuple(_argument(value) for value in work.args))


def _argument(value: Slot | float) -> Part | np.int32 | np.float32:
    """In the type of a kernel's parameter: int32 for an int, float32 for a float."""
    if isinstance(value, Slot):
        return Part.of(value)
    number: np.int32 | np.float32 = np.int32(value) if isinstance(value, int) else np.float32(value)
    return number


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


def _array(values: NDArray[Any] | Sequence[Slot | int], memory: Memory) -> NDArray[Any]:
    """Data to copy to a buffer: the numbers, or words in which addresses replace buffer names."""
    if isinstance(values, np.ndarray):
        return values
    words = [Part.of(value).within(memory).address if isinstance(value, Slot) else value for value in values]
    return np.array(words, np.int64)


def planned_bytes(plan: LaunchPlan) -> int:
    """Memory that `allocate` takes."""
    return sum(planned.nbytes for planned in plan.buffers if planned.use != "given")


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

    def replay(self, sequence: Iterable[Work], memory: Memory, infer: Infer | None = None) -> None:
        """Queues a sequence on this memory, in which a caller may have put other buffers for those that he gives.

        `infer` is the network of a sequence that has one.
        """
        for work in sequence:
            if isinstance(work, Kernel):
                args = [value.within(memory) if isinstance(value, Part) else value for value in work.args]
                self._module.launch(Launch(work.name, work.grid, work.block, args), self.stream)
            elif isinstance(work, Fill):
                self.device.fill(work.target.within(memory), work.word, self.stream)
            elif isinstance(work, Copy):
                source, target = work.source.within(memory), work.target.within(memory)
                self.device.copy_from_address(target, source.address, work.source.nbytes, self.stream)
            else:
                assert infer is not None, "a sequence with the network inside"  # noqa: S101 - an invariant
                infer(work.input.within(memory), work.logits.within(memory), self.stream)
