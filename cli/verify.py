"""`atrous verify`: does a bundle still compute what it was exported to compute?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..arguments import check_arguments
from ..bundle import Bundle
from ..manifest import Verification
from ..runtime.mask_rules import DEFAULT_PATTERN
from .console import JsonFlag, errors, finite, print_json, print_line, print_table, status, verdict
from .evidence import skipped_lines
from .image_options import BitsOption, PageOption, chosen_images
from .mask_options import IgnoreOption, MaskMapOption, MaskPatternOption, OneBasedOption, chosen_rules
from .options import BundleArgument, ComparedImagesOption, ComparedMasksOption

if TYPE_CHECKING:
    from ..exporter.verify.bundle import BundleVerification


@check_arguments
def verify(
    bundle: BundleArgument,
    images: ComparedImagesOption = None,
    masks: ComparedMasksOption = None,
    ignore: IgnoreOption = None,
    mask_pattern: MaskPatternOption = DEFAULT_PATTERN,
    mask_map: MaskMapOption = None,
    mask_one_based: OneBasedOption = False,
    page: PageOption = None,
    bits: BitsOption = None,
    allow_not_run: Annotated[
        bool, typer.Option("--allow-not-run", help="Do not fail because an engine cannot be run on this machine.")
    ] = False,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Hash every file, and compare each graph in each installed backend, and each engine, with FP32 in ONNX Runtime.

    Exits with 1 when a comparison is out of tolerance, and when an engine cannot be run here: nothing is known of it
    then. Example: atrous verify street.atrous --images val/
    """
    from ..exporter.verify.bundle import verify_bundle
    from ..runtime.masks import describe_truth

    if masks and not images:
        raise typer.BadParameter("--masks belong to --images; pass both")
    opened = Bundle.open(bundle)
    paths = chosen_images(images, page, bits) if images else []
    rules = chosen_rules(mask_pattern, mask_map, one_based=mask_one_based)
    with status("verifying"):
        found = verify_bundle(opened, images=paths, masks=masks, ignore=ignore or (), rules=rules)
    if as_json:
        checks = [_plain(check) for check in found.checks]
        not_run = [dataclasses.asdict(each) for each in found.not_run]
        print_json({"checks": checks, "not_run": not_run, **_plain_truth(found, opened)})
    else:
        _print_table(found)
        if found.reference_scores:
            print_line(describe_truth(found.reference_scores, opened.manifest.classes))
    for line in dict.fromkeys(line for check in found.checks for line in skipped_lines(check)):
        print_line(line, console=errors)
    for each in found.not_run:
        print_line(f"not run: {each.artifact}: {each.reason}", console=errors)
    if not found.passed or (found.not_run and not allow_not_run):
        raise typer.Exit(1)


def _print_table(found: BundleVerification) -> None:
    with_masks = any(check.miou_delta is not None for check in found.checks)
    table = Table("artifact", "against", "max |Δ|", "same class", *(["Δ mIoU"] if with_masks else []), "inputs", "")
    for check in found.checks:
        cells = [check.artifact, check.against, f"{check.max_abs:.1e}", f"{check.argmax_agreement:.4%}"]
        if with_masks:
            cells.append("" if check.miou_delta is None else f"{check.miou_delta:+.4f}")
        cells.append(_inputs(check))
        table.add_row(*cells, verdict(passed=check.passed))
    for each in found.not_run:
        table.add_row(each.artifact, *[""] * (len(table.columns) - 2), Text("not run", style="yellow"))
    print_table(table)


def _inputs(check: Verification) -> str:
    """Number of inputs, and the range of their sizes and batches."""
    shapes = sorted(set(check.inputs), key=lambda shape: (shape[2] * shape[3], shape))
    batch = max((shape[0] for shape in shapes), default=1)
    ends = " … ".join(dict.fromkeys(f"{height}×{width}" for *_, height, width in (shapes[:1] + shapes[-1:])))
    return f"{len(check.inputs)}: {ends}" + (f", batches to {batch}" if batch > 1 else "")


def _plain(check: Verification) -> dict[str, Any]:
    """As JSON values; None stands for answers that cannot be compared."""
    return dataclasses.asdict(check) | {"max_abs": finite(check.max_abs)}


def _plain_truth(found: BundleVerification, bundle: Bundle) -> dict[str, Any]:
    """Share of void and classes without truth as JSON values; nothing without masks."""
    scores = found.reference_scores
    if scores is None:
        return {}
    names = [entry.name for entry in bundle.manifest.classes]
    return {"void_share": finite(scores.void_share), "in_no_mask": [names[index] for index in scores.absent]}
