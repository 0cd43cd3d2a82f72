"""The whole way on real pictures: checkpoint → ONNX → bundle → labels → dense CRF → side-by-side PNGs.

    python examples/demo/demo.py --out out/demo

Segments a photo that scikit-learn ships, and frames of CamVid's validation set where ATROUS_CAMVID names its folder.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

import atrous
from atrous.exporter.classes import read_classes
from atrous.exporter.trained_model import load_trained
from atrous.exporter.verify.bundle import verify_bundle
from atrous.runtime.result import save_picture

TRAINED = Path(__file__).parents[1] / "train_camvid"
SIZES = atrous.DynamicSize(min=(64, 64), opt=(368, 480), max=(1024, 1024))
_CAMVID_FRAMES = 4
_LICENSE = "CC BY-NC 4.0 (trained on CamVid): research only"
console = Console()


def export_bundle(out: Path) -> atrous.Bundle:
    """Export the trained checkpoint to `out/street.atrous`, verified against PyTorch."""
    trained = load_trained(TRAINED / "deeplab.safetensors", classes=read_classes(TRAINED / "classes.json"))
    return atrous.export(
        trained.model,
        out / "street.atrous",
        classes=trained.classes,
        size=SIZES,
        preprocessing=atrous.Preprocessing(trained.architecture.normalization),
        align_corners=trained.architecture.align_corners,
        options=atrous.ExportOptions(license=_LICENSE),
        overwrite=True,
    )


def find_photos() -> dict[str, Path]:
    """Pictures to segment, by the name of what is written."""
    photos = {"china": Path(str(resources.files("sklearn.datasets") / "images" / "china.jpg"))}
    camvid = os.environ.get("ATROUS_CAMVID")
    if camvid is None:
        console.print("ATROUS_CAMVID is not set: CamVid frames are skipped")
        return photos
    frames = sorted((Path(camvid) / "val" / "images").glob("*.jpg"))
    for frame in frames[:: max(1, len(frames) // _CAMVID_FRAMES)][:_CAMVID_FRAMES]:
        photos[f"camvid-{frame.stem}"] = frame
    return photos


def segment(bundle: atrous.Bundle, photos: dict[str, Path], out: Path) -> list[dict[str, Any]]:
    """Segment every photo in every installed backend without the CRF, and with it; write the side-by-side pictures."""
    reference = atrous.load(bundle.path, backend="onnxruntime")
    plain, refined = atrous.load(bundle.path), atrous.load(bundle.path, crf=True)
    rows: list[dict[str, Any]] = []
    for name, photo in photos.items():
        expected = reference(photo)
        for segmenter, crf in ((reference, False), (plain, False), (refined, True)):
            segmenter(photo)  # compiles for this size
            result = segmenter(photo)
            rows.append(
                {
                    "photo": name,
                    "size": list(result.labels.shape),
                    "backend": segmenter.backend.name,
                    "device": segmenter.backend.device,
                    "precision": segmenter.backend.artifact.precision,
                    "crf": crf,
                    "timings_ms": {stage: round(value, 2) for stage, value in result.timings_ms.items()},
                    "agreement": float((result.labels == expected.labels).mean()),
                }
            )
        save_picture(side_by_side(plain(photo), refined(photo)), out / f"{name}.png")
    return rows


def side_by_side(plain: atrous.Result, refined: atrous.Result) -> Image.Image:
    """Photo, labels without and with the CRF, in one row, with a legend of the classes that occur."""
    height, width = plain.labels.shape
    gap, bar = 8, 28
    font = ImageFont.load_default(16)
    sheet = Image.new("RGB", (3 * width + 2 * gap, height + 2 * bar), "white")
    draw = ImageDraw.Draw(sheet)
    panels = (
        ("photo", Image.fromarray(plain.image)),
        ("DeepLab", plain.overlay()),
        ("DeepLab + CRF", refined.overlay()),
    )
    for index, (title, picture) in enumerate(panels):
        left = index * (width + gap)
        draw.text((left + 4, 4), title, fill="black", font=font)
        sheet.paste(picture, (left, bar))
    left = 4
    for class_id in np.unique(np.concatenate([plain.labels, refined.labels])):
        entry = plain.classes[class_id]
        draw.rectangle((left, height + bar + 8, left + 14, height + bar + 22), fill=entry.color)
        draw.text((left + 20, height + bar + 5), entry.name, fill="black", font=font)
        left += 34 + int(draw.textlength(entry.name, font=font))
    return sheet


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The table of what ran."""
    stages = {"preprocess": "pre", "inference": "network", "postprocess": "post", "crf": "CRF"}
    table = Table("photo", "backend", *stages.values(), "same labels", title="Milliseconds by stage")
    for row in rows:
        timings = row["timings_ms"]
        table.add_row(
            row["photo"],
            f"{row['backend']} {row['device']} {row['precision']}",
            *(f"{timings[stage]:.1f}" if stage in timings else "" for stage in stages),
            f"{row['agreement']:.2%}",
        )
    table.caption = "same labels: share of pixels labelled as by ONNX Runtime without the CRF"
    console.print(table)


def main(out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("out/demo")) -> None:
    """Run the demo."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    with console.status("exporting and verifying"):
        bundle = export_bundle(out)
        checks = [*bundle.manifest.verification, *verify_bundle(bundle).checks]
    for check in checks:
        agreement = f"same class {check.argmax_agreement:.4%} of {check.against}"
        console.print(f"{check.artifact}: max |Δ| {check.max_abs:.1e}, {agreement}")
    with console.status("segmenting"):
        rows = segment(bundle, find_photos(), out)
    print_rows(rows)
    (out / "demo.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    console.print(f"Pictures, the bundle street.atrous and demo.json are in {out}/")


if __name__ == "__main__":
    typer.run(main)
