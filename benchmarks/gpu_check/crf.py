"""Times the dense CRF on the GPU, with its input and output in GPU memory. Each result is checked first."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.cuda_field import CudaField
from atrous.gpu import Device, PyCudaDevice

WARMUP, REPEATS = 5, 30
SETS = {
    "P1": CRFParams.deeplab_v2_resnet(),
    "P2": CRFParams.deeplab_v2_vgg(),
    "P3": CRFParams.pydensecrf_readme(),
}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    height: int
    width: int
    classes: int
    parameters: str
    texture: str
    precision: str


CASES = [
    Case(*size, parameters, texture, precision)
    for size in ((375, 500, 21), (513, 513, 21), (1024, 2048, 19))
    for parameters in SETS
    for texture in ("plain", "textured")
    for precision in ("fp32", "fp16")
    if parameters == "P1" or size == (513, 513, 21)
]


def scene(case: Case) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Regions with colours of their own; `textured` adds noise at scales of 1 to 16 pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: case.height, : case.width].astype(np.float32)
    waves = np.sin(x / 41 + np.sin(y / 67) * 2) + np.cos(y / 53 + np.sin(x / 71))
    regions = ((waves + 2) / 4 * case.classes).astype(int) % case.classes
    picture = rng.integers(20, 236, size=(case.classes, 3))[regions].astype(np.float32)
    picture += 20 * np.sin(x / 90)[..., None]
    for size in (1, 2, 4, 8, 16) if case.texture == "textured" else ():
        coarse = rng.normal(scale=5, size=(case.height // size + 1, case.width // size + 1, 3))
        picture += coarse.repeat(size, 0).repeat(size, 1)[: case.height, : case.width]
    logits = rng.normal(size=(case.classes, case.height, case.width)).astype(np.float32)
    logits += 2.0 * (regions == np.arange(case.classes)[:, None, None])
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0), np.clip(picture, 0, 255).astype(np.uint8)


def check(crf: CudaDenseCRF, case: Case, maps: NDArray[np.float32], picture: NDArray[np.uint8]) -> dict[str, Any]:
    """How far the result is from the CPU core's.

    Raises:
        SystemExit: it is beyond the numeric gate.
    """
    got, expected = crf(maps, picture), DenseCRF(crf.params)(maps, picture)
    worst = float(np.abs(got - expected).max())
    flips = float((got.argmax(axis=0) != expected.argmax(axis=0)).mean())
    gate = (1e-4, 0.0) if case.precision == "fp32" else (1e-2, 1e-4)
    if worst > gate[0] or flips > gate[1]:
        raise SystemExit(f"{case}: wrong result, max|dQ| {worst:.2e}, {flips:.2%} of labels differ: not timed")
    return {"max_abs_difference": worst, "flips": flips}


def time_frames(device: Device, field: CudaField) -> list[float]:
    """Milliseconds of whole frames, lattice construction included, between events on the stream."""
    samples = []
    for _ in range(WARMUP + REPEATS):
        start = device.record(field.queue.stream)
        field.replay()
        samples.append(device.record(field.queue.stream).elapsed_ms(start))
    return samples[WARMUP:]


def summary(samples: list[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, median, high = (round(float(value), 4) for value in np.percentile(samples, [25, 50, 75]))
    return {"median_ms": median, "iqr_ms": [low, high]}


def modelled_bytes(case: Case, vertices: dict[str, int]) -> int:
    """What one iteration moves if no pass reuses what another has read.

    Rows: each entry once in the splat and once in the slice, each vertex written by the splat, and in each axis of the
    blur read, written, and half of the time read by each of two neighbours. Beside them entries, links, logits and Q.
    """
    pixels = case.height * case.width
    element, width = (4, 4) if case.precision == "fp32" else (2, 8)
    stride = -(-case.classes // width) * width
    row = element * stride
    total = pixels * (4 * stride + row)
    for corners, count in ((3, vertices["gaussian"]), (6, vertices["bilateral"])):
        total += 2 * corners * pixels * (row + 8) + count * row + corners * count * (3 * row + 8)
    return total


def run(device: Device, case: Case) -> dict[str, Any]:
    """One line of the table."""
    maps, picture = scene(case)
    free = device.free_bytes()
    crf = CudaDenseCRF(SETS[case.parameters], precision=case.precision, device=device)
    checked = check(crf, case, maps, picture)
    memory = free - device.free_bytes()
    ten = time_frames(device, crf.field)
    vertices = crf.vertices
    del crf  # frees its memory
    crf = CudaDenseCRF(SETS[case.parameters], iterations=1, precision=case.precision, device=device)
    crf.labels_on_device(maps, picture)
    one = time_frames(device, crf.field)
    per_iteration = (np.median(ten) - np.median(one)) / 9
    moved = modelled_bytes(case, vertices)
    return {
        **vars(case),
        **checked,
        "vertices": vertices,
        "frame": summary(ten),
        "per_iteration_ms": round(float(per_iteration), 4),
        "construction_ms": round(float(np.median(one) - per_iteration), 4),
        "memory_bytes": memory,
        "modelled_bytes_per_iteration": moved,
        "achieved_gb_per_s": round(moved / max(float(per_iteration), 1e-6) / 1e6, 1),
    }


def main() -> None:
    """Prints one JSON object a line, so that what is measured before a time limit is not lost."""
    device = PyCudaDevice()
    for case in CASES:
        print(json.dumps(run(device, case)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
