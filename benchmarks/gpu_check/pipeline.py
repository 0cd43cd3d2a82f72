"""Pictures to labels on the GPU, with every engine that it accepts: checked, called by 8 threads, run for 1,000 frames.

    GPU_CHECK_BUNDLE=street.atrous python benchmarks/gpu_check/pipeline.py

Without a bundle a small random network stands in: right for the check, but its timings say nothing about networks. Two
backends of the tests need no library and so always run: "kernel", a network that is one kernel, in one graph with the
rest, and "onnx-device", a network on the CPU between kernels on the GPU. Prints one JSON object a line, with times by
stage; fails if a backend that opened gives a wrong result or leaks memory.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from steps import sized

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from standins.kernel_backend import KernelBackend, pixel_bundle
from standins.onnx_device_backend import OnnxDeviceBackend
from tiny_graphs import local_layers, make_bundle

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import AtrousError
from atrous.exporter.engine.build import build_engine
from atrous.exporter.sizes import DynamicSize
from atrous.gpu import Device, open_device
from atrous.manifest import Precision, Size
from atrous.runtime.backends import BACKENDS, DeviceBackend, choose_artifact, open_reference
from atrous.runtime.result import Result
from atrous.runtime.segmenter import Segmenter

FRAMES = sized(1000, rehearsal=8)
WARMUP = sized(20, rehearsal=2)
ITERATIONS = sized(10, rehearsal=1)
CALLERS = 8
CALLS = sized(20, rehearsal=2)
"""Of each of the callers at once."""
#: After this many seconds there are no more frames or calls: networks on the CPU do not get to a thousand.
MAX_SECONDS = 5.0
FLAVORS = ("tensorrt-rtx", "tensorrt")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
#: Least share of labels equal to ONNX Runtime's in single precision on the CPU. TF32 and half precision move logits.
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.9}
#: Memory that may be gone after all frames: nothing of a frame's size.
MAX_GROWTH_BYTES = 1 << 20


class WrongResultError(Exception):
    """A backend gives other labels than the CPU, or loses memory."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    backend: str
    precision: str
    size: Size
    crf: bool


