"""Description of a model in what its graph does not show: classes, input sizes and preprocessing, from the user."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._version import __version__
from ..arguments import check_arguments, check_fields
from ..arrays import MAX_BYTE_CLASSES, MAX_CLASSES
from ..bands import Bands
from ..crf import CRFParams, DenseCRF
from ..crf.stored import crf_to_stored
from ..errors import ExportError
from ..manifest import Channels, ClassInfo, InputSpec, Manifest, OutputSpec, ResizePolicy, Size, SizePolicy
from .channels import channels_of
from .normalization import IMAGENET, Normalization, normalize_ranges
from .size_probe import Answer, find_size_policy
from .sizes import DynamicSize


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for the network.

    Attributes:
        normalization: None for torchvision's constants of ImageNet, or of bands for their ranges mapped to 0 to 1.
        resize: `none` pads and tiles, `stretch` resizes every image to the one (or optimal) size, `letterbox` to the
            largest of its own aspect ratio within it, and pads the rest.
        pad_value: RGB, 0–255, or a value of each band; None for the mean colour, so that padding is 0 after
            normalisation.
    """

    normalization: Normalization | None = None
    resize: ResizePolicy = "none"
    pad_value: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len((self.normalization or IMAGENET).mean)

    @check_arguments
    def input_spec(self, size: SizePolicy) -> InputSpec:
        """Convert to the manifest's form."""
        norm, pad_value = self.normalization or IMAGENET, self.pad_value
        if pad_value is None:
            pad_value = _mean_color(norm)
        return InputSpec(
            size=size,
            color_order=norm.color_order,
            mean=norm.mean,
            std=norm.std,
            scale=norm.scale,
            resize=self.resize,
            pad_value=pad_value,
            bands=norm.bands,
        )


def with_bands(preprocessing: Preprocessing | None, bands: int | Bands | None) -> Preprocessing:
    """Complete a preprocessing by the bands that it is of.

    Args:
        preprocessing: None for the default.
        bands: number of bands of bytes, or what they are; None for those of the normalization, or RGB.

    Raises:
        BundleError: a number that is none of bands.
        ExportError: the normalization is of other bands.
    """
    preprocessing = preprocessing or Preprocessing()
    if bands is None:
        return preprocessing
    described = Bands.of(bands) if isinstance(bands, int) else bands
    normalization = preprocessing.normalization
    if normalization is None:
        return dataclasses.replace(preprocessing, normalization=normalize_ranges(described))
    if normalization.bands != described:
        of = "RGB in bytes" if normalization.bands is None else str(normalization.bands)
        raise ExportError(
            f"the network takes {described}, and the normalization is that of {of}; expected the same bands: "
            "Normalization('RGB', scale, mean, std, bands), or none for their ranges mapped to 0 to 1"
        )
    return preprocessing


def _void(classes: int) -> int | None:
    """The usual id of masks for no class: the largest of bytes, or of 16 bits where there are more classes."""
    if classes <= MAX_BYTE_CLASSES:
        return 255
    return MAX_CLASSES - 1 if classes < MAX_CLASSES else None


def _mean_color(norm: Normalization) -> tuple[float, ...]:
    """The pixel that is 0 after normalisation, as near as pixels get."""
    means = [value / norm.scale for value in norm.mean]
    if norm.bands is not None and norm.bands.dtype == "float32":
        return tuple(means)
    low, high = (0.0, 255.0) if norm.bands is None else norm.bands.whole_range
    nearest = tuple(int(min(high, max(low, round(value)))) for value in means)
    return nearest if norm.color_order == "RGB" else nearest[::-1]


def _stored(crf: CRFParams | DenseCRF | None) -> dict[str, Any]:
    if isinstance(crf, DenseCRF):
        return crf_to_stored(crf)
    return (crf or CRFParams.deeplab_v2_resnet()).to_dict()


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model beyond its graph, for the manifest.

    Attributes:
        align_corners: rule by which the training upsampled the logits.
        crf: parameters for `crf=True`, or a dense CRF with its iterations; None for DeepLab v2's.
        license: license of the weights.
        threshold: threshold of a network with one channel; None for 0.5, and for other networks.
    """

    classes: tuple[ClassInfo, ...]
    size: Size | DynamicSize
    preprocessing: Preprocessing
    align_corners: bool
    crf: CRFParams | DenseCRF | None
    license: str | None
    threshold: float | None = None

    def draft_manifest(self, path: Path, answer: Answer) -> Manifest:
        """Draft a manifest without artifacts from the logits [N, C, h, w] that the network answers.

        Args:
            path: path of the bundle.
            answer: runs the network on one image of a size.

        Raises:
            ExportError: the channels do not fit the classes or the threshold, the logits have no consistent stride, or
                the network does not take the sizes.
            AtrousError: what `answer` raises.
        """
        found: list[Channels] = []
        sizes, stride = find_size_policy(
            self.size, answer, check=lambda coarse: found.append(channels_of(coarse, self.classes, self.threshold))
        )
        channels = found[0]
        return Manifest(
            name=path.stem,
            created_by=f"atrous {__version__}",
            classes=self.classes,
            input=self.preprocessing.input_spec(sizes),
            output=OutputSpec(stride=stride, align_corners=self.align_corners, channels=channels),
            crf=_stored(self.crf),
            ignore_index=_void(len(self.classes)),
            license=self.license,
        )
