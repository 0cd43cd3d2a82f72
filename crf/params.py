"""Parameters of the dense CRF: its two Gaussian kernels, its unaries, and how it stores its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from numbers import Real
from typing import Any, Final, Literal, TypeAlias

from ..arguments import check_arguments, describe
from ..errors import CRFError

#: Storage of the values on the lattice and of Q between updates: single precision, or 16-bit fractions of 1.
Storage: TypeAlias = Literal["fp32", "unorm16"]

#: Side of a filter on which values are divided by its response to ones.
Normalization: TypeAlias = Literal["none", "before", "after", "symmetric"]

#: Far beyond where mean field has settled.
MAX_ITERATIONS: Final = 1_000_000

#: Beyond these, labels are those of the network, or of the colours alone. As in runtime/cpp/src/crf_params.cpp.
_MIN_TEMPERATURE: Final = 1e-3
_MAX_TEMPERATURE: Final = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class CRFParams:
    """Weights and standard deviations of the pairwise potential, and temperature of the unary one.

    The pairwise potential of pixels i and j with different labels is (Krähenbühl & Koltun 2011, eq. 3; DeepLab,
    arXiv 1606.00915, eq. 3)

        w_b · exp(−|p_i − p_j|² / 2σ_xy² − |I_i − I_j|² / 2σ_rgb²) + w_g · exp(−|p_i − p_j|² / 2σ_γ²).

    The unary potential of a class with probability p is −log(p) / T. Networks are often surer than they are right, and
    a temperature T above 1 leaves the pairwise potential more to say (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Args:
        bilateral_weight: w_b of the appearance kernel; 0 disables it.
        bilateral_sigma_xy_px: σ_xy in pixels.
        bilateral_sigma_rgb: σ_rgb in units of 0…255.
        gaussian_weight: w_g of the smoothness kernel; 0 disables it.
        gaussian_sigma_xy_px: σ_γ in pixels.
        unary_temperature: T; 1 takes the probabilities as they are.

    Raises:
        CRFError: a standard deviation is not positive and finite, a weight is not finite, or the temperature is not
            between 0.001 and 1000.
    """

    bilateral_weight: float
    bilateral_sigma_xy_px: float
    bilateral_sigma_rgb: float
    gaussian_weight: float
    gaussian_sigma_xy_px: float
    unary_temperature: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value = each.name, getattr(self, each.name)
            number = finite_number(value)
            if number is None:
                raise CRFError(f"CRF parameter {name} must be a finite number, got {describe(value)}")
            if "sigma" in name and number <= 0:
                raise CRFError(
                    f"CRF parameter {name} is a standard deviation and must be positive, got {describe(value)}; "
                    "to disable a kernel, set its weight to 0"
                )
            if name == "unary_temperature" and not _MIN_TEMPERATURE <= number <= _MAX_TEMPERATURE:
                raise CRFError(
                    f"CRF parameter {name} divides the unaries and must be {_MIN_TEMPERATURE:g} to "
                    f"{_MAX_TEMPERATURE:g}, got {describe(value)}; 1 takes the probabilities as they are"
                )
            object.__setattr__(self, name, number)

    @classmethod
    def deeplab_v2_resnet(cls) -> CRFParams:
        """DeepLab v2 on ResNet-101: bilateral 4 / 67 px / 3, Gaussian 3 / 1 px.

        Source: the configuration of kazuto1011/deeplab-pytorch, which reports PASCAL VOC val mIoU 76.65 → 77.93.
        """
        return cls(
            bilateral_weight=4.0,
            bilateral_sigma_xy_px=67.0,
            bilateral_sigma_rgb=3.0,
            gaussian_weight=3.0,
            gaussian_sigma_xy_px=1.0,
        )

    @classmethod
    def deeplab_v2_vgg(cls) -> CRFParams:
        """Bilateral 4 / 121 px / 5, Gaussian 3 / 3 px.

        Commonly quoted for DeepLab on VGG-16; no primary source is known for it. Tune before relying on it.
        """
        return cls(
            bilateral_weight=4.0,
            bilateral_sigma_xy_px=121.0,
            bilateral_sigma_rgb=5.0,
            gaussian_weight=3.0,
            gaussian_sigma_xy_px=3.0,
        )

    @classmethod
    def pydensecrf_readme(cls) -> CRFParams:
        """Bilateral 10 / 80 px / 13, Gaussian 3 / 3 px: the example in pydensecrf's README, for comparing with it.

        Strong: it lowered the mean IoU on two of four images where it was tried.
        """
        return cls(
            bilateral_weight=10.0,
            bilateral_sigma_xy_px=80.0,
            bilateral_sigma_rgb=13.0,
            gaussian_weight=3.0,
            gaussian_sigma_xy_px=3.0,
        )

    def to_dict(self) -> dict[str, float]:
        """Parameters by name, for a bundle's manifest."""
        return asdict(self)

    @classmethod
    @check_arguments
    def from_dict(cls, values: Mapping[str, float]) -> CRFParams:
        """Inverse of `to_dict`.

        Raises:
            CRFError: a parameter without a default is missing, or one is unknown or invalid.
        """
        names = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if missing := sorted(required - set(values)):
            raise CRFError(f"missing CRF parameters: {', '.join(missing)}; required are {', '.join(sorted(required))}")
        if unknown := sorted(map(str, set(values) - names)):
            raise CRFError(f"unknown CRF parameters: {', '.join(unknown)}; known are {', '.join(sorted(names))}")
        return cls(**values)


def finite_number(value: Any) -> float | None:  # noqa: ANN401 - whatever a user takes for a number
    """A real number, NumPy's included, as Python's float; None if it is none, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
