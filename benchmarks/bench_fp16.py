"""What FP16 costs in accuracy: a bundle's FP32 and FP16 graphs on CamVid's validation set, in ONNX Runtime on the CPU.

ATROUS_CAMVID=PATH/TO/camvid python benchmarks/bench_fp16.py out/demo/street.atrous

ONNX Runtime runs FP16 nodes in FP32 on a CPU and drops the roundings in between; the "rounded" graph spells them out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from harness import RESULTS, write_report
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import atrous
from atrous.bundle import extend_bundle
from atrous.exporter.fp16 import FP16_FILE, add_fp16
from atrous.exporter.passes import RoundToHalf, run_passes
from atrous.runtime.metrics import Tally, count

_VOID = 11


def rounded_copy(bundle: atrous.Bundle, path: Path) -> atrous.Bundle:
    """The bundle at `path`, its FP16 graph rewritten to round after every node on any machine."""
    shutil.copytree(bundle.path, path)
    copy = atrous.Bundle.open(path)
    with extend_bundle(copy) as staged:
        onnx.save(run_passes(staged.path / FP16_FILE, [RoundToHalf()]), staged.path / FP16_FILE)
        artifact = staged.artifact(FP16_FILE, kind="onnx", precision="fp16", provenance={})
        staged.write_manifest(copy.manifest.with_artifact(artifact))
    return atrous.Bundle.open(path)


def mean_iou(labels: list[NDArray[np.uint8]], truths: list[NDArray[np.uint8]], classes: int) -> float:
    """Over all pixels that are not void, in percent."""
    tally = Tally(classes)
    for label, truth in zip(labels, truths, strict=True):
        tally.add(count(truth, label, truth != _VOID, classes))
    return tally.scores().miou * 100


def evaluate(segmenters: dict[str, atrous.Segmenter], folder: Path) -> dict[str, Any]:
    """Mean IoU of each, and the share of pixels that it labels as the first does."""
    paths = sorted((folder / "images").glob("*.jpg"))
    truths = [np.asarray(Image.open(folder / "masks" / f"{path.stem}.png")) for path in paths]
    labels = {
        name: [segmenter(path).labels for path in track(paths, name, transient=True)]
        for name, segmenter in segmenters.items()
    }
    reference = next(iter(labels.values()))
    classes = len(next(iter(segmenters.values())).classes)
    return {
        name: {
            "miou": round(mean_iou(each, truths, classes), 3),
            "agreement": round(float(np.mean([np.mean(a == b) for a, b in zip(each, reference, strict=True)])), 5),
        }
        for name, each in labels.items()
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with CamVid's 11 classes; it is not changed.")],
    pictures: Annotated[int, typer.Option(help="Training pictures to observe ranges on.")] = 8,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "fp16.json",
) -> None:
    """Convert a copy, then evaluate FP32, FP16 as ONNX Runtime runs it, and FP16 rounded after every node."""
    if "ATROUS_CAMVID" not in os.environ:
        raise SystemExit("ATROUS_CAMVID must name the folder with CamVid's train/ and val/")
    camvid = Path(os.environ["ATROUS_CAMVID"])
    training = sorted((camvid / "train" / "images").glob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.atrous"
        shutil.copytree(bundle, copy)
        extended, report = add_fp16(atrous.Bundle.open(copy), images=training[:: -(-len(training) // pictures)])
        rounded = rounded_copy(extended, Path(folder) / "rounded.atrous")
        runs = evaluate(
            {
                "FP32": atrous.load(copy, backend="onnxruntime", precision="fp32"),
                "FP16": atrous.load(copy, backend="onnxruntime", precision="fp16"),
                "FP16, rounded": atrous.load(rounded.path, backend="onnxruntime", precision="fp16"),
            },
            camvid / "val",
        )
    table = Table("graph", "mIoU %", "labels as FP32")
    for name, run in runs.items():
        table.add_row(name, f"{run['miou']:.3f}", f"{run['agreement']:.3%}")
    console = Console()
    console.print(table)
    nodes = {"fp16": len(report.halved), "fp32": [f"{node.op} {node.name}: {node.reason}" for node in report.kept]}
    write_report(out, packages=["numpy", "onnxruntime"], bundle=bundle.name, nodes=nodes, runs=runs)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
