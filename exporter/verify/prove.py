"""Proof of a graph over all that it is claimed to take: every backend, every covering input, one reference run each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import FloatArray
from ...bundle import Bundle
from ...errors import AtrousError, ExportError
from ...manifest import SOFTMAX, Artifact, Channels, InputSpec, SizePolicy, SkippedInput, Verification
from ...runtime.backends import BACKENDS, backend_status
from ...runtime.backends.select import REFERENCE
from ...runtime.backends.spec import BackendSpec
from .budget import Budget
from .compare import Comparison, Infer, Tolerance
from .coverage import Probe, covering_probes

#: Steps between the best and the largest size at which a smaller one is tried in place of the largest.
_SMALLER_STEPS: Final = 8


@dataclass(frozen=True)
class Named:
    """A network that can be run, and what records call it."""

    name: str
    infer: Infer


def cpu_backends() -> list[BackendSpec]:
    """The backends of the CPU that are installed, the reference first."""
    available = {status.name for status in backend_status() if status.available}
    found = [spec for spec in BACKENDS.values() if spec.device == "cpu" and spec.name in available]
    return sorted(found, key=lambda spec: spec is not REFERENCE)


def open_on_cpu(bundle: Bundle, artifact: Artifact) -> list[Named]:
    """A graph of a bundle in every backend of the CPU; the reference's record is named by the file alone.

    Raises:
        EngineError: a backend refuses the graph.
        BundleError: the file is not the one that was exported.
    """
    opened = [spec.open(bundle, artifact) for spec in cpu_backends()]
    return [
        Named(
            artifact.file if each.name == REFERENCE.name else f"{artifact.file} in {each.name} ({each.device})",
            each.infer,
        )
        for each in opened
    ]


def prove(
    candidates: Sequence[Named],
    reference: Named,
    inputs: InputSpec,
    *,
    tolerance: Tolerance,
    budget: Budget | None = None,
    probes: Sequence[Probe] | None = None,
    given: Iterable[FloatArray] = (),
    channels: Channels = SOFTMAX,
) -> tuple[Verification, ...]:
    """Compare candidates with a reference on what is given, and on inputs that cover the sizes and batches of `inputs`.

    The reference runs once for each image, so that a batch must answer what its images answer one by one. What
    memory or time does not allow is skipped and recorded; in place of the largest size, the largest that fits is run.

    Args:
        candidates: what is verified.
        reference: what they are compared with.
        inputs: sizes, batches and preprocessing of the claim.
        tolerance: bounds of the differences.
        budget: bounds of time and memory; None for the usual ones.
        probes: the inputs that cover the claim; None for those of `covering_probes`.
        given: prepared images [N, 3, H, W] float32 of a user, which are compared first and whatever they take.
        channels: what the channels of the networks mean.

    Raises:
        ExportError: a network of another library fails on an input.
        AtrousError: what a backend raises.
    """
    budget = budget or Budget()
    comparisons = [Comparison(each.name, reference.name, tolerance, channels=channels) for each in candidates]
    skipped: list[SkippedInput] = []

    def run(batch: FloatArray, picture: str) -> None:
        try:
            with budget.measure(batch.shape[0] * batch.shape[2] * batch.shape[3]):
                expected = np.concatenate([_run(reference, image[None]) for image in batch])
                answers = [_run(candidate, batch) for candidate in candidates]
        except MemoryError as exc:
            skipped.append(SkippedInput(batch.shape, f"there was not enough memory: {exc}"))
            return
        for answer, comparison in zip(answers, comparisons, strict=True):
            comparison.add(batch, expected, answer, picture=picture)

    for batch in given:
        run(batch, "given")
    waiting = list(covering_probes(inputs) if probes is None else probes)
    while waiting:
        probe = waiting.pop(0)
        objection = budget.objection(probe.pixels)
        if objection is not None:
            skipped.append(SkippedInput(probe.shape(inputs), objection))
            if probe == Probe(1, inputs.size.max):
                waiting[:0] = _largest_that_fits(inputs.size, budget)
            continue
        run(probe.make(inputs), probe.picture)
    return tuple(comparison.result(skipped=skipped) for comparison in comparisons)


def _run(network: Named, batch: FloatArray) -> NDArray[Any]:
    try:
        return network.infer(batch)
    except MemoryError:
        raise
    except Exception as exc:  # a module of torch raises what its author wrote
        # Wrapped already where the network comes from export: torch and ONNX Runtime say it in these words.
        if "allocate memory" in str(exc) or isinstance(exc.__cause__, MemoryError):
            raise MemoryError(str(exc)) from exc
        if isinstance(exc, AtrousError):
            raise
        raise ExportError(f"{network.name} fails on an input {list(batch.shape)}: {exc}") from exc


def _largest_that_fits(policy: SizePolicy, budget: Budget) -> list[Probe]:
    """The largest size between the best and the largest one that the budget does not object to, if there is any."""
    for step in reversed(range(1, _SMALLER_STEPS)):
        height, width = (
            (mid + (high - mid) * step // _SMALLER_STEPS - policy.offset) // policy.multiple * policy.multiple
            + policy.offset
            for mid, high in zip(policy.opt, policy.max, strict=True)
        )
        probe = Probe(1, (height, width))
        if budget.objection(probe.pixels) is None:
            return [probe]
    return []
