"""`atrous export`: a checkpoint of a reference architecture becomes a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..arguments import check_arguments
from ..errors import importing
from ..exporter.options import AtrousChoice, ExportOptions, Head, SourceChoice
from .console import errors, print_line, status
from .evidence import print_evidence, tuned_lines
from .options import (
    MODEL_PANEL,
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

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..exporter.sizes import DynamicSize
    from ..exporter.trained_model import TrainedModel
    from ..manifest import Size

GRAPH_PANEL = "Graph"


CheckpointArgument = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Weights: .safetensors, .pth or .pt.")]
ArchitectureOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        rich_help_panel=MODEL_PANEL,
        help="Reference architecture; read from the checkpoint where it says so.",
    ),
]
OutputStrideOption = Annotated[
    int | None,
    typer.Option(metavar="8|16", rich_help_panel=MODEL_PANEL, help="Output stride; the architecture's by default."),
]
SourceOption = Annotated[
    SourceChoice,
    typer.Option(rich_help_panel=MODEL_PANEL, help="Whose key names the checkpoint uses; auto recognises them."),
]
AtrousOption = Annotated[
    AtrousChoice,
    typer.Option(
        rich_help_panel=GRAPH_PANEL,
        help="How atrous convolutions are written; auto measures each on this machine and keeps what is faster in a "
        "graph of its own, as `atrous optimize` does.",
    ),
]
HeadOption = Annotated[
    Head, typer.Option(rich_help_panel=GRAPH_PANEL, help="Add a graph with this output, for other runtimes.")
]
DynamicBatchOption = Annotated[
    bool,
    typer.Option("--dynamic-batch", rich_help_panel=GRAPH_PANEL, help="Take batches at one size; a range always does."),
]
MultiScaleOption = Annotated[
    bool,
    typer.Option(
        "--multi-scale",
        rich_help_panel=GRAPH_PANEL,
        help="Fuse scales 0.5, 0.75 and 1 by their maximum, in the graph.",
    ),
]


@check_arguments
def export(
    checkpoint: CheckpointArgument,
    out: OutputArgument,
    arch: ArchitectureOption = None,
    classes: ClassesOption = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    output_stride: OutputStrideOption = None,
    source: SourceOption = "auto",
    atrous: AtrousOption = "dilated",
    head: HeadOption = "logits",
    multi_scale: MultiScaleOption = False,
    normalization: NormalizationOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    color: ColorOption = None,
    bands: BandsOption = None,
    resize: ResizeOption = "none",
    threshold: ThresholdOption = None,
    license: LicenseOption = None,  # noqa: A002 - the option's name
    dynamic_batch: DynamicBatchOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Export a trained DeepLab to a bundle, verified against PyTorch.

    Example: atrous export deeplab.safetensors street.atrous --classes classes.json --size 360x480
    """
    sizes = _required_size(size, dynamic)
    options = ExportOptions(atrous=atrous, head=head, license=license, dynamic_batch=dynamic_batch, threshold=threshold)
    taken = chosen_bands(bands)
    pixels = chosen_normalization(normalization, mean, std, scale, color, taken)
    with importing("export", purpose="atrous export"):
        from ..exporter.classes import read_classes
        from ..exporter.export import export as export_model
        from ..exporter.model_description import Preprocessing
        from ..exporter.trained_model import fuse_scales, load_trained
    with status(f"reading {checkpoint}"):
        trained = load_trained(
            checkpoint,
            architecture=arch,
            classes=read_classes(classes) if classes else None,
            output_stride=output_stride,
            source=source,
            bands=taken,
        )
    _print_reading(trained)
    with status("exporting and verifying against PyTorch"):
        bundle = export_model(
            fuse_scales(trained) if multi_scale else trained.model,
            out,
            classes=trained.classes,
            size=sizes,
            preprocessing=Preprocessing(pixels or trained.normalization, resize=resize),
            align_corners=trained.architecture.align_corners,
            options=options,
            overwrite=overwrite,
            bands=taken,
        )
    _print_written(bundle)


def _required_size(size: str | None, dynamic: str | None) -> Size | DynamicSize:
    sizes = chosen_size(size, dynamic)
    if sizes is None:
        raise typer.BadParameter("pass --size HxW (fastest) or --dynamic MIN:OPT:MAX")
    return sizes


def _print_written(bundle: Bundle) -> None:
    print_evidence(bundle.manifest)
    for line in tuned_lines(bundle.manifest):
        print_line(line)
    print_line(f"wrote {bundle.path}")


def _print_reading(trained: TrainedModel) -> None:
    from ..exporter.weight_files import some

    if trained.recognised:
        errors.print(str(trained.recognised))
    for reason in dict.fromkeys(trained.dropped.values()):
        keys = [key for key, other in trained.dropped.items() if other == reason]
        errors.print(f"dropped {len(keys)} keys of the checkpoint ({some(keys)}): {reason}")
