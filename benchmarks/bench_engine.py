"""Time the building of engines for a GPU that is not here: TensorRT-RTX, every precision, one size and a range.

    python benchmarks/bench_engine.py --arch deeplabv3_resnet50 --size 513 513

Exports the architecture with seeded weights. INT8 ranges are those of one picture: building is the same work.
`build_engine` goes from a bundle on disk to the bundle with the engine on disk, hashes included; the rest is the part
in TensorRT. What the layers read is checked before anything is timed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from harness import RESULTS, summarize, write_report
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seeded_networks import export_seeded

import atrous
from atrous.manifest import Precision

_DATA_TYPES: dict[Precision, str] = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}


def measure(bundle: atrous.Bundle, precision: Precision, sm: str, repeats: int) -> dict[str, Any]:
    """Build once to check, then time, each time in a fresh copy of the bundle."""
    moments: list[float] = []
    totals, builds = [], []
    copy = bundle.path.with_name("copy.atrous")
    for turn in track(range(repeats + 1), f"{bundle.manifest.name} {precision}", transient=True):
        opened = atrous.Bundle.open(shutil.copytree(bundle.path, copy))
        moments.clear()
        start = time.perf_counter()
        _, (engine,) = atrous.build_engine(
            opened, precision=precision, sm=[sm], progress=lambda *_: moments.append(time.perf_counter())
        )
        total = time.perf_counter() - start
        made = engine.provenance
        if made["reading"].get(_DATA_TYPES[precision], 0) < made["layers"] / 3:
            raise SystemExit(f"the {precision} engine reads {made['reading']}; nothing was timed")
        shutil.rmtree(copy)
        if turn > 0:  # the first one loads TensorRT
            totals.append(total * 1e3)
            builds.append((moments[-1] - moments[0]) * 1e3)
    facts = {key: made[key] for key in ("layers", "reading", "memory_bytes")}
    times = {"build_engine": summarize(totals), "in_tensorrt": summarize(builds)}
    return {"form": bundle.manifest.name, "precision": precision, **times, "plan_bytes": engine.bytes, **facts}


def main(
    arch: Annotated[str, typer.Option(help="Reference architecture.")] = "deeplabv3_resnet50",
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the one size, the best of the range.")] = (
        513,
        513,
    ),
    sm: Annotated[str, typer.Option(help="GPU to build for.")] = "89",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "engine.json",
) -> None:
    """Build engines of a fixed and of a dynamic graph in each precision."""
    height, width = size
    sizes = {"one size": size, "range": atrous.DynamicSize((height // 2, width // 2), size, (height * 2, width * 2))}
    table = Table("graph", "precision", "build_engine ms", "in TensorRT ms", "plan MB", "layers", "read")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for form, each in sizes.items():
            bundle = export_seeded(arch, each, Path(folder) / f"{form}.atrous")
            runs += [measure(bundle, precision, sm, repeats) for precision in _DATA_TYPES]
            shutil.rmtree(bundle.path)
    for run in runs:
        times = (f"{run[key]['median_ms']:.0f}" for key in ("build_engine", "in_tensorrt"))
        read = ", ".join(f"{dtype} {count}" for dtype, count in run["reading"].items())
        table.add_row(run["form"], run["precision"], *times, f"{run['plan_bytes'] / 1e6:.1f}", str(run["layers"]), read)
    console = Console()
    console.print(table)
    versions = ["onnx", "tensorrt-rtx-cu13", "torch"]
    write_report(out, packages=versions, arch=arch, size=list(size), sm=sm, repeats=repeats, runs=runs)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
