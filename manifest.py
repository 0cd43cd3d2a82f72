"""Manifest of a bundle: everything that a runtime needs to compute labels from an image.

Frozen dataclasses mirror `manifest.schema.json` field by field. `manifest_schema.py` validates the text of a manifest;
this module converts between validated text and values.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from .bands import Bands as Bands
from .bands import bands_from_dict
from .errors import BundleError
from .evidence import CrfFit as CrfFit
from .evidence import PaddingCost as PaddingCost
from .evidence import SkippedInput as SkippedInput
from .evidence import Tuning as Tuning
from .evidence import Verification as Verification
from .manifest_schema import SCHEMA_VERSION, validated

#: (height, width) in pixels.
Size = tuple[int, int]
GraphPrecision = Literal["fp32", "fp16", "int8"]
Precision = Literal[GraphPrecision, "bf16"]
ArtifactKind = Literal["onnx", "engine", "standalone", "tuned"]
ResizePolicy = Literal["none", "stretch", "letterbox"]
Activation = Literal["softmax", "sigmoid"]
HardwareCompatibility = Literal["none", "same-compute-capability", "ampere+"]
#: [N, bands, H, W].
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class ClassInfo:
    """One class: `id` is its value in the labels and its channel in the probabilities; `color` is RGB, 0–255."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class SizePolicy:
    """Input sizes (height, width) that the graph takes; `min == opt == max` is a fixed size.

    Attributes:
        multiple: sizes are k · multiple + offset, which the network maps to whole cells.
        offset: 1 for networks that put logits on pixels 0, s, 2s … (321 = 8·40 + 1), otherwise 0.
    """

    min: Size
    opt: Size
    max: Size
    multiple: int
    offset: int = 0

    def __post_init__(self) -> None:
        for axis in (0, 1):
            if not self.min[axis] <= self.opt[axis] <= self.max[axis]:
                raise BundleError(f"input sizes must be min ≤ opt ≤ max; got {self.min}, {self.opt}, {self.max}")

    @property
    def is_fixed(self) -> bool:
        """True if there is only one size."""
        return self.min == self.max


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing of an image: `(pixel * scale - mean) / std`, channels in `color_order`.

    Attributes:
        mean: mean per channel after scaling, in the order of `color_order`.
        std: standard deviation per channel after scaling, in the order of `color_order`.
        scale: factor of the pixels, 0–255 of RGB; 1/255 for the usual ImageNet constants.
        size: input sizes of the graph.
        resize: `none` pads at the bottom and right with `pad_value`, and tiles images above the maximum size;
            `stretch` resizes the image to `size.opt`; `letterbox` keeps its aspect ratio, and pads it on both sides.
        pad_value: RGB, 0–255; of bands a value of each.
        dynamic_batch: whether the graph takes batches; None in bundles before 1.1, whose graphs of one size do not.
        padding: cost of padding to the multiple; None where nothing is padded, or it could not be measured.
        bands: bands of the images, in whose order `mean`, `std` and `pad_value` are; None for RGB in bytes.
    """

    size: SizePolicy
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    resize: ResizePolicy = "none"
    pad_value: tuple[float, ...] = (124, 116, 104)
    dynamic_batch: bool | None = None
    padding: PaddingCost | None = None
    bands: Bands | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == len(self.pad_value) == self.channels:
            raise BundleError(
                f"{self.channels} channels have as many means, standard deviations and values of padding; got "
                f"{len(self.mean)}, {len(self.std)} and {len(self.pad_value)}"
            )

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return 3 if self.bands is None else len(self.bands.names)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel of an image."""
        return 3 if self.bands is None else self.bands.pixel_bytes

    @property
    def takes_batches(self) -> bool:
        """True if the graph takes more than one image at once."""
        return not self.size.is_fixed if self.dynamic_batch is None else self.dynamic_batch

    def within(self, profile: EngineProfile) -> InputSpec:
        """Restrict the sizes to those of an engine's profile; raises `BundleError` if none is left."""
        low, high = (tuple(shape[2:]) for shape in (profile.min, profile.max))
        size = self.size
        smallest = (max(size.min[0], low[0]), max(size.min[1], low[1]))
        largest = (min(size.max[0], high[0]), min(size.max[1], high[1]))
        best = (min(max(size.opt[0], smallest[0]), largest[0]), min(max(size.opt[1], smallest[1]), largest[1]))
        policy = SizePolicy(smallest, best, largest, size.multiple, size.offset)
        return dataclasses.replace(self, size=policy)


