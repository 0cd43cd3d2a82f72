"""`atrous eval`: how good are a bundle's labels, by class and near edges?"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..arguments import check_arguments
from ..errors import EvaluationError
from ..runtime.mask_rules import DEFAULT_PATTERN
from .console import JsonFlag, errors, finite, print_json, print_line, print_table, progress_bar, results
from .crf_options import ClassFloorOption, chosen_crf
from .image_options import BitsOption, PageOption, chosen_images
from .mask_options import IgnoreOption, MaskMapOption, MaskPatternOption, OneBasedOption, chosen_rules
from .options import BackendOption, BundleArgument, FastOption, PrecisionOption, ThreadsOption, parse_size

if TYPE_CHECKING:
    from ..runtime.augmentation import AugmentedSegmenter
    from ..runtime.evaluation import Evaluation
    from ..runtime.image import ImageFile
    from ..runtime.metrics import Scores
    from ..runtime.segmenter import Segmenter


FlipOption = Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")]
WindowOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="Slide windows of this size over each image, and average.")
]
StrideOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="From window to window; two thirds of it by default.")
]
ResumeOption = Annotated[
    Path | None, typer.Option(help="Keep each picture's counts in this file, and do not run those in it again.")
]
MasksOption = Annotated[
    Path | None, typer.Option(help="Folder of masks: NAME.png for each picture NAME.*, pixels = class ids.")
]
FlickerOption = Annotated[
    bool,
    typer.Option(
        "--flicker", help="Instead of scores, how often labels change where colours stay; pictures are frames in order."
    ),
]
StabilizeOption = Annotated[
    float, typer.Option(min=0, metavar="S", help="Share of the previous frame for --flicker, below 1; 0 for none.")
]


@check_arguments
def evaluate(
    bundle: BundleArgument,
    images: Annotated[Path, typer.Option(help="Folder of pictures.")],
    masks: MasksOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    fast: FastOption = False,
    crf: Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF.")] = False,
    crf_class_floor: ClassFloorOption = 0.0,
    flip: FlipOption = False,
    window: WindowOption = None,
    stride: StrideOption = None,
    threads: ThreadsOption = 0,
    workers: Annotated[int, typer.Option(min=1, help="Pictures in work at once; each takes --threads.")] = 1,
    ignore: IgnoreOption = None,
    mask_pattern: MaskPatternOption = DEFAULT_PATTERN,
    mask_map: MaskMapOption = None,
    mask_one_based: OneBasedOption = False,
    page: PageOption = None,
    bits: BitsOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the scores to a CSV file as well.")] = None,
    resume: ResumeOption = None,
    flicker: FlickerOption = False,
    stabilize: StabilizeOption = 0.0,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Score a bundle on images with masks: IoU, pixel accuracy, IoU near edges, F-score of boundaries.

    Pairs with an unreadable file are named and skipped, up to ten; the exit code is then 1.

    Example: atrous eval street.atrous --images val/images --masks val/masks --ignore 11 --crf
    """
    from ..runtime.evaluation import evaluate, pair_by_stem
    from ..runtime.segmenter import load

    rules = chosen_rules(mask_pattern, mask_map, one_based=mask_one_based)
    files = chosen_images([images], page, bits)
    pairs = [] if flicker else pair_by_stem(files, _needed(masks, stabilize), rules)
    refined = chosen_crf(bundle, None, crf=crf, class_floor=crf_class_floor, threads=threads)
    segmenter = load(bundle, backend=backend, precision=precision, crf=refined, threads=threads, fast=fast)
    if flicker:
        _measure_flicker(segmenter, files, stabilize, as_json=as_json)
        return
    scored = _augmented(segmenter, flip=flip, window=window, stride=stride)
    voids = ignore or ()
    with _progress(len(pairs)) as progress:
        found = evaluate(scored, pairs, ignore=voids, rules=rules, workers=workers, state=resume, progress=progress)
    if as_json:
        print_json({**_plain(segmenter, found), "augmentation": _said(scored)})
    else:
        _print_tables(segmenter, found)
    if csv_file:
        _write_csv(csv_file, segmenter, found.scores)
    _name_skipped(found, len(pairs))


