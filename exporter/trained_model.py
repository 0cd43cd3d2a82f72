"""Loads a checkpoint of a reference architecture into the network that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..bands import Bands
from ..errors import CheckpointError, ExportError
from ..manifest import ClassInfo
from .checkpoints import describe_checkpoint, load_into, num_classes_of
from .classes import describe_classes
from .models import Architecture, MultiScale, create_model, find_architecture
from .models.recognition import Recognition, nearest_network, recognise
from .normalization import Normalization, normalize_ranges, read_preprocessor
from .options import SourceChoice
from .weight_files import read_weights


@dataclass(frozen=True)
class TrainedModel:
    """A reference network with the weights of a checkpoint.

    Attributes:
        output_stride: output stride of the backbone.
        normalization: the architecture's; that of `preprocessor_config.json` where the checkpoint is a folder with one;
            of bands, their ranges mapped to 0 to 1.
        dropped: ignored key of the checkpoint → reason.
        recognised: how the source was recognised; None if it was given.
    """

    model: nn.Module
    architecture: Architecture
    output_stride: int
    classes: tuple[ClassInfo, ...]
    normalization: Normalization
    dropped: Mapping[str, str]
    recognised: Recognition | None = None


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
    file = read_weights(checkpoint)
    metadata = describe_checkpoint(file, checkpoint)
    name = architecture or metadata.architecture
    if name is None:
        raise ExportError(f"{checkpoint} has no architecture in its metadata; pass architecture=NAME, or --arch NAME")
    entry = find_architecture(name)
    stride = output_stride or metadata.output_stride or entry.default_output_stride
    weights = file.weights
    infos = tuple(classes) if classes else describe_classes(metadata.classes or _numbered(num_classes_of(weights)))
    # Two classes may be one channel under a sigmoid.
    channels = 1 if len(infos) == 2 and num_classes_of(weights) == 1 else len(infos)
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
        nearest = nearest_network(weights, source, num_classes=num_classes_of(weights))
        raise CheckpointError(
            "\n".join(filter(None, [str(exc), str(recognised or ""), nearest])),
            missing=exc.missing,
            unexpected=exc.unexpected,
            misshapen=exc.misshapen,
        ) from exc
    processor = checkpoint / "preprocessor_config.json"
    pixels = read_preprocessor(processor) if processor.is_file() else entry.normalization
    if bands is not None:
        pixels = normalize_ranges(bands)
    return TrainedModel(model, entry, stride, infos, pixels, {**file.dropped, **report.dropped}, recognised)


def fuse_scales(trained: TrainedModel) -> nn.Module:
    """Make the network that fuses scales 0.5, 0.75 and 1 of its input by their maximum."""
    return MultiScale(trained.model, align_corners=trained.architecture.align_corners)


def _numbered(channels: int) -> tuple[str, ...]:
    return ("background", "foreground") if channels == 1 else tuple(f"class {index}" for index in range(channels))
