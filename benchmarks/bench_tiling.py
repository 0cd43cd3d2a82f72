"""Do tiles show? Labels of tiled pictures against the same pictures run whole, and peak memory of both.

    python benchmarks/bench_tiling.py out/demo/street.atrous photo.jpg

The bundle must take a range of sizes; its maximum is moved down to force tiles, and up to run the picture whole.
Agreement is reported over all pixels and over those within 16 pixels of an inner tile border, where seams would be.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from harness import RESULTS, write_report
from PIL import Image
from rich.console import Console
from rich.table import Table

from atrous.bundle import Bundle
from atrous.manifest import Size
from atrous.runtime.backends import open_reference
from atrous.runtime.preprocess import plan_geometry
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.tiling import plan_tiles

_SEAM_PX = 16
_MB = 1e6


def with_maximum(path: Path, maximum: Size) -> Bundle:
    """The bundle as if it had been exported with another maximum; the graph takes any size."""
    bundle = Bundle.open(path)
    policy = bundle.manifest.input.size
    smallest = (min(policy.min[0], maximum[0]), min(policy.min[1], maximum[1]))
    size = dataclasses.replace(policy, min=smallest, opt=smallest, max=maximum)
    inputs = dataclasses.replace(bundle.manifest.input, size=size)
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, input=inputs))


def segment(path: Path, maximum: Size, picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Labels, seconds, and peak memory in MB of a process that does nothing else."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_segment_here, (path, maximum, picture))


def _segment_here(
    path: Path, maximum: Size, picture: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], float, float]:
    bundle = with_maximum(path, maximum)
    segmenter = Segmenter(bundle, open_reference(bundle))
    start = time.perf_counter()
    labels = segmenter(picture).labels
    seconds = time.perf_counter() - start
    return labels, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MB


def near_seams(path: Path, maximum: Size, size: Size) -> npt.NDArray[np.bool_]:
    """[H, W]: pixels near an inner edge of a tile."""
    manifest = with_maximum(path, maximum).manifest
    plan = plan_tiles(plan_geometry(size, manifest.input), manifest.input, manifest.output)
    mask = np.zeros(plan.full_size, bool)
    for axis in (0, 1):
        starts = {origin[axis] for origin in plan.origins}
        inner = {edge for start in starts for edge in (start, start + plan.tile_size[axis])} - {0, plan.full_size[axis]}
        for edge in inner:
            span = [slice(None), slice(None)]
            span[axis] = slice(max(0, edge - _SEAM_PX), edge + _SEAM_PX)
            mask[tuple(span)] = True
    return mask[: size[0], : size[1]]


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with a range of sizes.")],
    photo: Annotated[Path, typer.Argument(help="A picture; it is enlarged as asked.")],
    enlarge: Annotated[int, typer.Option(min=1, help="Factor by which the picture is enlarged.")] = 3,
    tiles: Annotated[list[int] | None, typer.Option(help="Largest tile sides to try.")] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "tiling.json",
) -> None:
    """Compare tiled with whole."""
    console = Console()
    with Image.open(photo) as image:
        width, height = image.width * enlarge, image.height * enlarge
        picture = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    whole = (-(-height // 64) * 64, -(-width // 64) * 64)
    expected, seconds, peak_mb = segment(bundle, whole, picture)
    rows: list[dict[str, Any]] = [{"max_side": "whole", "seconds": round(seconds, 2), "peak_mb": round(peak_mb)}]
    for side in tiles or [512, 768, 1024]:
        labels, seconds, peak_mb = segment(bundle, (side, side), picture)
        same = labels == expected
        rows.append(
            {
                "max_side": side,
                "seconds": round(seconds, 2),
                "peak_mb": round(peak_mb),
                "agreement": round(float(same.mean()), 5),
                "agreement_near_seams": round(float(same[near_seams(bundle, (side, side), (height, width))].mean()), 5),
            }
        )
    table = Table("tile", "seconds", "peak MB", "same labels", "near seams", title=f"{height}×{width}")
    for row in rows:
        shares = [f"{row[key]:.3%}" if key in row else "" for key in ("agreement", "agreement_near_seams")]
        table.add_row(str(row["max_side"]), str(row["seconds"]), str(row["peak_mb"]), *shares)
    console.print(table)
    packages = ["numpy", "onnxruntime"]
    write_report(out, packages=packages, photo=photo.name, size=[height, width], rows=rows)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