def scenes(size: Size) -> list[NDArray[np.uint8]]:
    """Two pictures of regions with colours of their own, and noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(2):
        blocks = rng.integers(30, 226, size=(size[0] // 37 + 1, size[1] // 41 + 1, 3))
        blocks = blocks.repeat(37, axis=0).repeat(41, axis=1)[: size[0], : size[1]]
        pictures.append(np.clip(blocks + rng.integers(-9, 10, size=(*size, 3)), 0, 255).astype(np.uint8))
    return pictures


def small_bundle(folder: Path) -> Bundle:
    """A random network of 19 classes and stride 8 for 64² to 1024×2048."""
    sizes = DynamicSize((64, 64), (512, 512), (1024, 2048), multiple=8)
    return make_bundle(folder / "small.atrous", local_layers(19), sizes=sizes)


def sizes_of(bundle: Bundle) -> list[Size]:
    """What is run: 513² and 1024×2048 where the network takes them, or else its favourite size."""
    policy = bundle.manifest.input.size
    if policy.is_fixed or bundle.manifest.input.resize != "none":
        return [policy.opt]
    wanted = sized([(513, 513), (1024, 2048)], rehearsal=[(64, 64), (41, 65)])
    return [size for size in wanted if size[0] <= policy.max[0] and size[1] <= policy.max[1]] or [policy.opt]


def build(bundle: Bundle, report: list[dict[str, Any]]) -> Bundle:
    """Engines of every flavour and precision that can be built here; `report` says what became of each."""
    have = {artifact.precision for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"}
    for flavor, precision in itertools.product(FLAVORS, PRECISIONS):
        if precision not in have:
            continue
        start = time.monotonic()
        try:
            bundle, _ = build_engine(bundle, precision=precision, backend=flavor)  # type: ignore[arg-type]
            outcome = "built"
        except AtrousError as exc:
            outcome = refusal(exc, bundle)
        seconds = round(time.monotonic() - start, 1)
        report.append({"build": flavor, "precision": precision, "outcome": outcome, "seconds": seconds})
    return bundle


def refusal(error: AtrousError, bundle: Bundle) -> str:
    """What the report says of it, without the folder that the bundle lies in."""
    return f"refused: {error}".replace(f"{bundle.path.parent}/", "")


def opened(bundle: Bundle, report: list[dict[str, Any]]) -> Iterator[DeviceBackend]:
    """Every backend of the GPU with every precision of the bundle, opened."""
    have = {artifact.precision for artifact in bundle.manifest.artifacts}
    specs = [spec for spec in BACKENDS.values() if spec.device == "gpu"]
    for spec, precision in itertools.product(specs, [each for each in PRECISIONS if each in have]):
        try:
            backend = spec.open(bundle, choose_artifact(spec, bundle, precision))
        except AtrousError as exc:
            report.append({"backend": spec.name, "precision": precision, "outcome": refusal(exc, bundle)})
            continue
        if isinstance(backend, DeviceBackend):
            yield backend


def expected_of(bundle: Bundle, size: Size, crf: DenseCRF | None) -> list[Result]:
    """What the CPU makes of the scenes, in single precision where the bundle has it."""
    segmenter = Segmenter(bundle, open_reference(bundle), crf=crf)
    results = [segmenter(picture) for picture in scenes(size)]
    for result in results:
        assert result.probabilities.size, "computed now: other backends must not wait for it"
    return results


def check(segmenter: Segmenter, expected: Sequence[Result], case: Case) -> dict[str, Any]:
    """Whether labels and probabilities are those of the CPU.

    Raises:
        WrongResultError: they are not.
    """
    agreements, worst = [], 0.0
    for got, one in zip(segmenter.stream(scenes(case.size)), expected, strict=True):
        agreements.append(float((got.labels == one.labels).mean()))
        worst = max(worst, float(np.abs(got.probabilities - one.probabilities).max()))
    if min(agreements) < MIN_AGREEMENT[case.precision]:
        raise WrongResultError(f"wrong result, {min(agreements):.3%} of labels agree: not timed")
    return {"agreement": min(agreements), "max_abs_probability": worst}


def call_at_once(segmenter: Segmenter, case: Case) -> dict[str, Any]:
    """Whether callers in as many threads get the labels that one gets.

    Raises:
        WrongResultError: they do not.
    """
    pictures = scenes(case.size)
    expected = [segmenter(picture).labels for picture in pictures]

    end = time.perf_counter() + MAX_SECONDS

    def differences(caller: int) -> list[bool]:
        found = []
        for turn in itertools.islice(itertools.cycle(range(len(pictures))), caller, caller + CALLS):
            found.append(not np.array_equal(segmenter(pictures[turn]).labels, expected[turn]))
            if time.perf_counter() > end:
                break
        return found

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [differs for found in pool.map(differences, range(CALLERS)) for differs in found]
    if any(calls):
        raise WrongResultError(f"wrong result, {sum(calls)} of {len(calls)} calls by {CALLERS} threads: not timed")
    return {"callers": CALLERS, "calls": len(calls)}


def summary(samples: list[float]) -> dict[str, float]:
    """Percentiles."""
    middle, high, highest = (round(float(value), 4) for value in np.percentile(samples, [50, 90, 99]))
    return {"p50_ms": middle, "p90_ms": high, "p99_ms": highest}


def time_frames(segmenter: Segmenter, device: Device, case: Case) -> dict[str, Any]:
    """One caller who waits for each frame, then a stream that does not; memory before and after.

    Raises:
        WrongResultError: there is less memory.
    """
    pictures = scenes(case.size)
    stages: dict[str, list[float]] = {}
    waits: list[float] = []
    free = 0
    for frame in range(WARMUP + FRAMES // 2):
        if frame == WARMUP:
            free = device.free_bytes()
        start = time.perf_counter()
        result = segmenter(pictures[frame % len(pictures)])
        if frame >= WARMUP:
            waits.append((time.perf_counter() - start) * 1e3)
            for stage, value in result.timings_ms.items():
                stages.setdefault(stage, []).append(value)
            if sum(waits) > 1e3 * MAX_SECONDS:
                break
    start = time.perf_counter()
    streamed = 0
    for _ in segmenter.stream(itertools.islice(itertools.cycle(pictures), FRAMES // 2)):
        streamed += 1
        if time.perf_counter() - start > MAX_SECONDS:
            break
    seconds = time.perf_counter() - start
    growth = free - device.free_bytes()
    if growth > MAX_GROWTH_BYTES:
        raise WrongResultError(f"{growth} bytes of GPU memory are gone after {len(waits) + streamed} frames")
    table = {stage: summary(samples) for stage, samples in stages.items()}
    around = sum(table[stage]["p50_ms"] for stage in ("upload", "preprocess", "postprocess", "download"))
    network = table["inference"]["p50_ms"] + (table["crf"]["p50_ms"] if case.crf else 0)
    return {
        "frames": len(waits) + streamed,
        "growth_bytes": growth,
        "latency": summary(waits),
        "frames_per_second": round(streamed / seconds, 1),
        "stages": table,
        "share_around_the_network": round(around / (around + network), 4),
    }


def run(bundle: Bundle, device: Device) -> Iterator[dict[str, Any]]:
    """The lines of the report for all that can run the bundle."""
    report: list[dict[str, Any]] = []
    bundle = build(bundle, report)
    backends = list(opened(bundle, report))
    yield from report
    yield from measure(bundle, backends, device)


def measure(bundle: Bundle, backends: Sequence[DeviceBackend], device: Device) -> Iterator[dict[str, Any]]:
    """Checks and times backends at every size, without and with the CRF."""
    crfs = (None, DenseCRF(CRFParams.deeplab_v2_resnet(), iterations=ITERATIONS))
    for size, crf in itertools.product(sizes_of(bundle) if backends else [], crfs):
        expected = expected_of(bundle, size, crf)
        for backend in backends:
            case = Case(backend.name, backend.artifact.precision, size, crf is not None)
            try:
                yield {**vars(case), **measure_one(bundle, backend, device, expected, case, crf)}
            except (AtrousError, WrongResultError) as exc:
                yield {**vars(case), "outcome": f"failed: {exc}"}


def measure_one(
    bundle: Bundle, backend: DeviceBackend, device: Device, expected: Sequence[Result], case: Case, crf: DenseCRF | None
) -> dict[str, Any]:
    """What is found of one case.

    Raises:
        AtrousError: the backend or the device fails.
        WrongResultError: labels are wrong, or memory is lost.
    """
    with closing(Segmenter(bundle, backend, crf=crf, workers=2)) as segmenter:
        at_once = call_at_once(segmenter, case)
    with closing(Segmenter(bundle, backend, crf=crf)) as segmenter:
        return {**check(segmenter, expected, case), **at_once, **time_frames(segmenter, device, case)}


def main() -> int:
    """Prints what is found, the slowest last; fails if a backend that opened failed."""
    given = os.environ.get("GPU_CHECK_BUNDLE")
    device = open_device()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given:
            shutil.copytree(given, folder / "given.atrous")
        small, pixels = small_bundle(folder), pixel_bundle(folder / "pixels.atrous")
        rows = itertools.chain(
            measure(pixels, [KernelBackend(pixels, open_device)], device),
            run(Bundle.open(folder / "given.atrous") if given else small, device),
            measure(small, [OnnxDeviceBackend(small, open_device)], device),
        )
        for row in rows:
            failed |= str(row.get("outcome", "")).startswith("failed")
            print(json.dumps(row), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
