"""`atrous export`: a checkpoint of a reference architecture becomes a verified bundle."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ExportError, importing
from ..manifest import ClassInfo
from .console import errors, print_line, status
from .options import (
    ClassesOption,
    DynamicOption,
    LicenseOption,
    OutputArgument,
    OverwriteOption,
    SizeOption,
    chosen_size,
)

if TYPE_CHECKING:
    from torch import nn

    from ..exporter.models import Architecture


class Head(str, enum.Enum):
    """What the graph ends in."""

    logits = "logits"
    probabilities = "probabilities"
    labels = "labels"


class AtrousForm(str, enum.Enum):
    """How atrous convolutions are written."""

    dilated = "dilated"
    deinterlaced = "deinterlaced"


class Origin(str, enum.Enum):
    """Whose names the keys of a checkpoint are."""

    auto = "auto"
    atrous = "atrous"
    torchvision = "torchvision"
    smp = "smp"
    kazuto1011 = "kazuto1011"


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
    source: Annotated[Origin, typer.Option(help="Whose weights.")] = Origin.auto,
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
    sizes = chosen_size(size, dynamic)
    if sizes is None:
        raise typer.BadParameter("pass --size HxW (fastest) or --dynamic MIN:OPT:MAX")
    with importing("export", purpose="atrous export"):
        from ..exporter.description import DynamicSize, Preprocessing
        from ..exporter.export import export as export_model
        from ..exporter.models import MultiScale
    with status(f"reading {checkpoint}"):
        trained = _load(checkpoint, arch, classes, output_stride, source.value)
    rules = trained.architecture
    if isinstance(sizes, DynamicSize):
        sizes = dataclasses.replace(sizes, multiple=rules.size_multiple(trained.output_stride))
    model = MultiScale(trained.model, align_corners=rules.align_corners) if multi_scale else trained.model
    with status("exporting and verifying against PyTorch"):
        bundle = export_model(
            model,
            out,
            classes=trained.classes,
            size=sizes,
            preprocessing=Preprocessing(rules.normalization, resize="stretch" if stretch else "none"),
            align_corners=rules.align_corners,
            atrous=atrous.value,
            head=head.value,
            license=license,
            overwrite=overwrite,
        )
    for check in bundle.manifest.verification:
        numbers = f"max |Δ| {check.max_abs:.1e}, same class {check.argmax_agreement:.4%}"
        print_line(f"{check.artifact}: {numbers} against {check.against}")
    print_line(f"wrote {bundle.path}")


@dataclass(frozen=True)
class _Trained:
    """A reference network with the weights of a checkpoint."""

    model: nn.Module
    architecture: Architecture
    output_stride: int
    classes: tuple[ClassInfo, ...]


def _load(
    checkpoint: Path,
    arch: str | None,
    classes: Path | None,
    output_stride: int | None,
    source: Literal["auto", "atrous", "torchvision", "smp", "kazuto1011"],
) -> _Trained:
    """Build the network that a checkpoint was trained as; options win over what the checkpoint says of itself."""
    from ..exporter.checkpoints import load_checkpoint, load_into, num_classes_of, read_metadata
    from ..exporter.description import describe_classes, read_classes
    from ..exporter.models import create_model, find_architecture

    metadata = read_metadata(checkpoint)
    name = arch or metadata.architecture
    if name is None:
        raise ExportError(f"{checkpoint} does not say its architecture; pass --arch NAME")
    architecture = find_architecture(name)
    stride = output_stride or metadata.output_stride or architecture.default_output_stride
    weights = load_checkpoint(checkpoint)
    if classes:
        infos = read_classes(classes)
    else:
        infos = describe_classes(metadata.classes or _numbered(num_classes_of(weights)))
    model = create_model(name, num_classes=len(infos), output_stride=stride)
    report = load_into(model, weights, source=source)
    for reason, count in Counter(report.dropped.values()).items():
        errors.print(f"dropped {count} keys of the checkpoint: {reason}")
    return _Trained(model, architecture, stride, infos)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))
