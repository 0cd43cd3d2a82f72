"""Records in a bundle of what was compared and measured when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verification:
        """Convert from validated JSON."""
        inputs, failed = (tuple(map(tuple, data.get(field, ()))) for field in ("inputs", "failed"))
        skipped = tuple(SkippedInput(tuple(each["input"]), each["reason"]) for each in data.get("skipped", ()))
        pictures = tuple(data.get("pictures", ()))
        return cls(**{**data, "inputs": inputs, "pictures": pictures, "skipped": skipped, "failed": failed})
