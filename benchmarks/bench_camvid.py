"""Mean IoU of a bundle on CamVid's validation set, without and with the dense CRF.

ATROUS_CAMVID=PATH/TO/camvid python benchmarks/bench_camvid.py out/demo/street.atrous
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from harness import RESULTS, summarize, write_report
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import atrous
from atrous.runtime.evaluation import evaluate, pair_by_stem

_VOID = 11


def measure(segmenter: atrous.Segmenter, folder: Path, title: str) -> dict[str, Any]:
    """IoU by class over all pixels that are not void, and milliseconds a picture."""
    pairs = pair_by_stem(sorted((folder / "images").glob("*.jpg")), folder / "masks")
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=len(pairs))
        found = evaluate(
            segmenter,
            pairs,
            ignore=(_VOID,),
            workers=1,  # or they would share the cores, and the times would not be those of one picture
            max_unreadable=0,
            progress=lambda done: progress.update(task, completed=done),
        )
    scores = found.scores
    return {
        "miou": round(scores.miou, 4),
        "pixel_accuracy": round(scores.pixel_accuracy, 4),
        "iou": {entry.name: round(float(scores.iou[entry.id]), 4) for entry in segmenter.classes},
        "pictures": found.pictures,
        "total": summarize(found.latencies_ms),
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
        "DeepLab": measure(atrous.load(bundle), folder, "DeepLab"),
        "DeepLab + CRF": measure(atrous.load(bundle, crf=True), folder, "DeepLab + CRF"),
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
