"""`atrous verify`: does a bundle still compute what it was exported to compute?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..bundle import Bundle
from ..manifest import Verification
from .console import JsonFlag, print_json, results, status, verdict
from .inputs import find_images
from .options import BundleArgument


def verify(
    bundle: BundleArgument,
    images: Annotated[
        list[Path] | None, typer.Option(help="Pictures or folders to compare on; synthetic ones otherwise.")
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Hash every file, and compare each graph in each installed backend with FP32 in ONNX Runtime.

    Exits with 1 when a comparison is out of tolerance. Example: atrous verify street.atrous --images val/
    """
    from ..exporter.verify import verify_bundle

    opened = Bundle.open(bundle)
    paths = find_images(images) if images else []
    with status("verifying"):
        checks = verify_bundle(opened, images=paths)
    if as_json:
        print_json([_plain(check) for check in checks])
    else:
        table = Table("artifact", "against", "max |Δ|", "same class", "inputs", "")
        for check in checks:
            difference, agreement = f"{check.max_abs:.1e}", f"{check.argmax_agreement:.4%}"
            shapes = ", ".join("×".join(map(str, shape)) for shape in check.inputs[:4])
            table.add_row(check.artifact, check.against, difference, agreement, shapes, verdict(passed=check.passed))
        results.print(table)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _plain(check: Verification) -> dict[str, Any]:
    """As JSON values; JSON has no infinity, which stands for answers that cannot be compared."""
    return dataclasses.asdict(check) | {"max_abs": check.max_abs if math.isfinite(check.max_abs) else None}
