"""Benchmark of a bundle on this machine: every backend and artifact, checked first, then timed in turns."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import AtrousError, EngineError
from ..manifest import Artifact, Precision
from .backends import BACKENDS, BackendSpec, DeviceBackend, backend_status
from .backends.select import REFERENCE
from .segmenter import Segmenter, load

#: Rounds of a measurement: all their times are kept.
_MAX_ROUNDS: Final = 1_000_000

Picture = NDArray[Any]

#: Labels [H, W] uint8 of an image [H, W, 3] uint8, and milliseconds by stage.
Run = Callable[[Picture], tuple[Picture, Mapping[str, float]]]

#: Share of labels that two ways of computing in FP32 must have in common: positions where two classes tie may differ.
MIN_AGREEMENT: Final = 0.999


@dataclass(frozen=True)
class Contender:
    """One way from an image to its labels.

    Attributes:
        name: of the backend or the library.
        device: where it computes.
        precision: of the network.
        crf: whether the dense CRF refines the labels.
        run: goes that way once.
        run_many: goes it so many times with one image, several in work at once; None where there is no such way.
    """

    name: str
    device: str
    precision: str
    crf: bool
    run: Run
    run_many: Callable[[Picture, int], None] | None = None

    @property
    def label(self) -> str:
        """Name in tables and plots."""
        return f"{self.name} {self.precision}{' + CRF' if self.crf else ''}"


@dataclass(frozen=True)
class LeftOut:
    """A contender that was not measured, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Latency:
    """Milliseconds over all repeats."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Latency:
        """Percentiles of samples."""
        middle, high, highest = (float(value) for value in np.percentile(samples_ms, [50, 90, 99]))
        return cls(middle, high, highest, float(np.mean(samples_ms)))


@dataclass(frozen=True)
class Row:
    """Measurements of one contender.

    Attributes:
        agreement: share of labels equal to the first contender's with or without CRF, as this one.
        end_to_end: image in memory to labels in memory, as a caller waits for it.
        stages: by name, in the order in which they run.
        frames_per_second: with several images in work where that is possible, else one after the other.
    """

    contender: Contender
    agreement: float
    end_to_end: Latency
    stages: Mapping[str, Latency]
    frames_per_second: float


def bundle_contenders(
    bundle: Bundle,
    *,
    backends: Collection[str] = (),
    precisions: Collection[str] = (),
    crf: bool = True,
    threads: int = 0,
) -> tuple[list[Contender], list[LeftOut]]:
    """Every artifact of the bundle in every backend that can run it here, without and with the CRF.

    ONNX Runtime in FP32 on the CPU comes first: its labels are what the others are compared with.

    Args:
        bundle: what is measured.
        backends: names of those wanted, which then have to work; all that do when empty.
        precisions: those wanted; all when empty.
        crf: measure with the dense CRF as well.
        threads: CPU threads; 0 for all cores.

    Raises:
        EngineError: an unknown backend, one that was asked for cannot run here, or nothing is left to measure.
    """
    unknown = set(backends) - BACKENDS.keys()
    if unknown:
        raise EngineError(f"unknown backend {min(unknown)!r}; expected {', '.join(BACKENDS)}")
    found: list[Contender] = []
    left_out: list[LeftOut] = []
    for spec, precision in _pairs(bundle, backends, precisions):
        try:
            found += _contenders(bundle, spec.name, precision, crf=crf, threads=threads)
        except AtrousError as exc:
            if spec.name in backends:
                raise
            left_out.append(LeftOut(f"{spec.name} {precision}", str(exc)))
    if not found:
        raise EngineError(f"{bundle.path} has no artifact of those precisions in those backends; nothing was measured")
    return found, left_out


def _pairs(
    bundle: Bundle, backends: Collection[str], precisions: Collection[str]
) -> list[tuple[BackendSpec, Precision]]:
    """Backend and precision; where none was asked for, graphs in what is available and engines in any case."""
    if backends:
        specs = [BACKENDS[name] for name in backends]
    else:
        available = {status.name for status in backend_status() if status.available}
        specs = [spec for spec in BACKENDS.values() if spec.reads == "engine" or spec.name in available]
    specs.sort(key=lambda spec: spec.name != REFERENCE.name)
    return [
        (spec, precision)
        for spec in specs
        for precision in dict.fromkeys(
            precision
            for artifact in bundle.manifest.artifacts
            if artifact.kind == spec.reads
            for precision in _precisions_of(artifact, spec)
        )
        if not precisions or precision in precisions
    ]


def _precisions_of(artifact: Artifact, spec: BackendSpec) -> tuple[Precision, ...]:
    """Those that the artifact runs in: an FP32 graph in bfloat16 too, where the backend and the CPU do."""
    both = artifact.precision == "fp32" and spec.bf16_objection() is None
    return (artifact.precision, "bf16") if both else (artifact.precision,)


def _contenders(bundle: Bundle, name: str, precision: str, *, crf: bool, threads: int) -> list[Contender]:
    made = []
    for with_crf in (False, True) if crf else (False,):
        segmenter = load(bundle, backend=name, precision=precision, crf=with_crf, threads=threads)
        many = _run_many_of(segmenter) if isinstance(segmenter.backend, DeviceBackend) else None
        made.append(Contender(name, segmenter.backend.device, precision, with_crf, _run_of(segmenter), many))
    return made


def _run_of(segmenter: Segmenter) -> Run:
    def run(picture: Picture) -> tuple[Picture, Mapping[str, float]]:
        result = segmenter(picture)
        return result.labels, result.timings_ms

    return run


def _run_many_of(segmenter: Segmenter) -> Callable[[Picture, int], None]:
    def run_many(picture: Picture, count: int) -> None:
        for _ in segmenter.stream(itertools.repeat(picture, count)):
            pass

    return run_many


def measure(
    contenders: Sequence[Contender],
    picture: Picture,
    *,
    warmup: int = 5,
    repeats: int = 50,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Compare labels, then run all contenders once a round, so that what else the machine does hits all alike.

    Args:
        contenders: the first of those without and of those with CRF is what the others are compared with.
        picture: [H, W, 3] uint8 RGB.
        warmup: warm-up rounds, not timed.
        repeats: timed rounds.
        progress: told the number of rounds done.

    Raises:
        EngineError: two that compute in FP32 give different labels, a backend fails, or `repeats` is 0 or excessive.
    """
    if warmup < 0 or not 1 <= repeats <= _MAX_ROUNDS - warmup:
        raise EngineError(f"expected 1 to {_MAX_ROUNDS} rounds; got {warmup} to warm up and {repeats} timed")
    agreements = _agreements(contenders, picture)
    totals: list[list[float]] = [[] for _ in contenders]
    stages: list[defaultdict[str, list[float]]] = [defaultdict(list) for _ in contenders]
    for turn in range(warmup + repeats):
        for index, contender in enumerate(contenders):
            start = time.perf_counter()
            _, timings = contender.run(picture)
            total_ms = (time.perf_counter() - start) * 1e3
            if turn < warmup:
                continue
            totals[index].append(total_ms)
            for stage, value in timings.items():
                stages[index][stage].append(value)
        progress(turn + 1)
    return [
        Row(
            contender,
            agreement,
            Latency.of(total),
            {name: Latency.of(samples) for name, samples in by_stage.items()},
            _frames_per_second(contender, picture, total),
        )
        for contender, agreement, total, by_stage in zip(contenders, agreements, totals, stages, strict=True)
    ]


