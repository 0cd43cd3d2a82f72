"""`atrous run`: pictures and videos in, labels and overlays out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from ..arguments import check_arguments
from ..errors import AtrousError, ImageError
from .console import JsonFlag, errors, print_error, print_json, print_table, progress_bar, results
from .inputs import find_images
from .options import BackendOption, BundleArgument, PrecisionOption, ThreadsOption

if TYPE_CHECKING:
    from ..runtime.segmenter import Segmenter


@check_arguments
def run(
    bundle: BundleArgument,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT…", help="Pictures, videos, folders or globs.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.labels.png and NAME.overlay.png.")] = Path("segmented"),
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    crf: Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF.")] = False,
    threads: ThreadsOption = 0,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Segment pictures and videos.

    A picture that fails is named and skipped; the exit code is then 1.

    Example: atrous run street.atrous photo.jpg --crf
    """
    from ..runtime.segmenter import load

    paths = find_images(inputs)
    names = _output_names(paths)
    segmenter = load(bundle, backend=backend, precision=precision, crf=crf, threads=threads)
    _make_folder(out)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with progress_bar() as progress:
        for path in progress.track(paths, description="segmenting"):
            try:
                rows.append(_segment(segmenter, path, out / names[path]))
            except AtrousError as exc:
                failures.append({"input": str(path), "error": str(exc)})
                print_error(exc, console=progress.console)
    _report(segmenter, rows, failures, as_json=as_json)
    if failures:
        errors.print(f"{len(failures)} of {len(paths)} inputs failed")
        raise typer.Exit(1)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ImageError(f"cannot write to {path}: {exc.strerror}. Choose a writable folder with --out.") from exc


def _segment(segmenter: Segmenter, path: Path, stem: Path) -> dict[str, Any]:
    from ..runtime.image import VIDEO_SUFFIXES

    if path.suffix.lower() in VIDEO_SUFFIXES:
        from ..runtime.video import segment_video

        target = stem.with_name(f"{stem.name}.overlay.mp4")
        frames, timings = segment_video(segmenter, path, target)
        return {"input": str(path), "overlay": str(target), "frames": frames, "timings_ms": timings}
    from ..runtime.result import save_picture

    result = segmenter(path)
    labels = stem.with_name(f"{stem.name}.labels.png")
    overlay = stem.with_name(f"{stem.name}.overlay.png")
    result.save(labels)
    save_picture(result.overlay(), overlay)
    return {
        "input": str(path),
        "labels": str(labels),
        "overlay": str(overlay),
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
    }


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """A name for what each input becomes: its stem, or its whole file name where two stems are equal."""
    stems = Counter(path.stem for path in paths)
    names = {path: path.stem if stems[path.stem] == 1 else path.name for path in paths}
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated:
        raise ImageError(
            f"several inputs are called {repeated[0]!r} and would overwrite each other; run them separately"
        )
    return names


def _report(segmenter: Segmenter, rows: list[dict[str, Any]], failures: list[dict[str, str]], *, as_json: bool) -> None:
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
        table.add_row(Path(row["overlay"]).name, *(f"{timings.get(stage, 0):.1f}" for stage in stages))
    print_table(table)
    if rows:
        results.print(f"in {Path(rows[0]['overlay']).parent}/", markup=False, highlight=False, soft_wrap=True)


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
