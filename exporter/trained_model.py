"""Loads a network from a file: a checkpoint into the reference network that it was trained with, or a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..arguments import check_arguments
from ..bands import Bands
from ..errors import CheckpointError, ExportError
from ..manifest import ClassInfo
from .checkpoints import check_source, describe_checkpoint, load_into, num_classes_of
from .classes import describe_classes
from .exported_program import load_exported_program
from .models import Architecture, MultiScale, create_model, find_architecture
from .models.recognition import Recognition, nearest_network, recognise
from .normalization import IMAGENET, Normalization, normalize_ranges, read_preprocessor
from .options import SourceChoice
from .torchscript import load_torchscript
from .weight_files import is_exported_program, is_torchscript, read_weights


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, and what exporting needs to know of it.

    Attributes:
        normalization: of bands, their ranges mapped to 0 to 1. Otherwise ImageNet's for a program, which does not say;
            of a checkpoint the architecture's, or that of `preprocessor_config.json` where it is a folder with one.
        align_corners: rule by which the logits are upsampled; False for a program.
    """

    model: nn.Module
    classes: tuple[ClassInfo, ...]
    normalization: Normalization = IMAGENET
    align_corners: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Network):
    """A reference network with the weights of a checkpoint.

    Attributes:
        output_stride: output stride of the backbone.
        dropped: ignored key of the checkpoint → reason.
        recognised: how the source was recognised; None if it was given.
    """

    architecture: Architecture
    output_stride: int
    dropped: Mapping[str, str]
    recognised: Recognition | None = None


def load_program(path: Path, classes: Sequence[ClassInfo] | None, bands: Bands | None = None) -> Network | None:
    """Load a file that is a program itself, TorchScript or one of torch.export; None for other files.

    Raises:
        CheckpointError: the program is damaged, or does more than compute with tensors.
        ExportError: no classes are given.
    """
    script = is_torchscript(path)
    if not (script or is_exported_program(path)):
        return None
    if not classes:
        raise ExportError(
            f"{path} is a program, which does not name its classes; pass --classes FILE (or, if you want only the "
            "weights of TorchScript, --arch NAME)"
        )
    return Network(
        model=load_torchscript(path) if script else load_exported_program(path),
        classes=tuple(classes),
        normalization=IMAGENET if bands is None else normalize_ranges(bands),
    )


@check_arguments
def load_trained(
    checkpoint: Path,
    *,
    architecture: str | None = None,
    classes: Sequence[ClassInfo] | None = None,
    output_stride: int | None = None,
    source: SourceChoice = "auto",
    bands: Bands | None = None,
) -> TrainedModel:
    """Build the network of a checkpoint and load its weights.

    An argument of None is taken from the checkpoint's metadata, or else is the architecture's default; unnamed classes
    are numbered, those of one channel called background and foreground.

    Raises:
        CheckpointError: the file holds no weights, or they do not match the network; the message names the
            network that they come closest to.
        ExportError: the architecture is unknown, or neither given nor in the checkpoint's metadata.
    """
    check_source(source)
    file = read_weights(checkpoint)
    metadata = describe_checkpoint(file, checkpoint)
    name = architecture or metadata.architecture
    if name is None:
        raise ExportError(f"{checkpoint} has no architecture in its metadata; pass architecture=NAME, or --arch NAME")
    entry = find_architecture(name)
    stride = output_stride or metadata.output_stride or entry.default_output_stride
    weights = file.weights
    found = _counted_classes(weights)
    infos = tuple(classes) if classes else describe_classes(metadata.classes or _numbered(found))
    # Two classes may be one channel under a sigmoid.
    channels = 1 if len(infos) == 2 and found == 1 else len(infos)
    inputs = 3 if bands is None else len(bands.names)
    model = create_model(name, num_classes=channels, output_stride=stride, bands=inputs)
    recognised: Recognition | None = None
    if source == "auto":
        recognised = recognise(weights)
        source = recognised.source
    try:
        report = load_into(model, weights, source=source)
    except CheckpointError as exc:
        if exc.misshapen and not (exc.missing or exc.unexpected):
            raise
        nearest = nearest_network(weights, source, num_classes=found)
        raise CheckpointError(
            "\n".join(filter(None, [str(exc), str(recognised or ""), nearest])),
            missing=exc.missing,
            unexpected=exc.unexpected,
            misshapen=exc.misshapen,
        ) from exc
    return TrainedModel(
        model=model,
        classes=infos,
        normalization=_normalization_of(checkpoint, entry, bands),
        align_corners=entry.align_corners,
        architecture=entry,
        output_stride=stride,
        dropped={**file.dropped, **report.dropped},
        recognised=recognised,
    )


def _counted_classes(weights: Mapping[str, Tensor]) -> int:
    try:
        return num_classes_of(weights)
    except CheckpointError as exc:
        raise CheckpointError(f"{exc}\n{nearest_network(weights, 'atrous', num_classes=None)}") from exc


def _normalization_of(checkpoint: Path, architecture: Architecture, bands: Bands | None) -> Normalization:
    processor = checkpoint / "preprocessor_config.json"
    if bands is not None:
        return normalize_ranges(bands)
    return read_preprocessor(processor) if processor.is_file() else architecture.normalization


def fuse_scales(network: Network) -> nn.Module:
    """Make the network that fuses scales 0.5, 0.75 and 1 of its input by their maximum."""
    return MultiScale(network.model, align_corners=network.align_corners)


def _numbered(channels: int) -> tuple[str, ...]:
    return ("background", "foreground") if channels == 1 else tuple(f"class {index}" for index in range(channels))
