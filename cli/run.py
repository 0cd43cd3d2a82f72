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
from .crf_options import CrfParamsOption, chosen_crf
from .inputs import find_images, output_names
from .options import BackendOption, BundleArgument, FastOption, PrecisionOption, ThreadsOption

if TYPE_CHECKING:
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
    threads: ThreadsOption = 0,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the classes' colours in overlays.")
    ] = DEFAULT_ALPHA,
    labels: Annotated[
        bool, typer.Option("--labels", help="Of a video, write the labels of every frame: NAME.labels/000001.png.")
    ] = False,
    page: Annotated[
        int | None, typer.Option(min=1, help="Page of TIFFs, frame of animations; the first by default.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(min=9, max=16, help="Significant bits of 16-bit images that do not say it.")
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Segment images and videos.

    An image that fails is named and skipped; the exit code is then 1.

    Example: atrous run street.atrous photo.jpg --crf
    """
    from ..runtime.segmenter import load

    paths = find_images(inputs)
    names = output_names(paths)
    chosen = chosen_crf(crf_params, crf=crf, threads=threads)
    segmenter = load(bundle, backend=backend, precision=precision, crf=chosen, threads=threads, fast=fast)
    wishes = _Wishes(alpha=alpha, labels=labels, page=page, bits=bits)
    _make_folder(out)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with progress_bar() as progress:
        for path in progress.track(paths, description="segmenting"):
            try:
                _make_folder((out / names[path]).parent)
                rows.append(_segment(segmenter, path, out / names[path], wishes))
            except AtrousError as exc:
                failures.append({"input": str(path), "error": str(exc)})
                print_error(exc, console=progress.console)
    _report(segmenter, rows, failures, out, as_json=as_json)
    if failures:
        errors.print(f"{len(failures)} of {len(paths)} inputs failed")
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
    page: int | None
    bits: int | None


def _segment(segmenter: Segmenter, path: Path, stem: Path, wishes: _Wishes) -> dict[str, Any]:
    """Segment an input into files whose names begin with `stem`; a row of the report."""
    from ..runtime.image import VIDEO_SUFFIXES, load_image
    from ..runtime.result import save_picture
    from ..runtime.video import segment_video

    labels = stem.with_name(f"{stem.name}.labels.png")
    overlay = stem.with_name(f"{stem.name}.overlay.png")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        overlay = overlay.with_suffix(".mp4")
        folder = labels.with_suffix("") if wishes.labels else None
        frames, timings = segment_video(segmenter, path, overlay, alpha=wishes.alpha, labels=folder)
        written = {"labels": str(folder)} if folder else {}
        return {"input": str(path), **written, "overlay": str(overlay), "frames": frames, "timings_ms": timings}
    chosen = wishes.page is not None or wishes.bits is not None
    result = segmenter(load_image(path, page=wishes.page, bits=wishes.bits) if chosen else path)
    result.save(labels)
    save_picture(result.overlay(wishes.alpha), overlay)
    return {
        "input": str(path),
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
