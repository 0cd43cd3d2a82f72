"""`atrous export`: a checkpoint of a reference architecture becomes a verified bundle."""

from __future__ import annotations

import enum
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExportError
from .console import errors, results
from .options import (
    ClassesOption,
    DynamicOption,
    LicenseOption,
    OutputArgument,
    OverwriteOption,
    SizeOption,
    parse_range,
    parse_size,
)


class Head(str, enum.Enum):
    """What the graph ends in."""

    logits = "logits"
    probabilities = "probabilities"
    labels = "labels"


class AtrousForm(str, enum.Enum):
    """How atrous convolutions are written."""

    dilated = "dilated"
    deinterlaced = "deinterlaced"


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Weights: .safetensors, .pth or .pt.")],
    out: OutputArgument,
    arch: Annotated[
        str | None, typer.Option(help="Reference architecture; read from the checkpoint where it says so.")
    ] = None,
    classes: ClassesOption = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    output_stride: Annotated[int | None, typer.Option(help="8 or 16; the architecture's default.")] = None,
    source: Annotated[str, typer.Option(help="Whose weights: auto, atrous, torchvision, smp, kazuto1011.")] = "auto",
    atrous: Annotated[AtrousForm, typer.Option(help="How atrous convolutions are written.")] = AtrousForm.dilated,
    head: Annotated[Head, typer.Option(help="Add a graph that ends in this, for other runtimes.")] = Head.logits,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Fuse scales 0.5, 0.75 and 1 by their maximum, in the graph.")
    ] = False,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Resize pictures to the input instead of padding.")
    ] = False,
    license: LicenseOption = None,  # noqa: A002 - the option's name
    overwrite: OverwriteOption = False,
) -> None:
    """Export a trained DeepLab to a bundle, verified against PyTorch.

    Example: atrous export deeplab.safetensors street.atrous --classes classes.json --size 360x480
    """
    from ..exporter.checkpoints import load_checkpoint, load_into, num_classes_of, read_metadata
    from ..exporter.description import DynamicSize, Preprocessing, describe_classes, read_classes
    from ..exporter.export import export as export_model
    from ..exporter.models import MultiScale, create_model, find_architecture

    if (size is None) == (dynamic is None):
        raise typer.BadParameter("pass one of --size HxW (fastest) and --dynamic MIN:OPT:MAX")
    metadata = read_metadata(checkpoint)
    name = arch or metadata.architecture
    if name is None:
        raise ExportError(f"{checkpoint} does not say its architecture; pass --arch NAME")
    architecture = find_architecture(name)
    stride = output_stride or metadata.output_stride or architecture.default_output_stride
    with errors.status(f"reading {checkpoint}"):
        weights = load_checkpoint(checkpoint)
        names = (
            read_classes(classes)
            if classes
            else describe_classes(metadata.classes or _numbered(num_classes_of(weights)))
        )
        model = create_model(name, num_classes=len(names), output_stride=stride)
        report = load_into(model, weights, source=source)
    for reason, count in Counter(report.dropped.values()).items():
        errors.print(f"dropped {count} keys of the checkpoint: {reason}")
    with errors.status("exporting and verifying against PyTorch"):
        bundle = export_model(
            MultiScale(model) if multi_scale else model,
            out,
            classes=names,
            size=parse_size(size)
            if size
            else DynamicSize(*parse_range(dynamic or ""), multiple=architecture.size_multiple(stride)),
            preprocessing=Preprocessing(architecture.normalization, resize="stretch" if stretch else "none"),
            align_corners=architecture.align_corners,
            atrous=atrous.value,
            head=head.value,
            license=license,
            overwrite=overwrite,
        )
    for check in bundle.manifest.verification:
        results.print(
            f"{check.artifact}: max |Δ| {check.max_abs:.1e}, same class {check.argmax_agreement:.4%} against {check.against}"
        )
    results.print(f"wrote {bundle.path}")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))