@dataclass(frozen=True)
class Channels:
    """Meaning of the channels of the logits.

    Attributes:
        activation: `softmax` makes probabilities of one channel a class. `sigmoid` makes the probability p of class 1
            of the only channel; class 0 is everything else, with 1 − p.
        threshold: with `sigmoid`, labels are 1 where p is above it, and 0 elsewhere. With `softmax`, None.
    """

    activation: Activation = "softmax"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.activation == "softmax" and self.threshold is not None:
            raise BundleError(f"a threshold needs activation 'sigmoid'; got {self.threshold} with 'softmax'")
        if self.activation == "sigmoid" and not (self.threshold is not None and 0 < self.threshold < 1):
            raise BundleError(f"the threshold of a sigmoid must be between 0 and 1, exclusive; got {self.threshold}")


SOFTMAX: Final = Channels()


@dataclass(frozen=True)
class OutputSpec:
    """Output of the graph: coarse logits [N, channels, h, w] at `stride`, upsampled with `align_corners`."""

    stride: int
    align_corners: bool = False
    head: Literal["logits"] = "logits"
    channels: Channels = SOFTMAX


@dataclass(frozen=True)
class EngineProfile:
    """Input shapes [N, bands, H, W] of an engine: each axis from `min` to `max`, fastest at `opt`."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        if not all(low <= mid <= high for low, mid, high in zip(self.min, self.opt, self.max, strict=True)):
            raise BundleError(f"an engine's shapes must be min ≤ opt ≤ max; got {self.min}, {self.opt}, {self.max}")

    def takes(self, shape: Sequence[int]) -> bool:
        """True if the profile contains this input shape [N, bands, H, W]."""
        return len(shape) == len(self.min) and all(
            low <= length <= high for low, length, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True)
class EngineIdentity:
    """Environment that an engine was built for; it is deserialized only if all of it matches.

    Attributes:
        version: full version of the TensorRT that built it.
        compute_capability: compute capability of the target GPU, e.g. `8.9`.
        cuda: CUDA version that TensorRT was built for, e.g. `13`.
        driver: newest CUDA version of the driver that it was built with, e.g. `13.0`; None if built without a GPU.
        hardware_compatibility: other GPUs that can run it: none, those of the same compute capability (otherwise an
            engine may use features of one GPU model), or all from Ampere on.
        version_compatible: later TensorRT of the same major version can run it; the engine contains code.
    """

    flavor: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    compute_capability: str
    cuda: str | None = None
    driver: str | None = None
    profile: EngineProfile | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False


@dataclass(frozen=True)
class Artifact:
    """One file that computes the network.

    Attributes:
        kind: `onnx` and `engine` give coarse logits and are what the runtime loads; `standalone` is an ONNX graph
            that ends in probabilities or labels, for use without this runtime; `tuned` is an ONNX graph that the
            runtime loads in place of the `onnx` one which it was rewritten from, where `tuned_for` fits.
        precision: that of the graph; `bf16` is the FP32 graph as a CPU with bfloat16 runs it.
        file: POSIX path relative to the bundle.
        sha256: lower-case hex digest of the file.
        provenance: exporter, opset, versions and options with which it was made.
    """

    kind: ArtifactKind
    precision: Precision
    file: str
    sha256: str
    bytes: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    engine: EngineIdentity | None = None
    tuned_for: Tuning | None = None


@dataclass(frozen=True)
class Manifest:
    """Content of `manifest.json`.

    Attributes:
        crf: parameters of the dense CRF, as `atrous.crf.CRFParams.to_dict` returns them, `iterations` (1.1), 10 where
            absent, and `compatibility` (1.1), as `atrous.crf.Compatibility.to_dict` returns it.
        crf_fit: what they were fitted on (1.1); None where nobody fitted them.
        license: license of the weights, or None.
    """

    name: str
    created_by: str
    classes: tuple[ClassInfo, ...]
    input: InputSpec
    output: OutputSpec
    artifacts: tuple[Artifact, ...] = ()
    verification: tuple[Verification, ...] = ()
    ignore_index: int | None = 255
    crf: Mapping[str, Any] | None = None
    crf_fit: CrfFit | None = None
    license: str | None = None
    schema_version: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        ids = [entry.id for entry in self.classes]
        if ids != list(range(len(ids))):
            raise BundleError(f"class ids must be 0…{len(ids) - 1}, the channels of the logits; got {ids}")
        if self.output.channels.activation == "sigmoid" and len(ids) != 2:
            raise BundleError(f"a sigmoid has two classes, 0 for what it is not and 1 for what it is; got {len(ids)}")

    @property
    def logits_channels(self) -> int:
        """Number of channels of the logits.

        Raises:
            BundleError: one class under a softmax: its probability would be 1 everywhere.
        """
        if self.output.channels.activation == "sigmoid":
            return 1
        if len(self.classes) == 1:
            raise BundleError(
                f"{self.name!r} has one channel and one class, {self.classes[0].name!r}: a softmax over one channel is "
                "1 everywhere, so every label would be 0. Export or pack the network again with two classes, what it "
                f"is not and what it is: classes=['background', {self.classes[0].name!r}]"
            )
        return len(self.classes)

    def to_json(self) -> str:
        """Text of `manifest.json`, without optional fields that are None."""
        return json.dumps(_without_none(dataclasses.asdict(self)), indent=2, ensure_ascii=False) + "\n"

    def with_artifact(self, artifact: Artifact, *verification: Verification) -> Manifest:
        """Copy with an artifact and its comparisons added, replacing those of the same file.

        Engines and tuned graphs made from a replaced graph are removed with their comparisons: their graph is gone.
        """
        gone = {entry.file for entry in self.artifacts if entry.file == artifact.file}
        replaced = {entry.sha256 for entry in self.artifacts if entry.file in gone} - {artifact.sha256}
        derived = (entry for entry in self.artifacts if entry.kind in ("engine", "tuned"))
        gone |= {entry.file for entry in derived if entry.provenance.get("from") in replaced}
        rest = self.without(artifact.file, *gone)
        artifacts, checks = (*rest.artifacts, artifact), (*rest.verification, *verification)
        return dataclasses.replace(self, artifacts=artifacts, verification=checks)

    def without(self, *files: str) -> Manifest:
        """Copy without the artifacts of these files and their comparisons."""
        others = tuple(entry for entry in self.artifacts if entry.file not in files)
        # A comparison may name the backend too: "model.fp16.onnx in openvino (CPU)".
        checks = tuple(check for check in self.verification if not check.artifact.startswith(files))
        return dataclasses.replace(self, artifacts=others, verification=checks)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and validate the text of a `manifest.json`.

        Raises:
            BundleError: not JSON, another major version, or a violation of the schema (with its location).
        """
        return _manifest_from_dict(validated(text))


