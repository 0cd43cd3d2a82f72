"""The whole mean field on the GPU against the CPU core, on photos: the gates that the CRF promises to hold.

Prints one JSON object a line with what was measured; fails if one is beyond its gate.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gates import GATES, SETS
from numpy.typing import NDArray
from steps import sized

from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Device, open_device

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from photos import NAMES, network_like, photo

SIZES = sized([(513, 513), (375, 500)], rehearsal=[(33, 33), (24, 32)])
CLASSES = 21
ITERATIONS = 10


def compare(
    device: Device,
    params: CRFParams,
    probabilities: NDArray[np.float32],
    image: NDArray[np.uint8],
    expected: NDArray[np.float32],
    storage: str,
) -> dict[str, Any]:
    """How far the marginals on the device are from those expected, [C, H, W], and whether that is within the gate."""
    crf = CudaDenseCRF(params, iterations=ITERATIONS, storage=storage, device=device)
    got = crf(probabilities, image)
    worst, flips = GATES[storage]
    row = {
        "max_abs_difference": float(np.abs(got - expected).max()),
        "mean_abs_difference": float(np.abs(got - expected).mean()),
        "flips": float((got.argmax(axis=0) != expected.argmax(axis=0)).mean()),
        "vertices": crf.vertices,
    }
    # Written so that NaN is beyond it.
    return {**row, "within_gate": bool(row["max_abs_difference"] <= worst and row["flips"] <= flips)}


def rows(device: Device) -> Iterator[dict[str, Any]]:
    """One for each photo, size, set of parameters and storage."""
    for size, name, (key, params) in itertools.product(SIZES, NAMES, SETS.items()):
        image, probabilities = photo(name, size), network_like(CLASSES, size)
        expected = DenseCRF(params, iterations=ITERATIONS)(probabilities, image)
        for storage, gate in GATES.items():
            case = {"photo": name, "size": size, "parameters": key, "storage": storage, "gate": gate}
            yield {**case, **compare(device, params, probabilities, image, expected, storage)}


def main() -> int:
    """1 if a row is beyond its gate."""
    is_good = True
    for row in rows(open_device()):
        is_good &= row["within_gate"]
        print(json.dumps(row), flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
