"""Every engine that this GPU accepts, with the networks of `networks.py`: which run, how fast, and why others do not.

Two times each: the network alone, its input and output in GPU memory, and whole pictures to labels by a `Segmenter`.
Results are compared with ONNX Runtime's on the CPU before anything is timed. Prints JSON lines.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from networks import NETWORKS, Network
from numpy.typing import NDArray
from steps import sized
from timing import back_to_back_ms, quartiles

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import AtrousError
from atrous.exporter.engine.build import build_engine
from atrous.manifest import Precision
from atrous.runtime.backends import BACKENDS, Backend, DeviceBackend, open_backend, open_reference
from atrous.runtime.preprocess import prepare_image
from atrous.runtime.segmenter import Segmenter

WARMUP, REPEATS = sized((10, 50), rehearsal=(1, 2))
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "int8")
FLAVORS = ("tensorrt-rtx", "tensorrt")
#: Least share of equal labels, so low that only another network falls below: half precision and TF32 move logits, and
#: a network with random weights has many that are nearly tied.
MIN_AGREEMENT = {"fp32": 0.98, "fp16": 0.95, "int8": 0.8}

Open = Callable[[], DeviceBackend]


@dataclass(frozen=True)
class Reference:
    """What ONNX Runtime makes of a picture on the CPU.

    Attributes:
        prepared: [1, 3, H, W] float32, the network's input.
        logits: [1, C, h, w] float32.
        labels: [H, W] uint8.
    """

    prepared: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.uint8]

    @classmethod
    def of(cls, bundle: Bundle, picture: NDArray[np.uint8], precision: str) -> Reference:
        """Of the same INT8 graph for INT8, and else of the FP32 one."""
        backend = open_reference(bundle, precision="int8" if precision == "int8" else "fp32")
        prepared = prepare_image(picture, picture.shape[:2], bundle.manifest.input)[None]
        return cls(prepared, backend.infer(prepared), Segmenter(bundle, backend)(picture).labels)


def ways(bundle: Bundle, precision: Precision, scratch: Path) -> Iterator[tuple[str, Open]]:
    """Name and how to open it, for all that might run on a GPU, engines built when they are opened."""
    if bundle.find(kind="onnx", precision=precision) is None:
        return

    def built(flavor: str) -> Backend:
        copy = Bundle.open(shutil.copytree(bundle.path, scratch / f"{flavor}.atrous"))
        extended, (engine,) = build_engine(copy, precision=precision, backend=flavor)  # type: ignore[arg-type]
        return BACKENDS["tensorrt"].open(extended, engine)

    for flavor in FLAVORS:
        yield flavor, partial(built, flavor)  # type: ignore[misc]  # on a GPU all are device backends
    for spec in BACKENDS.values():
        if spec.device == "gpu" and spec.reads == "onnx":
            yield spec.name, partial(open_backend, bundle, backend=spec.name, precision=precision)  # type: ignore[misc]


def network_alone(backend: DeviceBackend, reference: Reference) -> dict[str, Any]:
    """Its time, queued and in a CUDA graph, and how far its logits are from the reference's."""
    device = backend.make_device()
    engine = backend.open_engine(device)
    layout = engine.prepare(reference.prepared.shape)
    stream = device.stream()
    sent = np.ascontiguousarray(reference.prepared, dtype=layout.input_dtype)
    got = np.empty(layout.output_shape, layout.output_dtype)
    source, result = device.allocate(sent.nbytes), device.allocate(got.nbytes)
    device.upload(source, sent, stream)

    def infer() -> None:
        engine.queue(source, result, stream)

    infer()
    device.download(got, result, stream)
    found: dict[str, Any] = {**compare(got.astype(np.float32), reference.logits)}
    found["no_graph"] = quartiles(back_to_back_ms(device, stream, infer, warmup=WARMUP, repeats=REPEATS))
    if engine.capturable:
        graph = device.capture(infer, stream)
        found["graph"] = quartiles(
            back_to_back_ms(device, stream, lambda: graph.replay(stream), warmup=WARMUP, repeats=REPEATS)
        )
    return found


def compare(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    """Share of equal labels at the network's own size, and the largest difference over the largest value."""
    agreement = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {
        "logit_agreement": round(agreement, 5),
        "relative_error": float(np.abs(logits - expected).max() / np.abs(expected).max()),
    }


def whole_pictures(
    bundle: Bundle, backend: DeviceBackend, picture: NDArray[np.uint8], crf: DenseCRF | None
) -> dict[str, Any]:
    """Times of one caller who waits for each picture, by stage, and frames a second of a stream that does not."""
    segmenter = Segmenter(bundle, backend, crf=crf)
    try:
        waits, stages = [], dict[str, list[float]]()
        for turn in range(WARMUP + REPEATS):
            start = time.perf_counter()
            result = segmenter(picture)
            if turn < WARMUP:
                continue
            waits.append((time.perf_counter() - start) * 1e3)
            for stage, value in result.timings_ms.items():
                stages.setdefault(stage, []).append(value)
        start = time.perf_counter()
        for last in segmenter.stream(itertools.repeat(picture, REPEATS)):
            result = last
        rate = REPEATS / (time.perf_counter() - start)
        return {
            "labels": result.labels,
            "latency": quartiles(waits),
            "frames_per_second": round(rate, 1),
            "stages": {stage: round(float(np.median(values)), 4) for stage, values in stages.items()},
        }
    finally:
        segmenter.close()


def measure(bundle: Bundle, backend: DeviceBackend, picture: NDArray[np.uint8], reference: Reference) -> dict[str, Any]:
    """The times of one backend, or that its result is wrong."""
    precision = backend.artifact.precision
    alone = network_alone(backend, reference)
    if alone["logit_agreement"] < MIN_AGREEMENT[precision]:
        return {"outcome": f"wrong result, {alone['logit_agreement']:.2%} of labels agree: not timed"}
    found: dict[str, Any] = {"outcome": "runs", "device": backend.device, "network": alone}
    for name, crf in (("picture", None), ("picture_with_crf", DenseCRF(CRFParams.deeplab_v2_resnet()))):
        timed = whole_pictures(bundle, backend, picture, crf)
        labels = timed.pop("labels")
        if crf is None:
            timed["agreement"] = round(float((labels == reference.labels).mean()), 5)
        found[name] = timed
    return found


def rows_of(network: Network, precision: Precision) -> Iterator[dict[str, Any]]:
    """A line for each engine."""
    about = {"network_name": network.name, "size": network.size, "precision": precision}
    if not network.path.exists():
        yield {**about, "outcome": "not run: there is no bundle; see networks.py"}
        return
    bundle, picture = Bundle.open(network.path), network.picture()
    reference: Reference | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for name, open_it in ways(bundle, precision, Path(scratch)):
            row = {**about, "engine": name}
            start = time.monotonic()
            try:
                backend = open_it()
                row["opening_seconds"] = round(time.monotonic() - start, 2)
                reference = reference or Reference.of(bundle, picture, precision)
                yield {**row, **measure(bundle, backend, picture, reference)}
            except AtrousError as exc:
                yield {**row, "outcome": f"refused: {exc}"}
            except Exception as exc:
                yield {**row, "outcome": f"failed: {type(exc).__name__}: {exc}"}


def main() -> int:
    """Prints all, the most wanted precision of all networks first; fails if a result was wrong."""
    bad = False
    for precision, network in itertools.product(PRECISIONS, NETWORKS):
        for row in rows_of(network, precision):
            bad |= row["outcome"].startswith(("wrong", "failed"))
            print(json.dumps(row), flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
