"""Records in a bundle of what was compared and measured when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PaddingCost:
    """Labels that padding to a multiple changes, measured when the bundle was made.

    Attributes:
        agreement: share of pixels whose label is that of the network on the unpadded image, 0–1, over all images.
        sizes: sizes of the images, none of them on the grid.
    """

    agreement: float
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PaddingCost:
        """Convert from validated JSON."""
        return cls(data["agreement"], tuple((height, width) for height, width in data["sizes"]))


@dataclass(frozen=True)
class SkippedInput:
    """An input that a comparison was to run and did not.

    Attributes:
        input: its shape [N, C, H, W].
        reason: what stood against it: memory, or time.
    """

    input: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Verification:
    """Result of one comparison of `artifact` with a reference on the same inputs.

    Attributes:
        against: the reference, e.g. `torch 2.13.0`.
        max_abs: largest absolute difference of the outputs.
        argmax_agreement: share of positions with the same class, 0–1.
        inputs: shapes [N, C, H, W] of the inputs.
        miou_delta: mean IoU of the artifact minus the reference's; None without masks.
        pictures: what each of the inputs showed: `photo` (natural, synthetic), `noise`, or `given` by a user.
        skipped: inputs that belong to the claim and were not run.
        failed: those of the inputs whose outputs differ beyond the tolerance, or cannot be compared.
        cpu: kind of CPU that the comparison holds for; None for all.
    """

    artifact: str
    against: str
    max_abs: float
    argmax_agreement: float
    passed: bool
    inputs: tuple[tuple[int, ...], ...] = ()
    miou_delta: float | None = None
    pictures: tuple[str, ...] = ()
    skipped: tuple[SkippedInput, ...] = ()
    failed: tuple[tuple[int, ...], ...] = ()
    cpu: CpuKind | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verification:
        """Convert from validated JSON."""
        inputs, failed = (tuple(map(tuple, data.get(field, ()))) for field in ("inputs", "failed"))
        skipped = tuple(SkippedInput(tuple(each["input"]), each["reason"]) for each in data.get("skipped", ()))
        lists = {"inputs": inputs, "pictures": tuple(data.get("pictures", ())), "skipped": skipped, "failed": failed}
        cpu = CpuKind.from_dict(data["cpu"]) if "cpu" in data else None
        return cls(**{**data, **lists, "cpu": cpu})


@dataclass(frozen=True)
class CrfFit:
    """Origin of the parameters of a bundle's dense CRF, and their worth on images that the search did not see.

    Attributes:
        metric: `miou`, `boundary-f` or `trimap`, in which the scores are, 0–1.
        images: number of images that were searched on.
        held_out: number of other images, on which the scores are.
        data_sha256: hash of the images and masks, in order.
        model_sha256: hash of the graph that made the probabilities.
        seed: random seed of the choice of images and of the split.
        no_harm: points of IoU that a class may lose against no CRF.
        score_without: score without a CRF.
        score_before: score with the parameters that the bundle had before.
        score_after: score with those that were found.
        gain_interval: 95 % bootstrap interval of `score_after` − `score_without` over the held-out images.
    """

    metric: str
    images: int
    held_out: int
    data_sha256: str
    model_sha256: str
    seed: int
    no_harm: float
    score_without: float
    score_before: float
    score_after: float
    gain_interval: tuple[float, float]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrfFit:
        """Convert from validated JSON."""
        low, high = data["gain_interval"]
        return cls(**{**data, "gain_interval": (low, high)})


@dataclass(frozen=True)
class CpuKind:
    """Kind of CPU that a measurement holds for.

    Attributes:
        name: brand, family and model.
        flags: instruction sets that matter to networks, named as Linux names them.
    """

    name: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(self.flags)})" if self.flags else self.name

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CpuKind:
        """Convert from validated JSON."""
        return cls(data["name"], tuple(data["flags"]))


@dataclass(frozen=True)
class TunedLayer:
    """One atrous convolution of a tuned graph.

    Attributes:
        name: name of its node in the canonical graph.
        form: `dilated`, `deinterlaced` or `taps`: how the tuned graph writes it.
        ms: median milliseconds of the layer alone, by form.
    """

    name: str
    form: str
    ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """Measurement of a tuned graph: where, and its times.

    Attributes:
        backend: name of the backend.
        version: version of its library.
        cpu: kind of CPU.
        threads: CPU threads of one inference.
        input: shape [N, 3, H, W] of the images.
        layers: every atrous convolution.
        canonical_ms: median milliseconds of the whole canonical graph, timed in turns with the tuned one.
        tuned_ms: those of the tuned graph.
    """

    backend: str
    version: str
    cpu: CpuKind
    threads: int
    input: tuple[int, ...]
    layers: tuple[TunedLayer, ...]
    canonical_ms: float
    tuned_ms: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tuning:
        """Convert from validated JSON."""
        layers = tuple(TunedLayer(each["name"], each["form"], each["ms"]) for each in data["layers"])
        cpu = CpuKind.from_dict(data["cpu"])
        return cls(**{**data, "cpu": cpu, "input": tuple(data["input"]), "layers": layers})
