"""Times the dense CRF on the GPU, with its input and output in GPU memory, and its peers on the host's CPU.

Each result is checked before it is timed. Prints one JSON object a line, the most wanted first, so that what is
measured before a time limit is not lost.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bandwidth import copy_gb_per_s
from gates import GATES, SETS
from numpy.typing import NDArray
from steps import sized
from timing import alone_ms, back_to_back_ms, quartiles
from traffic import frame, per_iteration

from atrous import _native
from atrous.crf import DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.cuda_field import CudaField
from atrous.gpu import Device, allocate, open_device, prepare

sys.path.insert(0, str(Path(__file__).parents[1]))
from pydensecrf_peer import peer

WARMUP, REPEATS = sized((20, 50), rehearsal=(0, 1))
ITERATIONS = 10
STORAGES = ("fp32", "unorm16")
#: Milliseconds that a frame may take by (width of the picture, storage), and those that would be better still.
TARGETS_MS = {
    (513, "fp32"): (7.0, 2.5),
    (513, "unorm16"): (4.0, 2.5),
    (2048, "fp32"): (35.0, None),
    (2048, "unorm16"): (15.0, None),
}
#: Standard deviation of the noise on each of five scales. It gives about as many vertices as photos have: at 513×513
#: and P1 0.23 and 0.56 million, where 0.23 and 0.56 million were counted on a blurred and on a sharp one.
NOISE = {"plain": 1.75, "textured": 3.1}
#: Beyond these a result is wrong and not timed: max |ΔQ|, and flipped labels.
LIMITS = {"fp32": (1e-4, 1e-5), "unorm16": (1e-2, 1e-3)}

Maps = NDArray[np.float32]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """What a CRF is run on, and with which parameters."""

    height: int
    width: int
    classes: int
    parameters: str
    texture: str


SMALL, LARGE = sized(((513, 513, 21), (1024, 2048, 19)), rehearsal=((24, 33, 5), (32, 20, 19)))
TARGETS = [Scene(*size, "P1", texture) for size in (SMALL, LARGE) for texture in ("textured", "plain")]
OTHERS = [
    Scene(*SMALL, parameters, texture)
    for parameters in sized(("P2", "P3"), rehearsal=("P2",))
    for texture in ("textured", "plain")
]


class WrongResultError(Exception):
    """A result that is not timed."""


def make(scene: Scene) -> tuple[Maps, Picture]:
    """Class probabilities [C, H, W] and an RGB picture [H, W, 3]: regions with colours of their own, and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.float32)
    waves = np.sin(x / 41 + np.sin(y / 67) * 2) + np.cos(y / 53 + np.sin(x / 71))
    regions = ((waves + 2) / 4 * scene.classes).astype(int) % scene.classes
    picture = rng.integers(20, 236, size=(scene.classes, 3))[regions].astype(np.float32)
    picture += 20 * np.sin(x / 90)[..., None]
    for size in (1, 2, 4, 8, 16):
        cells = (scene.height // size + 1, scene.width // size + 1, 3)
        noise = rng.normal(scale=NOISE[scene.texture], size=cells).astype(np.float32)
        picture += noise.repeat(size, 0).repeat(size, 1)[: scene.height, : scene.width]
    logits = rng.normal(size=(scene.classes, scene.height, scene.width)).astype(np.float32)
    logits += 2.0 * (regions == np.arange(scene.classes)[:, None, None])
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0), np.clip(picture, 0, 255).astype(np.uint8)


def check(got: Maps, expected: Maps, storage: str) -> dict[str, Any]:
    """How far marginals are from the CPU core's.

    Raises:
        WrongResultError: further than rounding explains.
    """
    worst = float(np.abs(got - expected).max())
    flips = float((got.argmax(axis=0) != expected.argmax(axis=0)).mean())
    most, most_flips = LIMITS[storage]
    if not worst <= most or flips > most_flips:
        raise WrongResultError(f"wrong result, max|dQ| {worst:.2e}, {flips:.3%} of labels differ: not timed")
    gate = GATES[storage]
    return {"max_abs_difference": worst, "flips": flips, "within_gate": worst <= gate[0] and flips <= gate[1]}


def construction(field: CudaField) -> Callable[[], None]:
    """Queues building the bilateral lattice of a frame, in memory of its own."""
    queue, lattice = field.queue, field.spec.native.bilateral
    assert lattice is not None, "every set of parameters has one"
    plan = _native.plan_lattice(lattice, queue.device.properties.multiprocessors)
    memory = {**allocate(plan, queue.device, queue.stream), "rgb": field.buffers["rgb"]}
    sequence = prepare(plan.sequences["build"])
    return lambda: queue.replay(sequence, memory)


def both_ways(field: CudaField, work: Callable[[], None]) -> dict[str, Any]:
    """The time of the same launches in a CUDA graph and queued one by one; neither may allocate."""
    device, stream = field.queue.device, field.queue.stream
    work()  # loads what is not loaded yet
    graph = device.capture(work, stream)
    ways: dict[str, Callable[[], None]] = {"graph": lambda: graph.replay(stream), "no_graph": work}
    found = {
        way: quartiles(back_to_back_ms(device, stream, run, warmup=WARMUP, repeats=REPEATS))
        for way, run in ways.items()
    }
    found["graph_alone"] = quartiles(alone_ms(device, stream, ways["graph"], warmup=WARMUP, repeats=REPEATS))
    return found


