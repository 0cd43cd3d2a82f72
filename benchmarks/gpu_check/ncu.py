"""Nsight Compute over one CRF frame: time, traffic and occupancy of each kernel beside what the model expects.

The launches are queued one by one, with the clock and the caches as they are in use: no fixed clock, nothing flushed
between kernels. Prints one JSON object a line. Called by itself with a storage it is what `ncu` runs.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gates import SETS
from steps import is_rehearsal, sized, tool
from traffic import FILL, Traffic, frame

from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Device, open_device
from atrous.gpu.cuda_device import CudaDevice
from crf import ITERATIONS, STORAGES, TARGETS, make

#: Name in the report → ncu's metric. Bytes and nanoseconds are asked for as such.
METRICS = {
    "ns": "gpu__time_duration.sum",
    "dram_read": "dram__bytes_read.sum",
    "dram_written": "dram__bytes_write.sum",
    "l2": "lts__t_bytes.sum",
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
    "waves": "launch__waves_per_multiprocessor",
}
#: For each storage; `bench.py` gives a little more than two of them.
LIMIT_S = sized(35, rehearsal=10)

Launched = dict[str, Any]


def read_csv(text: str) -> list[Launched]:
    """The launches in what `ncu --csv --page raw --print-units base` writes, in order; None where there is no number.

    Lines before the header are messages. Below the header is a line of units. Numbers may have commas.
    """
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith('"ID"') and "Kernel Name" in line), None)
    if start is None:
        return []
    rows = csv.DictReader(line for line in lines[start:] if line.startswith('"'))
    return [
        {
            "kernel": row["Kernel Name"].partition("(")[0].split()[-1].rpartition("::")[2],
            **{name: _number(row.get(metric)) for name, metric in METRICS.items()},
        }
        for row in rows
        if (row["ID"] or "").strip().isdigit()
    ]


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:  # n/a, or words
        return None


def table(launches: Sequence[Launched], model: Sequence[Traffic]) -> list[dict[str, Any]]:
    """A line for each kernel on each lattice, the slowest first.

    Raises:
        ValueError: other kernels were launched than the model has.
    """
    kernels = [each for each in model if each.kernel != FILL]  # what sets memory is no kernel to ncu
    if [each.kernel for each in kernels] != [launch["kernel"] for launch in launches]:
        raise ValueError(f"ncu saw {len(launches)} launches, not the {len(kernels)} of a frame in their order")
    groups: dict[tuple[str, str, str], list[tuple[Launched, Traffic]]] = {}
    for launch, each in zip(launches, kernels, strict=True):
        groups.setdefault((each.part, each.lattice, each.kernel), []).append((launch, each))
    lines = [
        {"part": part, "lattice": lattice, "kernel": kernel, **_line(pairs)}
        for (part, lattice, kernel), pairs in groups.items()
    ]
    return sorted(lines, key=lambda line: -(line["ms"] or 0))


def _line(pairs: Sequence[tuple[Launched, Traffic]]) -> dict[str, Any]:
    """Sums over launches; percentages and occupancy are means."""

    def summed(name: str) -> float | None:
        values = [launch[name] for launch, _ in pairs]
        return None if None in values else float(sum(values))

    def mean(name: str) -> float | None:
        whole = summed(name)
        return None if whole is None else round(whole / len(pairs), 1)

    ns, read, written, l2 = (summed(name) for name in ("ns", "dram_read", "dram_written", "l2"))
    dram = None if read is None or written is None else read + written
    return {
        "launches": len(pairs),
        "ms": None if ns is None else round(ns / 1e6, 4),
        "dram_read_bytes": read,
        "dram_written_bytes": written,
        "l2_bytes": l2,
        "model_least_bytes": round(sum(each.least for _, each in pairs)),
        "model_asked_bytes": round(sum(each.asked for _, each in pairs)),
        "dram_gb_per_s": None if dram is None or not ns else round(dram / ns, 1),
        **{name: mean(name) for name in ("dram_percent", "occupancy_percent", "registers", "waves")},
    }


def run_frame(device: Device, storage: str, watched: AbstractContextManager[Any]) -> list[Traffic]:
    """One frame while `watched`, after one that is not; what the model expects of it."""
    scene = TARGETS[0]
    crf = CudaDenseCRF(SETS[scene.parameters], iterations=ITERATIONS, storage=storage, device=device)  # type: ignore[arg-type]
    crf.labels_on_device(*make(scene))
    field = crf.field
    with watched:
        field.queue_frame()
        field.queue.stream.synchronize()
    return frame(field.spec, crf.vertices)


@contextlib.contextmanager
def profiler(device: CudaDevice) -> Iterator[None]:
    """Switches ncu on, and off again."""
    with device.active("profiling"):
        device.driver.call("cuProfilerStart")
    yield
    with device.active("profiling"):
        device.driver.call("cuProfilerStop")


def profile(ncu: str, storage: str) -> Iterator[dict[str, Any]]:
    """The lines of one storage."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        command = [ncu, "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log)]
        command += ["--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none"]
        command += ["--target-processes", "all", "--metrics", ",".join(METRICS.values())]
        status, output = _bounded([*command, sys.executable, __file__, storage])
        said = log.read_text(encoding="utf-8") if log.exists() else ""
    model = next((json.loads(line) for line in output.splitlines() if line.startswith("[")), None)
    launches = read_csv(said)
    if model is None or not launches:
        messages = " ".join(line for line in said.splitlines() if line.startswith("==")) or output[-500:]
        yield {"storage": storage, "outcome": f"not run: ncu ended with {status}: {messages}"}
        return
    try:
        for line in table(launches, [Traffic(**each) for each in model]):
            yield {"storage": storage, **line}
    except ValueError as exc:
        yield {"storage": storage, "outcome": f"not run: {exc}"}


def _bounded(command: Sequence[str]) -> tuple[str, str]:
    """Runs a command with all its children for at most `LIMIT_S`; how it ended and what it said."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as running:
        try:
            output, _ = running.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            return f"nothing after {LIMIT_S} s", running.communicate()[0]
    return f"exit code {running.returncode}", output


def main() -> None:
    """What ncu runs if there is an argument; else all storages."""
    if len(sys.argv) > 1:
        device = open_device()
        watched = nullcontext() if is_rehearsal() else profiler(device)
        print(json.dumps([asdict(each) for each in run_frame(device, sys.argv[1], watched)]), flush=True)
        return
    ncu = tool("ncu")
    if ncu is None:
        print(json.dumps({"outcome": "not run: Nsight Compute (ncu) is not installed"}))
        return
    for storage in STORAGES:
        for line in profile(ncu, storage):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
