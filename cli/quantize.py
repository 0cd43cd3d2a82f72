"""`atrous quantize`: the FP32 graph of a bundle becomes an INT8 graph beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arguments import check_arguments
from ..bundle import Bundle
from ..calibration.options import DEFAULT_MAX_IMAGES, DEFAULT_METHOD, Method, QuantizeOptions
from ..errors import importing
from ..runtime.mask_rules import DEFAULT_PATTERN
from .console import JsonFlag, errors, finite, print_json, print_line, progress_bar
from .evidence import failed_lines, skipped_lines
from .image_options import BitsOption, PageOption, chosen_images
from .mask_options import IgnoreOption, MaskMapOption, MaskPatternOption, OneBasedOption, chosen_rules
from .options import BundleArgument
from .steps import Steps

if TYPE_CHECKING:
    from ..calibration.report.model import QuantizationReport


@check_arguments
def quantize(
    bundle: BundleArgument,
    images: Annotated[Path, typer.Option(help="Folder of pictures as seen in use; no masks needed.")],
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, NAME.png for each picture NAME.*: count losses in mean IoU.")
    ] = None,
    ignore: IgnoreOption = None,
    mask_pattern: MaskPatternOption = DEFAULT_PATTERN,
    mask_map: MaskMapOption = None,
    mask_one_based: OneBasedOption = False,
    page: PageOption = None,
    bits: BitsOption = None,
    method: Annotated[Method, typer.Option(help="How the ranges of activations are chosen.")] = DEFAULT_METHOD,
    max_images: Annotated[int, typer.Option(min=1, help="The most images to use.")] = DEFAULT_MAX_IMAGES,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="Points of mean IoU (without masks: of equal labels) that may be lost."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Layers out of INT8, by module ('backbone.*') or node; may be repeated."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Take the ranges from this file, of the same model, pictures and method.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for choosing the calibration images.")] = 0,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Add an INT8 graph to a bundle, and a report of what that costs.

    Example: atrous quantize street.atrous --images photos --max-drop 0.5
    """
    with importing("export", purpose="atrous quantize"):
        from ..calibration.quantize import HTML_FILE, quantize
        from ..calibration.report.text import render_text
    with progress_bar() as progress:
        extended, report = quantize(
            Bundle.open(bundle),
            images=chosen_images([images], page, bits),
            masks=masks,
            method=method,
            max_drop=max_drop,
            keep=keep or (),
            options=QuantizeOptions(
                ignore=ignore or (),
                mask_rules=chosen_rules(mask_pattern, mask_map, one_based=mask_one_based),
                max_images=max_images,
                calibration=calibration,
                seed=seed,
            ),
            progress=Steps(progress),
        )
    _print_doubts(extended, report)
    if as_json:
        print_json(_plain(extended, report))
        return
    print_line(render_text(report))
    print_line(f"report: {extended.path / HTML_FILE}")


def _print_doubts(bundle: Bundle, report: QuantizationReport) -> None:
    """Say what was left out, and where the graph differs."""
    from ..calibration.quantize import INT8_FILE

    for check in bundle.manifest.verification:
        if check.artifact == INT8_FILE:
            for line in (*skipped_lines(check), *failed_lines(check)):
                print_line(line, console=errors)
    for each in report.skipped:
        print_line(f"skipped: {each.reason}", console=errors)


def _plain(bundle: Bundle, report: QuantizationReport) -> dict[str, Any]:
    from ..calibration.quantize import CALIBRATION_FILE, HTML_FILE, INT8_FILE, TEXT_FILE

    accuracy = report.accuracy
    return {
        "bundle": str(bundle.path),
        "files": [INT8_FILE, CALIBRATION_FILE, HTML_FILE, TEXT_FILE],
        "method": report.method,
        "images": report.images,
        "ranges_reused": report.reused,
        "skipped": [{"picture": each.name, "error": each.reason} for each in report.skipped],
        "metric": accuracy.metric,
        "drop": accuracy.drop,
        "agreement": accuracy.agreement,
        "fp32_miou": accuracy.fp32.miou if accuracy.fp32 else None,
        "int8_miou": accuracy.int8.miou if accuracy.int8 else None,
        "void_share": finite(accuracy.fp32.void_share) if accuracy.fp32 else None,
        "in_no_mask": [report.classes[index].name for index in accuracy.fp32.absent] if accuracy.fp32 else None,
        "max_drop": report.max_drop,
        "tries": [{"returned": step.returned, "drop": step.drop} for step in report.steps],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "int8": layer.reason is None,
                "reason": layer.reason,
                "sqnr_db": finite(layer.sqnr_db),
                "alone_drop": layer.alone_drop,
                "kept_gain": layer.kept_gain,
            }
            for layer in report.layers
        ],
        "tensors": [
            {"name": each.name, "amax": each.amax, "max_abs": each.max_abs, "sqnr_db": finite(each.sqnr_db)}
            for each in report.tensors
        ],
        "seconds": report.seconds,
    }
