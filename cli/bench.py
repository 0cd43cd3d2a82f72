"""`atrous bench`: how fast is a bundle here, stage by stage, beside its peers?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Column, Table

from ..arguments import check_arguments
from ..bundle import Bundle
from ..errors import importing
from ..manifest import Precision
from .console import JsonFlag, errors, print_json, print_line, print_table, progress_bar
from .image_options import BitsOption, PageOption
from .options import BundleArgument, ThreadsOption

if TYPE_CHECKING:
    from ..runtime.benchmark import Contender, LeftOut, Row

SUBJECT_PANEL = "What is measured"
PYTORCH_PANEL = "PyTorch"
TIMING_PANEL = "Timing"

_WITHOUT_CHECKPOINT = "a bundle has no PyTorch weights: pass --checkpoint FILE"


ImageOption = Annotated[
    Path | None,
    typer.Option(rich_help_panel=SUBJECT_PANEL, help="Image to run on; a synthetic one of the best size if none."),
]
BackendsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SUBJECT_PANEL,
        help="Backend to measure, may be repeated; by default all that work.",
    ),
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="|".join(get_args(Precision)),
        rich_help_panel=SUBJECT_PANEL,
        help="Precision to measure, may be repeated; by default all in the bundle.",
    ),
]
WithCrfOption = Annotated[bool, typer.Option(rich_help_panel=SUBJECT_PANEL, help="Measure with the dense CRF as well.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(rich_help_panel=PYTORCH_PANEL, help="Weights that were exported, to measure PyTorch beside."),
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        rich_help_panel=PYTORCH_PANEL,
        help="Architecture of the weights, where the checkpoint does not say it.",
    ),
]
WarmupOption = Annotated[int, typer.Option(min=1, rich_help_panel=TIMING_PANEL, help="Warm-up rounds, not timed.")]
RepeatsOption = Annotated[int, typer.Option(min=3, rich_help_panel=TIMING_PANEL, help="Timed rounds.")]
PlotOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the stages: .png or .svg.")]


@check_arguments
def bench(
    bundle: BundleArgument,
    image: ImageOption = None,
    page: PageOption = None,
    bits: BitsOption = None,
    backend: BackendsOption = None,
    precision: PrecisionsOption = None,
    crf: WithCrfOption = True,
    checkpoint: CheckpointOption = None,
    arch: ArchitectureOption = None,
    warmup: WarmupOption = 5,
    repeats: RepeatsOption = 50,
    threads: ThreadsOption = 0,
    plot: PlotOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Time every backend and precision that runs here: latency, throughput, and the stages of a frame.

    Labels are compared before anything is timed, and the contenders take turns.

    Example: atrous bench street.atrous --image photo.jpg --plot bench.svg
    """
    from ..runtime.benchmark import as_plain, measure

    if plot:
        from .bench_plot import check_plot

        check_plot(plot)
    opened = Bundle.open(bundle)
    picture = _picture(opened, image, page, bits)
    contenders, left_out = _contenders(
        opened, backend or (), precision or (), checkpoint, arch, crf=crf, threads=threads
    )
    with progress_bar() as progress:
        task = progress.add_task("timing", total=warmup + repeats)
        rows = measure(
            contenders,
            picture,
            warmup=warmup,
            repeats=repeats,
            progress=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        report = as_plain(rows, left_out)
        print_json(_settings(opened, picture, image, warmup=warmup, repeats=repeats, threads=threads) | report)
    else:
        _print_rows(rows)
        for each in left_out:
            print_line(f"left out: {each.name}: {each.reason}", console=errors)
    if plot:
        from .bench_plot import draw

        draw(rows, plot, title=f"{opened.manifest.name}, {picture.shape[0]}×{picture.shape[1]}")


def _contenders(
    bundle: Bundle,
    backends: Collection[str],
    precisions: Collection[str],
    checkpoint: Path | None,
    arch: str | None,
    *,
    crf: bool,
    threads: int,
) -> tuple[list[Contender], list[LeftOut]]:
    from ..runtime.benchmark import LeftOut, bundle_contenders

    found, left_out = bundle_contenders(bundle, backends=backends, precisions=precisions, crf=crf, threads=threads)
    if checkpoint is None:
        return found, [*left_out, LeftOut("PyTorch", _WITHOUT_CHECKPOINT)]
    with importing("export", purpose="--checkpoint"):
        from ..exporter.torch_benchmark import torch_contenders
    return [*found, *torch_contenders(bundle, checkpoint, architecture=arch, crf=crf, threads=threads)], left_out


def _picture(bundle: Bundle, image: Path | None, page: int | None, bits: int | None) -> Any:  # noqa: ANN401 - an array, whose library loads late
    import numpy as np

    from ..exporter.verify import synthetic_photo
    from ..runtime.band_images import load_pixels
    from ..runtime.image import ImageFile

    inputs = bundle.manifest.input
    if image is None:
        return synthetic_photo(np.random.default_rng(0), inputs.size.opt, inputs.bands)
    return load_pixels(ImageFile(image, page, bits), inputs.bands)


def _settings(
    bundle: Bundle,
    picture: Any,  # noqa: ANN401 - likewise
    image: Path | None,
    *,
    warmup: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    from .doctor import examine

    here = examine()
    return {
        "bundle": bundle.manifest.name,
        "image": str(image) if image else "synthetic",
        "size": list(picture.shape[:2]),
        "classes": len(bundle.manifest.classes),
        "warmup": warmup,
        "repeats": repeats,
        "threads": threads,
        "machine": {key: here[key] for key in ("system", "gpu", "packages")},
    }


def _print_rows(rows: list[Row]) -> None:
    """End to end first, then the medians of the stages."""
    total = Table(Column("", no_wrap=True), "on", "p50 ms", "p90", "p99", "frames/s", "×", "same labels")
    first = {row.contender.crf: row for row in reversed(rows)}
    total.caption = f"×: of the median of {rows[0].contender.label}, with the CRF where it is with the CRF"
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stages))
    by_stage = Table(Column("median ms", no_wrap=True), *stages)
    for row in rows:
        time = row.end_to_end
        total.add_row(
            row.contender.label,
            row.contender.device,
            *(f"{value:.2f}" for value in (time.p50_ms, time.p90_ms, time.p99_ms)),
            f"{row.frames_per_second:.1f}",
            f"{time.p50_ms / first[row.contender.crf].end_to_end.p50_ms:.2f}",
            f"{row.agreement:.3%}",
        )
        cells = (f"{row.stages[stage].p50_ms:.2f}" if stage in row.stages else "" for stage in stages)
        by_stage.add_row(row.contender.label, *cells)
    print_table(total)
    print_table(by_stage)
