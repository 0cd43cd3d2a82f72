"""Description of a model in what its graph does not show: classes, input sizes and preprocessing, from the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._version import __version__
from ..arguments import check_arguments, check_fields
from ..crf import CRFParams
from ..manifest import Channels, ClassInfo, InputSpec, Manifest, OutputSpec, ResizePolicy, Size, SizePolicy
from .channels import channels_of
from .normalization import IMAGENET, Normalization
from .size_probe import Answer, find_size_policy
from .sizes import DynamicSize


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for the network; the default normalisation is torchvision's for ImageNet.

    Attributes:
        resize: `none` pads and tiles, `stretch` resizes every image to the one (or optimal) size, `letterbox` to the
            largest of its own aspect ratio within it, and pads the rest.
        pad_value: RGB, 0–255; None for the mean colour, so that padding is 0 after normalisation.
    """

    normalization: Normalization = IMAGENET
    resize: ResizePolicy = "none"
    pad_value: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @check_arguments
    def input_spec(self, size: SizePolicy) -> InputSpec:
        """Convert to the manifest's form."""
        norm, pad_value = self.normalization, self.pad_value
        if pad_value is None:
            first, second, third = (min(255, max(0, round(value / norm.scale))) for value in norm.mean)
            pad_value = (first, second, third) if norm.color_order == "RGB" else (third, second, first)
        return InputSpec(
            size=size,
            color_order=norm.color_order,
            mean=norm.mean,
            std=norm.std,
            scale=norm.scale,
            resize=self.resize,
            pad_value=pad_value,
        )


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model beyond its graph, for the manifest.

    Attributes:
        align_corners: rule by which the training upsampled the logits.
        crf: CRF parameters for `crf=True`; None for DeepLab v2's.
        license: license of the weights.
        threshold: threshold of a network with one channel; None for 0.5, and for other networks.
    """

    classes: tuple[ClassInfo, ...]
    size: Size | DynamicSize
    preprocessing: Preprocessing
    align_corners: bool
    crf: CRFParams | None
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
            crf=(self.crf or CRFParams.deeplab_v2_resnet()).to_dict(),
            license=self.license,
        )
