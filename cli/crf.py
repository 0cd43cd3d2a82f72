"""`atrous crf`: the dense CRF over what another tool made of a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..arguments import check_arguments
from ..bundle import Bundle
from ..crf.stored import crf_to_stored
from .batch_options import (
    ColumnOption,
    KeepEndingsOption,
    MaxErrorsOption,
    OutOption,
    ResumeOption,
    RootOption,
    ShardOption,
    batch_progress,
    check_out,
    chosen_work,
    report,
)
from .console import JsonFlag
from .crf_options import ClassFloorOption, CrfParamsOption, chosen_params
from .image_options import BitsOption, PageOption
from .mask_options import IgnoreOption
from .options import ThreadsOption

if TYPE_CHECKING:
    from ..batch import LabelMaps, ProbabilityMaps


ImagesOption = Annotated[
    list[str], typer.Option(metavar="SOURCE", help="Images, a folder, a glob or a list; may be repeated.")
]
ProbabilitiesOption = Annotated[
    Path | None, typer.Option(help="Folder of NAME.npy, .npz or .tif [C, H, W], or folders NAME of a PNG a class.")
]
LabelsOption = Annotated[Path | None, typer.Option(help="Folder of NAME.png, .npy or .tif of class ids instead.")]
ConfidenceOption = Annotated[float, typer.Option(metavar="P", help="Probability that a label of --labels is right.")]
ClassesOption = Annotated[
    int | None, typer.Option(min=2, metavar="C", help="Number of classes of --labels; by default the bundle's.")
]
ChannelsLastOption = Annotated[bool, typer.Option("--channels-last", help="Arrays of --probabilities are [H, W, C].")]
NormalizeOption = Annotated[
    bool, typer.Option("--normalize", help="Divide --probabilities by their sum over the classes.")
]
BundleOption = Annotated[
    Path | None,
    typer.Option(metavar="NAME.atrous", help="Bundle that says classes, colours, bands and the CRF's parameters."),
]
IterationsOption = Annotated[int | None, typer.Option(min=0, help="Mean-field updates; by default 10.")]
WriteOption = Annotated[
    Literal["labels", "probabilities", "both"],
    typer.Option(help="What to write: OUT/labels/NAME.png, OUT/probabilities/NAME.npy, or both."),
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Images refined at once; 0 for all cores / --threads.")]


@check_arguments
def crf(
    images: ImagesOption,
    out: OutOption,
    probabilities: ProbabilitiesOption = None,
    labels: LabelsOption = None,
    confidence: ConfidenceOption = 0.7,
    classes: ClassesOption = None,
    ignore: IgnoreOption = None,
    channels_last: ChannelsLastOption = False,
    normalize: NormalizeOption = False,
    bundle: BundleOption = None,
    crf_params: CrfParamsOption = None,
    iterations: IterationsOption = None,
    crf_class_floor: ClassFloorOption = 0.0,
    write: WriteOption = "labels",
    threads: ThreadsOption = 1,
    workers: WorkersOption = 0,
    resume: ResumeOption = False,
    shard: ShardOption = "1/1",
    max_errors: MaxErrorsOption = 10,
    root: RootOption = None,
    keep_endings: KeepEndingsOption = False,
    column: ColumnOption = None,
    page: PageOption = None,
    bits: BitsOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Refine probabilities or labels that another tool made, with the dense CRF; resumable and in shards.

    Parameters are those of --crf-params, else of --bundle, else DeepLab v2's.

    Example: atrous crf --images photos --probabilities softmax --out refined --resume
    """
    from ..batch import BatchOptions, RefineOptions, Shard, find_work, refine_batch

    part = Shard.parse(shard)
    opened = Bundle.open(bundle) if bundle else None
    chosen = chosen_params(opened, crf_params, iterations, class_floor=crf_class_floor, threads=threads)
    count = workers or _default_workers(threads)
    options = BatchOptions(resume=resume, shard=part, workers=count, max_errors=max_errors)
    if probabilities:
        maps = _probability_maps(probabilities, labels, channels_last=channels_last, normalize=normalize)
    else:
        maps = _label_maps(labels, opened, classes, confidence, ignore or [])
    check_out(out, [*images, str(maps.folder)])
    items = find_work(images, chosen_work(root, column, out, page, bits, keep_endings=keep_endings))
    refinement = RefineOptions(write=write, bundle=opened)
    with batch_progress("refining") as progress:
        summary = refine_batch(items, maps, out, chosen, options, refinement=refinement, progress=progress)
    about = {"crf": crf_to_stored(chosen), "workers": count}
    report(summary, part, out, about, as_json=as_json)


def _probability_maps(
    folder: Path, labels: Path | None, *, channels_last: bool, normalize: bool
) -> ProbabilityMaps | LabelMaps:
    from ..batch import ProbabilityMaps

    if labels:
        raise typer.BadParameter("--probabilities and --labels exclude each other; pass one")
    return ProbabilityMaps(folder=folder, channels_last=channels_last, normalize=normalize)


def _label_maps(
    folder: Path | None, bundle: Bundle | None, classes: int | None, confidence: float, ignore: list[int]
) -> LabelMaps:
    from ..batch import LabelMaps

    if folder is None:
        raise typer.BadParameter("there is nothing to refine; pass --probabilities FOLDER or --labels FOLDER")
    if bundle is None and classes is None:
        raise typer.BadParameter("labels do not say how many classes there are; pass --classes C or --bundle")
    void = [bundle.manifest.ignore_index] if bundle and bundle.manifest.ignore_index is not None else []
    count = classes or (len(bundle.manifest.classes) if bundle else 0)
    return LabelMaps(folder=folder, classes=count, confidence=confidence, void=[*void, *ignore])


def _default_workers(threads: int) -> int:
    """Refinements that occupy all cores: each is one of them, with its own threads."""
    return max(1, (os.cpu_count() or 1) // threads) if threads else 1
