"""`atrous batch`: a bundle over a data set, resumable and in shards."""

from __future__ import annotations

from typing import Annotated

import typer

from ..arguments import check_arguments
from .batch_options import (
    ColumnOption,
    KeepEndingsOption,
    MaxErrorsOption,
    OutOption,
    ResumeOption,
    RootOption,
    ShardOption,
    SourcesArgument,
    batch_progress,
    check_out,
    chosen_work,
    report,
)
from .console import JsonFlag
from .crf_options import ClassFloorOption, CrfParamsOption, chosen_crf
from .image_options import BitsOption, PageOption
from .options import BackendOption, BundleArgument, FastOption, PrecisionOption, ThreadsOption


@check_arguments
def batch(
    bundle: BundleArgument,
    sources: SourcesArgument,
    out: OutOption,
    resume: ResumeOption = False,
    shard: ShardOption = "1/1",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    fast: FastOption = False,
    crf: Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF.")] = False,
    crf_params: CrfParamsOption = None,
    crf_class_floor: ClassFloorOption = 0.0,
    threads: ThreadsOption = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Images computed at once, each with --threads; others are read and written.")
    ] = 1,
    overlay: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="ALPHA", help="Write overlays too, with so much of the classes' colours."),
    ] = None,
    max_errors: MaxErrorsOption = 10,
    root: RootOption = None,
    keep_endings: KeepEndingsOption = False,
    column: ColumnOption = None,
    page: PageOption = None,
    bits: BitsOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Segment a data set: OUT/labels/NAME.png for each image, and a ledger by which the run is resumed.

    An image that fails is named and skipped, up to --max-errors; the exit code is then 1.

    Example: atrous batch street.atrous photos/ --out labelled --resume
    """
    from ..batch import BatchOptions, Shard, find_work, segment_batch
    from ..runtime.segmenter import load

    part = Shard.parse(shard)
    options = BatchOptions(resume=resume, shard=part, workers=workers, max_errors=max_errors)
    check_out(out, sources)
    items = find_work(sources, chosen_work(root, column, out, page, bits, keep_endings=keep_endings))
    chosen = chosen_crf(bundle, crf_params, crf=crf, class_floor=crf_class_floor, threads=threads)
    segmenter = load(
        bundle, backend=backend, precision=precision, crf=chosen, threads=threads, workers=workers, fast=fast
    )
    with batch_progress("segmenting") as progress:
        summary = segment_batch(segmenter, items, out, options, overlay=overlay, progress=progress)
    running = segmenter.backend
    about = {
        "backend": running.name,
        "device": running.device,
        "precision": running.artifact.precision,
        "crf": segmenter.crf is not None,
    }
    report(summary, part, out, about, as_json=as_json)
