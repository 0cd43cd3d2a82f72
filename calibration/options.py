"""Options of `quantize`; light, so that the command line can import them."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from ..arguments import check_fields
from ..runtime.mask_rules import MaskRules

#: How the range of an activation is chosen from what was seen of it.
Method = Literal["minmax", "percentile", "entropy", "mse"]

DEFAULT_METHOD: Final[Method] = "mse"
DEFAULT_MAX_IMAGES: Final = 128


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Options of a quantization that are seldom needed.

    Attributes:
        ignore: ids of masks that are void, besides the bundle's own.
        mask_rules: how masks are called and what their pixels mean; `NAME.png` of class ids by default.
        max_images: the most images to use; more are thinned out at random.
        calibration: file to take the ranges from, which must be of this model, these images and this method.
        seed: random seed for choosing the images.
    """

    ignore: Collection[int] = ()
    mask_rules: MaskRules | None = None
    max_images: int = DEFAULT_MAX_IMAGES
    calibration: str | os.PathLike[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        # NumPy's integers too: the sample is drawn by Python's generator, which takes none.
        object.__setattr__(self, "max_images", operator.index(self.max_images))
        object.__setattr__(self, "seed", operator.index(self.seed))
