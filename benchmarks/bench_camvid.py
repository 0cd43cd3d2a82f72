"""Mean IoU of a bundle on CamVid's validation set, without and with the dense CRF.

ATROUS_CAMVID=PATH/TO/camvid python benchmarks/bench_camvid.py out/demo/street.atrous
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from harness import RESULTS, summarize, write_report
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import atrous

_VOID = 11


def evaluate(segmenter: atrous.Segmenter, folder: Path, title: str) -> dict[str, Any]:
    """IoU by class over all pixels that are not void, and milliseconds a picture."""
    classes = len(segmenter.classes)
    confusion = np.zeros((classes, classes), np.int64)
    times = []
    for path in track(sorted((folder / "images").glob("*.jpg")), title, transient=True):
        result = segmenter(path)
        times.append(sum(result.timings_ms.values()))
        truth = np.asarray(Image.open(folder / "masks" / f"{path.stem}.png"))
        valid = truth != _VOID
        cells = truth[valid].astype(np.int64) * classes + result.labels[valid]
        confusion += np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    return {
        "miou": round(float(iou.mean()), 4),
        "pixel_accuracy": round(float(hits.sum() / confusion.sum()), 4),
        "iou": {entry.name: round(float(value), 4) for entry, value in zip(segmenter.classes, iou, strict=True)},
        "pictures": len(times),
        "total": summarize(times),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with CamVid's 11 classes.")],
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "camvid.json",
) -> None:
    """Evaluate without and with the CRF."""
    console = Console()
    if "ATROUS_CAMVID" not in os.environ:
        raise SystemExit("ATROUS_CAMVID must name the folder with CamVid's train/ and val/")
    folder = Path(os.environ["ATROUS_CAMVID"]) / "val"
    runs = {
        "DeepLab": evaluate(atrous.load(bundle), folder, "DeepLab"),
        "DeepLab + CRF": evaluate(atrous.load(bundle, crf=True), folder, "DeepLab + CRF"),
    }
    table = Table("IoU", *runs)
    for name in runs["DeepLab"]["iou"]:
        table.add_row(name, *(f"{run['iou'][name]:.4f}" for run in runs.values()))
    table.add_section()
    table.add_row("mean", *(f"{run['miou']:.4f}" for run in runs.values()))
    console.print(table)
    write_report(out, packages=["numpy", "onnxruntime", "openvino"], bundle=bundle.name, runs=runs)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