def labelled(field: CudaField) -> Callable[[], None]:
    """Queues a whole frame: probabilities and picture to labels."""

    def work() -> None:
        field.queue_frame()
        field.queue_labels()

    return work


def gpu_row(device: Device, scene: Scene, storage: str, copy_rate: float, expected: Maps) -> dict[str, Any]:
    """One line of the table.

    Args:
        device: the GPU.
        scene: what the CRF is run on.
        storage: as `CudaDenseCRF` takes it.
        copy_rate: measured, in 10⁹ bytes a second.
        expected: the CPU core's marginals.

    Raises:
        WrongResultError: the result is.
    """
    maps, picture = make(scene)
    params = SETS[scene.parameters]
    free = device.free_bytes()
    crf = CudaDenseCRF(params, iterations=ITERATIONS, storage=storage, device=device)  # type: ignore[arg-type]
    checked = check(crf(maps, picture), expected, storage)
    memory = free - device.free_bytes()
    field, vertices = crf.field, crf.vertices
    frames = both_ways(field, labelled(field))
    building = both_ways(field, construction(field))
    one = CudaDenseCRF(params, iterations=1, storage=storage, device=device)  # type: ignore[arg-type]
    one.labels_on_device(maps, picture)
    once = both_ways(one.field, labelled(one.field))["graph"]["median_ms"]
    iteration_ms = (frames["graph"]["median_ms"] - once) / (ITERATIONS - 1)
    return {
        **vars(scene),
        "storage": storage,
        **checked,
        "vertices": vertices,
        "frame": frames,
        "construction": building,
        "per_iteration_ms": round(iteration_ms, 4),
        "launches": len(frame(field.spec, vertices)) + 1,
        "memory_bytes": memory,
        **_against_model(field, vertices, iteration_ms, copy_rate),
        **_against_target(scene, storage, frames["graph"]["median_ms"]),
    }


def _against_model(field: CudaField, vertices: dict[str, int], iteration_ms: float, copy_rate: float) -> dict[str, Any]:
    """Bytes a second of an iteration if it moved what the model says, and as a share of what a copy moves."""
    least, asked = per_iteration(field.spec, vertices)
    rates = [nbytes / max(iteration_ms, 1e-6) / 1e6 for nbytes in (least, asked)]
    return {
        "least_bytes_per_iteration": round(least),
        "asked_bytes_per_iteration": round(asked),
        "least_gb_per_s": round(rates[0], 1),
        "asked_gb_per_s": round(rates[1], 1),
        "least_share_of_copy": round(rates[0] / copy_rate, 3),
        "copy_gb_per_s": copy_rate,
    }


def _against_target(scene: Scene, storage: str, frame_ms: float) -> dict[str, Any]:
    targets = TARGETS_MS.get((scene.width, storage)) if scene.parameters == "P1" else None
    if targets is None:
        return {}
    target, better = targets
    found: dict[str, Any] = {"target_ms": target, "target_met": frame_ms <= target}
    return found if better is None else {**found, "stretch_ms": better, "stretch_met": frame_ms <= better}


def peer_rows(scene: Scene) -> Iterator[dict[str, Any]]:
    """The CPU core on all cores, and pydensecrf on one, whose labels are compared with it; construction included."""
    maps, picture = make(scene)
    params = SETS[scene.parameters]
    runs: dict[str, Callable[[], Maps]] = {
        "atrous on the CPU": lambda: DenseCRF(params, iterations=ITERATIONS)(maps, picture),
        "pydensecrf": lambda: peer(maps, picture, params, ITERATIONS),
    }
    expected: Maps | None = None
    repeats = sized(5 if (scene.height, scene.width) == SMALL[:2] else 2, rehearsal=1)
    for name, run in runs.items():
        row: dict[str, Any] = {**vars(scene), "peer": name}
        try:
            samples = []
            for _ in range(repeats if name != "pydensecrf" else max(1, repeats // 2)):
                start = time.perf_counter()
                got = run()
                samples.append((time.perf_counter() - start) * 1e3)
                if expected is not None:
                    row |= check(got, expected, "fp32")
            expected = got
            yield {**row, "frame": quartiles(samples), "runs": len(samples)}
        except ImportError as exc:
            yield {**row, "outcome": f"not run: {exc}; pip install pydensecrf2"}
        except WrongResultError as exc:
            yield {**row, "outcome": str(exc)}


def gpu_rows(device: Device, scene: Scene, copy_rate: float) -> Iterator[dict[str, Any]]:
    """The lines of all storages."""
    maps, picture = make(scene)
    expected = DenseCRF(SETS[scene.parameters], iterations=ITERATIONS)(maps, picture)
    for storage in STORAGES:
        try:
            yield gpu_row(device, scene, storage, copy_rate, expected)
        except WrongResultError as exc:
            yield {**vars(scene), "storage": storage, "outcome": str(exc)}


def rows(device: Device) -> Iterator[dict[str, Any]]:
    """Everything: first what has a target, then the small peers, other parameters, and the slow peers."""
    copy_rate = copy_gb_per_s(device)
    for scene in TARGETS:
        yield from gpu_rows(device, scene, copy_rate)
    for scene in TARGETS[:2]:
        yield from peer_rows(scene)
    for scene in OTHERS:
        yield from gpu_rows(device, scene, copy_rate)
    for scene in TARGETS[2:]:
        yield from peer_rows(scene)


def main() -> int:
    """Prints all; fails if a result was wrong."""
    wrong = False
    for row in rows(open_device()):
        wrong |= str(row.get("outcome", "")).startswith("wrong")
        print(json.dumps(row), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