def _frames_per_second(contender: Contender, picture: Picture, totals_ms: Sequence[float]) -> float:
    if contender.run_many is None:
        return 1e3 / float(np.mean(totals_ms))
    start = time.perf_counter()
    contender.run_many(picture, len(totals_ms))
    return len(totals_ms) / (time.perf_counter() - start)


def _agreements(contenders: Sequence[Contender], picture: Picture) -> list[float]:
    expected: dict[bool, tuple[Contender, Picture]] = {}
    found = []
    for contender in contenders:
        labels, _ = contender.run(picture)
        first, reference = expected.setdefault(contender.crf, (contender, labels))
        same = float((labels == reference).mean())
        if contender.precision == first.precision == "fp32" and same < MIN_AGREEMENT:
            raise EngineError(
                f"{contender.name} gives other labels than {first.name}: {same:.3%} are equal; expected at least "
                f"{MIN_AGREEMENT:.1%} in FP32. Nothing was timed. Is it the same model?"
            )
        found.append(same)
    return found


def as_plain(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """As JSON values; `ratio` is the median of a contender's time over that of the first without or with CRF."""
    first: dict[bool, float] = {}
    plain = []
    for row in rows:
        contender, total = row.contender, row.end_to_end
        base = first.setdefault(contender.crf, total.p50_ms)
        plain.append(
            {
                "name": contender.name,
                "device": contender.device,
                "precision": contender.precision,
                "crf": contender.crf,
                "agreement": row.agreement,
                "end_to_end": _rounded(total),
                "frames_per_second": round(row.frames_per_second, 3),
                "ratio": round(total.p50_ms / base, 4),
                "stages": {name: _rounded(latency) for name, latency in row.stages.items()},
            }
        )
    return {"rows": plain, "left_out": [{"name": each.name, "reason": each.reason} for each in left_out]}


def _rounded(latency: Latency) -> dict[str, float]:
    return {name: round(value, 4) for name, value in vars(latency).items()}
