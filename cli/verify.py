"""`atrous verify`: does a bundle still compute what it was exported to compute?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..arguments import check_arguments
from ..bundle import Bundle
from ..manifest import Verification
from .console import JsonFlag, errors, finite, print_json, print_line, print_table, status, verdict
from .inputs import find_images
from .options import BundleArgument

if TYPE_CHECKING:
    from ..exporter.verify.bundle import BundleVerification


@check_arguments
def verify(
    bundle: BundleArgument,
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Images or folders to compare on; by default synthetic ones."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks: NAME.png for each picture; compares mean IoU as well.")
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(min=0, max=255, metavar="ID", help="An id of masks that is void, besides the bundle's own."),
    ] = None,
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

    if masks and not images:
        raise typer.BadParameter("--masks belong to --images; pass both")
    opened = Bundle.open(bundle)
    paths = find_images(images) if images else []
    with status("verifying"):
        found = verify_bundle(opened, images=paths, masks=masks, ignore=ignore or ())
    if as_json:
        checks = [_plain(check) for check in found.checks]
        print_json({"checks": checks, "not_run": [dataclasses.asdict(each) for each in found.not_run]})
    else:
        _print_table(found)
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
        cells.append(", ".join("×".join(map(str, shape)) for shape in check.inputs[:4]))
        table.add_row(*cells, verdict(passed=check.passed))
    for each in found.not_run:
        table.add_row(each.artifact, *[""] * (len(table.columns) - 2), Text("not run", style="yellow"))
    print_table(table)


def _plain(check: Verification) -> dict[str, Any]:
    """As JSON values; None stands for answers that cannot be compared."""
    return dataclasses.asdict(check) | {"max_abs": finite(check.max_abs)}