def _needed(masks: Path | None, stabilize: float) -> Path:
    if stabilize:
        raise typer.BadParameter("--stabilize is about --flicker; scores are of single pictures")
    if masks is None:
        raise typer.BadParameter("scores need masks; pass --masks FOLDER, or --flicker for frames without any")
    return masks


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar; takes how many pictures are done."""
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda done: bar.update(task, completed=done)


def _measure_flicker(segmenter: Segmenter, frames: Sequence[ImageFile], stabilize: float, *, as_json: bool) -> None:
    from ..runtime.stabilization import Flicker

    found = Flicker()
    with _progress(len(frames)) as progress:
        for result in segmenter.stream(frames, stabilize=stabilize):
            found.add(result)
            progress(found.frames)
    if as_json:
        values = {"frames": found.frames, "still_px": found.still_px, "changed_px": found.changed_px}
        print_json({**values, "flicker": finite(found.share), "stabilize": stabilize})
    else:
        print_line(f"flicker {_text(found.share)}: the share of pixels with a colour that stays whose label changes")


def _name_skipped(found: Evaluation, pairs: int) -> None:
    """Name the pairs that were left out, if any; the exit code is then 1."""
    for each in found.skipped:
        print_line(f"skipped: {each.reason}", console=errors)
    if found.skipped:
        errors.print(f"{len(found.skipped)} of {pairs} pairs skipped")
        raise typer.Exit(1)


def _augmented(
    segmenter: Segmenter, *, flip: bool, window: str | None, stride: str | None
) -> Segmenter | AugmentedSegmenter:
    from ..runtime.augmentation import Augmentation, AugmentedSegmenter

    sizes = {name: parse_size(text) if text else None for name, text in (("window", window), ("stride", stride))}
    augmentation = Augmentation(flip=flip, **sizes)
    return segmenter if augmentation == Augmentation() else AugmentedSegmenter(segmenter, augmentation)


def _said(segmenter: Segmenter | AugmentedSegmenter) -> dict[str, Any] | None:
    from ..runtime.augmentation import AugmentedSegmenter

    return segmenter.augmentation.to_dict() if isinstance(segmenter, AugmentedSegmenter) else None


def _plain(segmenter: Segmenter, found: Evaluation) -> dict[str, Any]:
    scores = found.scores
    names = [entry.name for entry in segmenter.classes]
    return {
        "backend": segmenter.backend.name,
        "device": segmenter.backend.device,
        "precision": segmenter.backend.artifact.precision,
        "crf": segmenter.crf is not None,
        "pictures": found.pictures,
        "skipped": [{"picture": str(each.pair.image), "error": each.reason} for each in found.skipped],
        "miou": finite(scores.miou),
        "pixel_accuracy": finite(scores.pixel_accuracy),
        "mean_boundary_f": finite(scores.mean_boundary_f),
        "void_share": finite(scores.void_share),
        "in_no_mask": [names[index] for index in scores.absent],
        "classes": [
            {"name": name, "iou": finite(iou), "boundary_f": finite(boundary)}
            for name, iou, boundary in zip(names, scores.iou, scores.boundary_f, strict=True)
        ],
        "trimap_miou": [
            {"band_px": width, "miou": finite(value)} for width, value in enumerate(scores.trimap_miou, start=1)
        ],
        "confusion": scores.confusion.tolist(),
    }


def _rows(segmenter: Segmenter, scores: Scores) -> Iterator[tuple[str, str, int | str, float]]:
    yield "miou", "", "", scores.miou
    yield "pixel_accuracy", "", "", scores.pixel_accuracy
    yield "mean_boundary_f", "", "", scores.mean_boundary_f
    for entry in segmenter.classes:
        yield "iou", entry.name, "", scores.iou[entry.id]
        yield "boundary_f", entry.name, "", scores.boundary_f[entry.id]
    for width, value in enumerate(scores.trimap_miou, start=1):
        yield "trimap_miou", "", width, value


def _write_csv(path: Path, segmenter: Segmenter, scores: Scores) -> None:
    """One row a score; the value is empty where there was nothing to score."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("metric", "class", "band_px", "value"))
            for metric, name, width, value in _rows(segmenter, scores):
                writer.writerow((metric, name, width, "" if math.isnan(value) else f"{value:.6f}"))
    except OSError as exc:
        raise EvaluationError(f"cannot write {path}: {exc.strerror}", path=path) from exc


def _print_tables(segmenter: Segmenter, found: Evaluation) -> None:
    from ..runtime.masks import describe_truth

    scores, backend = found.scores, segmenter.backend
    by_class = Table("class", "IoU", "boundary F")
    for entry in segmenter.classes:
        by_class.add_row(entry.name, _text(scores.iou[entry.id]), _text(scores.boundary_f[entry.id]))
    by_class.add_section()
    by_class.add_row("mean", _text(scores.miou), _text(scores.mean_boundary_f))
    by_class.caption = f"{backend.name} on the {backend.device}, {backend.artifact.precision}"
    print_table(by_class)
    by_band = Table("px to each side of an edge", *map(str, _SHOWN_BANDS), "all")
    by_band.add_row("mean IoU", *(_text(scores.trimap_miou[width - 1]) for width in _SHOWN_BANDS), _text(scores.miou))
    print_table(by_band)
    results.print(f"pixel accuracy {_text(scores.pixel_accuracy)} over {found.pictures} pictures")
    print_line(describe_truth(scores, segmenter.classes))


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


#: Widths of the trimap that a terminal shows; all forty are in JSON and CSV.
_SHOWN_BANDS = (1, 2, 5, 10, 20, 40)
