"""Registers, shared memory and spills of every kernel on every architecture, as ptxas reports them. Needs no GPU."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from atrous.crf import cuda_queue
from atrous.errors import DeviceError
from atrous.gpu.compile import compile_cubin, nvcc_version
from atrous.gpu.toolchain import ARCHITECTURES
from atrous.runtime.gpu import frame

SOURCES = (cuda_queue.KERNELS, frame.KERNELS)

RESULT = Path(__file__).parents[1] / "results" / "ptxas.json"

_KERNEL = re.compile(
    r"Function properties for (?P<name>\w+)\n"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r"[^\n]*Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?"
)


class Usage(TypedDict):
    """What one kernel takes: registers a thread, the rest in bytes."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


def read_log(log: str) -> dict[str, Usage]:
    """Usage by kernel, from what nvcc -Xptxas -v prints."""
    return {
        match["name"]: Usage(
            registers=int(match["registers"]),
            shared_bytes=int(match["shared"] or 0),
            stack_bytes=int(match["stack"]),
            spill_bytes=int(match["stores"]) + int(match["loads"]),
        )
        for match in _KERNEL.finditer(log)
    }


def usage_on(compute_capability: tuple[int, int]) -> dict[str, Usage]:
    """Usage by kernel on one architecture; compiles unless the cache has it.

    Raises:
        DeviceError: nvcc is missing or fails.
    """
    cubins = [compile_cubin(source, compute_capability) for source in SOURCES]
    return read_log("".join(cubin.with_suffix(".log").read_text(encoding="utf-8") for cubin in cubins))


def main() -> int:
    """Writes `RESULT`."""
    try:
        with ThreadPoolExecutor(2) as pool:
            usages = list(pool.map(usage_on, ARCHITECTURES))
        version = nvcc_version().strip().splitlines()[-1]
    except DeviceError as exc:
        print(exc, file=sys.stderr)
        return 1
    names = [f"sm_{major}{minor}" for major, minor in ARCHITECTURES]
    report = {"nvcc": version, "kernels": dict(zip(names, usages, strict=True))}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, usage in zip(names, usages, strict=True):
        most = max(usage, key=lambda kernel: usage[kernel]["registers"])
        spilled = sum(kernel["spill_bytes"] for kernel in usage.values())
        print(
            f"{name}: {len(usage)} kernels, at most {usage[most]['registers']} registers ({most}), {spilled} B spilled"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
