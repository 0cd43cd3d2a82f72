"""`atrous run`: images and videos in, labels and overlays out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from ..arguments import check_arguments
from ..errors import AtrousError, ImageError
from ..runtime.result import DEFAULT_ALPHA
from .console import JsonFlag, errors, print_error, print_json, print_table, progress_bar, results
from .crf_options import ClassFloorOption, CrfParamsOption, chosen_crf
from .image_options import BitsOption, PageOption, chosen_images
from .inputs import output_names
from .options import BackendOption, BundleArgument, FastOption, PrecisionOption, ThreadsOption

if TYPE_CHECKING:
    from ..runtime.image import ImageFile
    from ..runtime.segmenter import Segmenter


@check_arguments
def run(
    bundle: BundleArgument,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT…", help="Pictures, videos, folders or globs.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.labels.png and NAME.overlay.png.")] = Path("segmented"),
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    fast: FastOption = False,
    crf: Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF.")] = False,
    crf_params: CrfParamsOption = None,
    crf_class_floor: ClassFloorOption = 0.0,
    threads: ThreadsOption = 0,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the classes' colours in overlays.")
    ] = DEFAULT_ALPHA,
    labels: Annotated[
        bool, typer.Option("--labels", help="Of a video, write the labels of every frame: NAME.labels/000001.png.")
    ] = False,
    page: PageOption = None,
    bits: BitsOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Segment images and videos.

    An image that fails is named and skipped; the exit code is then 1.

    Example: atrous run street.atrous photo.jpg --crf
    """
    from ..runtime.segmenter import load

    images = chosen_images(inputs, page, bits)
    names = output_names([image.path for image in images])
    chosen = chosen_crf(bundle, crf_params, crf=crf, class_floor=crf_class_floor, threads=threads)
    segmenter = load(bundle, backend=backend, precision=precision, crf=chosen, threads=threads, fast=fast)
    wishes = _Wishes(alpha=alpha, labels=labels)
    _make_folder(out)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with progress_bar() as progress:
        for image in progress.track(images, description="segmenting"):
            stem = out / names[image.path]
            try:
                _make_folder(stem.parent)
                rows.append(_segment(segmenter, image, stem, wishes))
            except AtrousError as exc:
                failures.append({"input": str(image), "error": str(exc)})
                print_error(exc, console=progress.console)
    _report(segmenter, rows, failures, out, as_json=as_json)
    if failures:
        errors.print(f"{len(failures)} of {len(images)} inputs failed")
        raise typer.Exit(1)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ImageError(f"cannot write to {path}: {exc.strerror}. Choose a writable folder with --out.") from exc


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    """Options of `run` that concern single inputs, as the command line has them."""

    alpha: float
    labels: bool


def _segment(segmenter: Segmenter, image: ImageFile, stem: Path, wishes: _Wishes) -> dict[str, Any]:
    """Segment an input into files whose names begin with `stem`; a row of the report."""
    from ..runtime.image import VIDEO_SUFFIXES
    from ..runtime.result import save_picture
    from ..runtime.video import segment_video

    labels = stem.with_name(f"{stem.name}.labels.png")
    overlay = stem.with_name(f"{stem.name}.overlay.png")
    if image.path.suffix.lower() in VIDEO_SUFFIXES:
        overlay = overlay.with_suffix(".mp4")
        folder = labels.with_suffix("") if wishes.labels else None
        frames, timings = segment_video(segmenter, image.path, overlay, alpha=wishes.alpha, labels=folder)
        written = {"labels": str(folder)} if folder else {}
        return {"input": str(image), **written, "overlay": str(overlay), "frames": frames, "timings_ms": timings}
    result = segmenter(image)
    result.save(labels)
    save_picture(result.overlay(wishes.alpha), overlay)
    return {
        "input": str(image),
        "labels": str(labels),
        "overlay": str(overlay),
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
    }


def _report(
    segmenter: Segmenter, rows: list[dict[str, Any]], failures: list[dict[str, str]], out: Path, *, as_json: bool
) -> None:
    backend = segmenter.backend
    if as_json:
        print_json(
            {
                "backend": backend.name,
                "device": backend.device,
                "precision": backend.artifact.precision,
                "crf": segmenter.crf is not None,
                "results": rows,
                "failures": failures,
            }
        )
        return
    stages = [stage for stage in _STAGES if any(stage in row["timings_ms"] for row in rows)]
    table = Table(Column("picture", overflow="fold"), *(f"{_STAGES[stage]} ms" for stage in stages))
    table.caption = f"{backend.name} on the {backend.device}, {backend.artifact.precision}"
    for row in rows:
        timings = row["timings_ms"]
        table.add_row(str(Path(row["overlay"]).relative_to(out)), *(f"{timings.get(stage, 0):.1f}" for stage in stages))
    print_table(table)
    if rows:
        results.print(f"in {out}/", markup=False, highlight=False, soft_wrap=True)


#: Stages in the order in which they run → their column.
_STAGES = {
    "read": "read",
    "upload": "up",
    "preprocess": "pre",
    "inference": "network",
    "postprocess": "post",
    "crf": "CRF",
    "download": "down",
}
