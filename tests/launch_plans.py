"""What a launch plan is made of, read beside the kernels that it launches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from atrous import _native
from atrous._native import PlannedCopy, PlannedFill, PlannedInference, PlannedLaunch, Slot

#: Parameters of kernels, as they are declared.
Signatures = Mapping[str, list[str]]


def kind_of(parameter: str) -> type:
    """What a plan passes for a parameter as it is declared."""
    if "*" in parameter:
        return Slot
    return {"int": int, "float": float}[parameter.split()[0]]


def slots_of(step: _native.Step, signatures: Signatures) -> list[tuple[Slot, bool]]:
    """The memory of a step, and whether it is only read."""
    work = step.work
    if isinstance(work, PlannedFill):
        return [(work.target, False)]
    if isinstance(work, PlannedCopy):
        return [(work.source, True), (work.target, False)]
    if isinstance(work, PlannedInference):
        return [(work.input, True), (work.logits, False)]
    pairs = zip(work.args, signatures[work.kernel], strict=True)
    return [(slot, parameter.startswith("const ")) for slot, parameter in pairs if isinstance(slot, Slot)]


def launches_of(steps: Iterable[_native.Step]) -> Iterator[PlannedLaunch]:
    """Those steps that are kernels."""
    return (step.work for step in steps if isinstance(step.work, PlannedLaunch))


def covered(intervals: list[tuple[int, int]], slot: Slot) -> bool:
    """Whether parts that were written are together all of a slot."""
    at = slot.offset
    for begin, end in sorted(intervals):
        at = max(at, end) if begin <= at else at
    return at >= slot.offset + slot.nbytes


def assert_arguments_fit(steps: Iterable[_native.Step], signatures: Signatures) -> None:
    """They are of the kernels' types."""
    for launch in launches_of(steps):
        kinds = [kind_of(parameter) for parameter in signatures[launch.kernel]]
        assert [type(value) for value in launch.args] == kinds, launch.kernel


def assert_blocks_fit(steps: Iterable[_native.Step]) -> None:
    """They are of a size that GPUs have."""
    for launch in launches_of(steps):
        width, height = launch.block
        assert 1 <= width * height <= 256
        assert 1 <= launch.grid < 2**31