def _manifest_from_dict(data: Mapping[str, Any]) -> Manifest:
    source = data["input"]
    size = source["size"]
    return Manifest(
        schema_version=data["schema_version"],
        name=data["name"],
        created_by=data["created_by"],
        classes=tuple(ClassInfo(entry["id"], entry["name"], _triple(entry["color"])) for entry in data["classes"]),
        input=InputSpec(
            size=SizePolicy(
                _pair(size["min"]), _pair(size["opt"]), _pair(size["max"]), size["multiple"], size["offset"]
            ),
            color_order=source["color_order"],
            mean=tuple(source["mean"]),
            std=tuple(source["std"]),
            scale=source["scale"],
            resize=source["resize"],
            pad_value=tuple(source["pad_value"]),
            bands=bands_from_dict(source["bands"]) if "bands" in source else None,
            dynamic_batch=source.get("dynamic_batch"),
            padding=PaddingCost.from_dict(source["padding"]) if "padding" in source else None,
        ),
        output=OutputSpec(**{**data["output"], "channels": Channels(**data["output"].get("channels", {}))}),
        artifacts=tuple(_artifact_from_dict(entry) for entry in data["artifacts"]),
        verification=tuple(Verification.from_dict(entry) for entry in data["verification"]),
        ignore_index=data.get("ignore_index"),
        crf=data.get("crf"),
        crf_fit=CrfFit.from_dict(data["crf_fit"]) if "crf_fit" in data else None,
        license=data.get("license"),
    )


def _artifact_from_dict(data: Mapping[str, Any]) -> Artifact:
    parts = {"engine": _engine_from_dict, "tuned_for": Tuning.from_dict}
    return Artifact(**{**data, **{name: read(data[name]) for name, read in parts.items() if name in data}})


def _engine_from_dict(data: Mapping[str, Any]) -> EngineIdentity:
    profile = data.get("profile")
    shapes = None if profile is None else EngineProfile(**{key: tuple(shape) for key, shape in profile.items()})
    return EngineIdentity(**{**data, "profile": shapes})


def _pair(values: list[int]) -> Size:
    return values[0], values[1]


def _triple(values: list[Any]) -> tuple[Any, Any, Any]:
    return values[0], values[1], values[2]


def _without_none(value: Any) -> Any:  # noqa: ANN401 - JSON values are what they are
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(entry) for entry in value]
    return value
