"""Options of `tune`; light, so that the command line can import them."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from ...arguments import check_fields
from ...errors import CRFError
from ...runtime.mask_rules import MaskRules

#: What the search makes large: mean IoU, the mean F-score of the classes' boundaries, or mean IoU near edges.
Metric = Literal["miou", "boundary-f", "trimap"]

DEFAULT_METRIC: Final[Metric] = "miou"
#: As many as the paper searches on.
DEFAULT_MAX_IMAGES: Final = 100
DEFAULT_HOLDOUT: Final = 0.25
DEFAULT_NO_HARM: Final = 0.5
#: Width of the trimap, to each side of an edge.
TRIMAP_PX: Final = 10
_CACHE_BYTES: Final = 4 << 30


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of a search that are seldom needed.

    Attributes:
        ignore: ids of masks that are void, besides the bundle's own.
        mask_rules: how masks are called and what their pixels mean; `NAME.png` of class ids by default.
        max_images: the most images to use, held-out ones included; more are thinned out at random.
        seed: random seed for choosing the images, and those that are held out.
        gaussian: search the weight and the standard deviation of the smoothness kernel as well.
        learn: then learn weights of classes, costs of their pairs and the temperature by gradient.
        write_anyway: change the bundle even where the parameters are no better on the held-out images.
        work: folder with what an interrupted search goes on from; `NAME.tune` beside the bundle by default. It is
            removed when the search has ended.
        cache_bytes: the most that logits may take there; images beyond go through the network whenever they are used.

    Raises:
        ArgumentError: a value has the wrong type.
        CRFError: `max_images` or `cache_bytes` is too small.
    """

    ignore: Collection[int] = ()
    mask_rules: MaskRules | None = None
    max_images: int = DEFAULT_MAX_IMAGES
    seed: int = 0
    gaussian: bool = False
    learn: bool = False
    write_anyway: bool = False
    work: str | os.PathLike[str] | None = None
    cache_bytes: int = _CACHE_BYTES

    def __post_init__(self) -> None:
        check_fields(self)
        # NumPy's integers too: the sample is drawn by Python's generator, which takes none.
        object.__setattr__(self, "max_images", operator.index(self.max_images))
        object.__setattr__(self, "seed", operator.index(self.seed))
        if self.max_images < 2:
            raise CRFError(f"max_images must be 2 or more, one to search on and one to hold out; got {self.max_images}")
        if self.cache_bytes < 0:
            raise CRFError(f"cache_bytes must be 0 or more; got {self.cache_bytes}")
