"""`atrous export`: a checkpoint of a reference architecture becomes a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arguments import check_arguments
from ..errors import importing
from ..exporter.options import AtrousChoice, ExportOptions, Head, SourceChoice
from .console import errors, print_line, status
from .evidence import print_evidence, tuned_lines
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
    from ..bands import Bands
    from ..bundle import Bundle
    from ..exporter.pretrained import Pretrained
    from ..exporter.sizes import DynamicSize
    from ..exporter.trained_model import Network
    from ..manifest import Size

GRAPH_PANEL = "Graph"


CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Weights: .safetensors, .pth or .pt; or without --arch a program: TorchScript, or torch.export's .pt2. "
        "Left out with --pretrained.",
    ),
]
OutArgument = Annotated[Path | None, typer.Argument(metavar="OUT", help="The bundle to write: NAME.atrous.")]
PretrainedOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MODEL_PANEL,
        help="Published weights, in place of CHECKPOINT: torchvision:deeplabv3_resnet50, torchvision:"
        "deeplabv3_resnet101, torchvision:deeplabv3_mobilenet_v3_large, or hf:OWNER/REPO.",
    ),
]
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
OpsetOption = Annotated[
    int | None,
    typer.Option(
        metavar="17…", rich_help_panel=GRAPH_PANEL, help="ONNX's operator set; 20 by default, 17 for older TensorRT."
    ),
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
    out: OutArgument = None,
    pretrained: PretrainedOption = None,
    arch: ArchitectureOption = None,
    classes: ClassesOption = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    output_stride: OutputStrideOption = None,
    source: SourceOption = "auto",
    atrous: AtrousOption = "dilated",
    head: HeadOption = "logits",
    multi_scale: MultiScaleOption = False,
    align_corners: AlignCornersOption = False,
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
    opset: OpsetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Export a trained DeepLab to a bundle, verified against PyTorch.

    Example: atrous export deeplab.safetensors street.atrous --classes classes.json --size 360x480
    """
    sizes = _required_size(size, dynamic)
    taken = chosen_bands(bands)
    pixels = chosen_normalization(normalization, mean, std, scale, color, taken)
    with importing("export", purpose="atrous export"):
        from ..exporter.export import export as export_model
        from ..exporter.model_description import Preprocessing
        from ..exporter.trained_model import fuse_scales
    weights, out = _chosen_weights(checkpoint, out, pretrained)
    network = _read_network(weights, arch, classes, output_stride, source, taken)
    options = _options_of(
        weights, license, atrous=atrous, head=head, dynamic_batch=dynamic_batch, threshold=threshold, opset=opset
    )
    with status("exporting and verifying against PyTorch"):
        bundle = export_model(
            fuse_scales(network) if multi_scale else network.model,
            out,
            classes=network.classes,
            size=sizes,
            preprocessing=Preprocessing(pixels or network.normalization, resize=resize),
            align_corners=align_corners or network.align_corners,
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


def _chosen_weights(checkpoint: Path, out: Path | None, pretrained: str | None) -> tuple[Pretrained, Path]:
    """The weights, and the bundle to write; with --pretrained the only argument is the bundle."""
    from ..exporter.pretrained import Pretrained, fetch_pretrained

    if pretrained is None:
        if out is None:
            raise typer.BadParameter("pass CHECKPOINT and OUT, or --pretrained NAME and OUT")
        return Pretrained(checkpoint), out
    if out is not None:
        raise typer.BadParameter("CHECKPOINT and --pretrained exclude each other; pass one")
    with status(f"fetching {pretrained}"):
        found = fetch_pretrained(pretrained)
    if found.license:
        errors.print(f"license of the weights: {found.license}")
    return found, checkpoint


def _options_of(weights: Pretrained, license: str | None, **chosen: Any) -> ExportOptions:  # noqa: A002, ANN401
    return ExportOptions(license=license or weights.license, origin=weights.origin, **chosen)


def _read_network(
    weights: Pretrained,
    arch: str | None,
    classes: Path | None,
    output_stride: int | None,
    source: SourceChoice,
    bands: Bands | None,
) -> Network:
    from ..exporter.classes import read_classes
    from ..exporter.trained_model import load_program, load_trained

    names = read_classes(classes) if classes else weights.classes
    name = arch or weights.architecture
    with status(f"reading {weights.path}"):
        network = (load_program(weights.path, names, bands) if name is None else None) or load_trained(
            weights.path, architecture=name, classes=names, output_stride=output_stride, source=source, bands=bands
        )
    _print_reading(network)
    return network


def _print_written(bundle: Bundle) -> None:
    print_evidence(bundle.manifest)
    for line in tuned_lines(bundle.manifest):
        print_line(line)
    print_line(f"wrote {bundle.path}")


def _print_reading(network: Network) -> None:
    from ..exporter.trained_model import TrainedModel
    from ..exporter.weight_files import some

    if not isinstance(network, TrainedModel):
        return
    if network.recognised:
        errors.print(str(network.recognised))
    for reason in dict.fromkeys(network.dropped.values()):
        keys = [key for key, other in network.dropped.items() if other == reason]
        errors.print(f"dropped {len(keys)} keys of the checkpoint ({some(keys)}): {reason}")
