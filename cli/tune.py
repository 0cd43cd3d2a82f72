"""`atrous tune`: the dense CRF of a bundle gets the parameters that fit its network and data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arguments import check_arguments
from ..bundle import Bundle
from ..calibration.tune.options import (
    DEFAULT_HOLDOUT,
    DEFAULT_MAX_IMAGES,
    DEFAULT_METRIC,
    DEFAULT_NO_HARM,
    Metric,
    TuneOptions,
)
from ..errors import CRFError, importing
from ..files import write_whole
from ..runtime.mask_rules import DEFAULT_PATTERN
from .console import JsonFlag, errors, finite, print_json, print_line, progress_bar
from .image_options import BitsOption, PageOption, chosen_images
from .mask_options import IgnoreOption, MaskMapOption, MaskPatternOption, OneBasedOption, chosen_rules
from .options import BundleArgument
from .steps import Steps

if TYPE_CHECKING:
    from ..calibration.tune.candidate import Standing
    from ..calibration.tune.report import TuningReport


MetricOption = Annotated[
    Metric, typer.Option(help="What is to be large: mean IoU, the F-score of boundaries, or mean IoU near edges.")
]
HoldoutOption = Annotated[
    float, typer.Option(metavar="FRACTION", help="Share of the pictures that the search does not see.")
]
NoHarmOption = Annotated[
    float, typer.Option(metavar="POINTS", help="Points of IoU that a class may lose against no CRF.")
]
LearnOption = Annotated[
    bool, typer.Option("--learn", help="Then learn weights of classes and costs of their pairs by gradient.")
]
GaussianOption = Annotated[
    bool, typer.Option("--gaussian", help="Search weight and width of the smoothness kernel as well.")
]
SeedOption = Annotated[int, typer.Option(help="Random seed for choosing pictures, and those to hold out.")]
AnywayOption = Annotated[
    bool, typer.Option("--write-anyway", help="Change the bundle even where nothing is better on held-out pictures.")
]
WorkOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="What an interrupted search goes on from; by default NAME.tune.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the report page here as well (.html).")
]


@check_arguments
def tune(
    bundle: BundleArgument,
    images: Annotated[Path, typer.Option(help="Folder of pictures as seen in use, about a hundred.")],
    masks: Annotated[Path, typer.Option(help="Folder of masks: NAME.png for each picture NAME.*, pixels = class ids.")],
    metric: MetricOption = DEFAULT_METRIC,
    holdout: HoldoutOption = DEFAULT_HOLDOUT,
    no_harm: NoHarmOption = DEFAULT_NO_HARM,
    max_images: Annotated[int, typer.Option(min=2, help="The most pictures to use.")] = DEFAULT_MAX_IMAGES,
    gaussian: GaussianOption = False,
    learn: LearnOption = False,
    ignore: IgnoreOption = None,
    mask_pattern: MaskPatternOption = DEFAULT_PATTERN,
    mask_map: MaskMapOption = None,
    mask_one_based: OneBasedOption = False,
    page: PageOption = None,
    bits: BitsOption = None,
    seed: SeedOption = 0,
    write_anyway: AnywayOption = False,
    work: WorkOption = None,
    report_file: ReportOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Fit the dense CRF's parameters to a bundle's network and pictures with masks, and store them in the bundle.

    The bundle changes only if they are better on held-out pictures. After Ctrl-C the same command goes on.

    Example: atrous tune street.atrous --images val/images --masks val/masks --ignore 11
    """
    with importing("export", purpose="atrous tune"):
        from ..calibration.tune.tune import tune
    options = TuneOptions(
        ignore=ignore or (),
        mask_rules=chosen_rules(mask_pattern, mask_map, one_based=mask_one_based),
        max_images=max_images,
        seed=seed,
        gaussian=gaussian,
        learn=learn,
        write_anyway=write_anyway,
        work=work,
    )
    sources = chosen_images([images], page, bits)
    with _explained(), progress_bar() as progress:
        run = partial(tune, Bundle.open(bundle), images=sources, masks=masks, options=options, progress=Steps(progress))
        extended, report = run(metric=metric, holdout=holdout, no_harm=no_harm)
    _show(extended, report, report_file, as_json=as_json)


@contextmanager
def _explained() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print_line("interrupted: the same command goes on from here", console=errors)
        raise


def _show(bundle: Bundle, report: TuningReport, page: Path | None, *, as_json: bool) -> None:
    from ..calibration.tune.page import render_html
    from ..calibration.tune.text import render_text
    from ..calibration.tune.tune import HTML_FILE

    for each in report.skipped:
        print_line(f"skipped: {each.reason}", console=errors)
    if page:
        _write_page(page, render_html(report))
    if as_json:
        print_json(_plain(bundle, report))
        return
    print_line(render_text(report))
    if report.written:
        print_line(f"report: {bundle.path / HTML_FILE}")


def _write_page(path: Path, page: str) -> None:
    try:
        with write_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise CRFError(f"cannot write the report to {path}: {exc.strerror}") from exc


def _plain(bundle: Bundle, report: TuningReport) -> dict[str, Any]:
    fit = report.fit
    return {
        "bundle": str(bundle.path),
        "written": report.written,
        "reason": report.reason,
        "metric": fit.metric,
        "images": fit.images,
        "held_out": fit.held_out,
        "seed": fit.seed,
        "data_sha256": fit.data_sha256,
        "skipped": [{"picture": each.name, "error": each.reason} for each in report.skipped],
        "before": report.before.stored(),
        "found": report.after.stored(),
        "score_without": fit.score_without,
        "score_before": fit.score_before,
        "score_after": fit.score_after,
        "gain": report.after_held_out.gain,
        "gain_interval": [100 * each for each in fit.gain_interval],
        "harm": finite(report.after_held_out.harm),
        "no_harm": fit.no_harm,
        "void_share": finite(report.scores.void_share),
        "in_no_mask": [report.classes[index].name for index in report.scores.absent],
        "classes": [
            {
                "name": entry.name,
                "iou_without": finite(report.iou_without[entry.id]),
                "iou_before": finite(report.iou_before[entry.id]),
                "iou_after": finite(report.iou_after[entry.id]),
            }
            for entry in report.classes
        ],
        "iterations": [{**_standing(each.standing), "seconds": each.seconds} for each in report.iterations],
        "trials": [{"stage": trial.stage, **_standing(trial.standing)} for trial in report.trials],
        "seconds": report.seconds,
        "cpu_seconds": report.cpu_seconds,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    candidate = standing.candidate
    crf = candidate.stored() if candidate else None
    return {"crf": crf, "gain": finite(standing.gain), "harm": finite(standing.harm), "images": standing.images}
