"""How fast this GPU copies: within its memory, and from and to page-locked memory of the host. Prints JSON lines.

What a kernel achieves is judged by the copy within memory, not by a data sheet. Its bytes count twice: read and
written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from steps import sized
from timing import back_to_back_ms, quartiles

from atrous.gpu import Device, open_device

SIZES = sized([1 << bits for bits in range(20, 31, 2)], rehearsal=[1 << 10, 1 << 16])
#: Between two events there are as many copies as move this much, for an event takes as long as a small copy.
SAMPLE_BYTES = sized(1 << 28, rehearsal=1 << 16)
WARMUP, REPEATS = sized((3, 20), rehearsal=(1, 2))
#: Too large for the second-level cache of any GPU, and small enough for any memory.
LARGE_BYTES = sized(1 << 28, rehearsal=1 << 16)


def copies(device: Device, nbytes: int) -> Iterator[dict[str, Any]]:
    """The lines for one size.

    Raises:
        SystemExit: what came back is not what was sent.
    """
    stream = device.stream()
    host_in, host_out = device.allocate_host(nbytes), device.allocate_host(nbytes)
    host_in[:] = _pattern(nbytes)
    source, target = device.allocate(nbytes), device.allocate(nbytes)
    ways: dict[str, tuple[int, Callable[[], None]]] = {
        "host to device": (1, lambda: device.upload_async(source, host_in, stream)),
        "device to device": (2, lambda: device.copy_from_address(target, source.address, nbytes, stream)),
        "device to host": (1, lambda: device.download_async(host_out, target, stream)),
    }
    for _, copy in ways.values():
        copy()
    stream.synchronize()
    if not np.array_equal(host_in, host_out):
        raise SystemExit(f"{nbytes} bytes came back changed: not timed")
    for way, (passes, copy) in ways.items():
        yield {"copy": way, "bytes": nbytes, **_timed(device, stream, copy, passes, nbytes)}


def copy_gb_per_s(device: Device) -> float:
    """Bytes read and written by a large copy within the GPU's memory, in 10⁹ a second."""
    stream = device.stream()
    source, target = device.allocate(LARGE_BYTES), device.allocate(LARGE_BYTES)
    timed = _timed(
        device, stream, lambda: device.copy_from_address(target, source.address, LARGE_BYTES, stream), 2, LARGE_BYTES
    )
    return float(timed["gb_per_s"])


def _timed(device: Device, stream: Any, copy: Callable[[], None], passes: int, nbytes: int) -> dict[str, Any]:  # noqa: ANN401
    count = max(1, SAMPLE_BYTES // nbytes)

    def many() -> None:
        for _ in range(count):
            copy()

    samples = [ms / count for ms in back_to_back_ms(device, stream, many, warmup=WARMUP, repeats=REPEATS)]
    gb_per_s = passes * nbytes / max(float(np.median(samples)), 1e-9) / 1e6
    return {**quartiles(samples), "gb_per_s": round(gb_per_s, 1)}


def _pattern(nbytes: int) -> NDArray[np.uint8]:
    """Bytes whose order shows: no two pieces alike."""
    words = np.arange(nbytes // 4, dtype=np.uint32) * np.uint32(2654435761)
    return words.view(np.uint8)


def main() -> None:
    """All sizes, small ones first."""
    device = open_device()
    for nbytes in SIZES:
        for row in copies(device, nbytes):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
