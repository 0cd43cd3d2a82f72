"""`atrous add-fp16`: the FP32 graph of a bundle becomes an FP16 graph beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..arguments import check_arguments
from ..bundle import Bundle
from ..errors import importing
from .console import JsonFlag, errors, print_json, print_line, status
from .evidence import skipped_lines
from .image_options import BitsOption, PageOption, chosen_images
from .options import BundleArgument


@check_arguments
def add_fp16(
    bundle: BundleArgument,
    images: Annotated[
        Path | None, typer.Option(help="Folder of a dozen pictures as seen in use, whose activations must fit FP16.")
    ] = None,
    page: PageOption = None,
    bits: BitsOption = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Nodes that must stay FP32, by module ('backbone.layer3.*') or node; may be repeated.",
        ),
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Add an FP16 graph to a bundle, verified against its FP32 graph.

    Example: atrous add-fp16 street.atrous --images photos
    """
    with importing("export", purpose="atrous add-fp16"):
        from ..exporter.fp16 import FP16_FILE, add_fp16
        from ..exporter.module_names import title
    pictures = chosen_images([images], page, bits) if images is not None else []
    with status("converting and verifying"):
        extended, report = add_fp16(Bundle.open(bundle), images=pictures, keep=keep or ())
    if as_json:
        print_json({"bundle": str(extended.path), "file": FP16_FILE, **dataclasses.asdict(report)})
        return
    for check in report.verification:
        print_line(f"{check.artifact}: max |Δ| {check.max_abs:.3g}, agreement {check.argmax_agreement:.4%}")
    for line in dict.fromkeys(line for check in report.verification for line in skipped_lines(check)):
        print_line(line, console=errors)
    for node in report.kept:
        print_line(f"{node.op} {title(node.name, node.module)} stays FP32: {node.reason}")
    print_line(f"{len(report.halved)} nodes in FP16, {len(report.kept)} in FP32; wrote {extended.path / FP16_FILE}")
