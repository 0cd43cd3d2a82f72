"""`atrous pack`: an ONNX file from elsewhere becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import check_arguments
from ..errors import importing
from ..exporter.options import PackOptions
from .console import print_line, status
from .evidence import print_evidence
from .options import (
    MODEL_PANEL,
    AlignCornersOption,
    BandsOption,
    ClassesOption,
    ColorOption,
    DynamicOption,
    LicenseOption,
    MeanOption,
    NormalizationOption,
    OutputArgument,
    OverwriteOption,
    ResizeOption,
    ScaleOption,
    SizeOption,
    StdOption,
    ThresholdOption,
    chosen_bands,
    chosen_normalization,
    chosen_size,
)


@check_arguments
def pack(
    graph: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="Image [N, bands, H, W] in, logits [N, C, h, w] out.")
    ],
    out: OutputArgument,
    classes: ClassesOption = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    normalization: NormalizationOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    color: ColorOption = None,
    bands: BandsOption = None,
    resize: ResizeOption = "none",
    align_corners: AlignCornersOption = False,
    threshold: ThresholdOption = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=MODEL_PANEL, help="Output that is the logits, of several."),
    ] = None,
    license: LicenseOption = None,  # noqa: A002 - the option's name
    overwrite: OverwriteOption = False,
) -> None:
    """Wrap an ONNX graph that was exported elsewhere, after checking and running it.

    Example: atrous pack model.onnx street.atrous --classes names.txt
    """
    from ..exporter.classes import read_classes
    from ..exporter.model_description import Preprocessing

    with importing("export", purpose="atrous pack"):
        from ..exporter.pack import pack as pack_graph
    if classes is None:
        raise typer.BadParameter("an ONNX graph does not name its classes; pass --classes FILE")
    sizes = chosen_size(size, dynamic)
    taken = chosen_bands(bands)
    pixels = chosen_normalization(normalization, mean, std, scale, color, taken)
    with status(f"packing {graph}"):
        bundle = pack_graph(
            graph,
            out,
            classes=read_classes(classes),
            size=sizes,
            preprocessing=Preprocessing(pixels, resize=resize),
            align_corners=align_corners,
            options=PackOptions(license=license, threshold=threshold, output=output),
            overwrite=overwrite,
            bands=taken,
        )
    print_evidence(bundle.manifest)
    print_line(f"wrote {bundle.path}")
