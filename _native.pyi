# The compiled core. Callers go through `atrous.crf` and `atrous.runtime`, which check values and word the errors.

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Triple: TypeAlias = tuple[float, float, float] | NDArray[np.float32] | NDArray[np.uint8]
_Normalization: TypeAlias = Literal["none", "before", "after", "symmetric"]

# A normalised Gaussian kernel over pixels; building it again reuses its memory.
class Filter:
    def __init__(self) -> None: ...
    def build_gaussian(
        self,
        height: int,
        width: int,
        sigma_xy_px: tuple[float, float],
        normalization: _Normalization = "symmetric",
        threads: int = 0,
    ) -> None: ...
    def build_bilateral(
        self,
        image: NDArray[np.uint8],
        sigma_xy_px: tuple[float, float],
        sigma_rgb: tuple[float, float, float],
        normalization: _Normalization = "symmetric",
        threads: int = 0,
    ) -> None: ...
    def build_from_features(
        self, features: NDArray[np.float32], normalization: _Normalization = "symmetric", threads: int = 0
    ) -> None: ...
    @property
    def pixels(self) -> int: ...
    @property
    def vertices(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

# Mean-field state of one CRF; for one thread at a time.
class MeanField:
    def __init__(self, pixels: int, channels: int, threads: int = 0) -> None: ...
    def set_unary(self, unary: NDArray[np.float32]) -> bool: ...
    def set_unary_from_probabilities(self, probabilities: NDArray[np.float32], floor: float) -> bool: ...
    def add_term(self, filter: Filter, compatibility: NDArray[np.float32]) -> None: ...  # noqa: A002
    def start(self) -> None: ...
    def run(self, steps: int) -> None: ...
    def marginals(self) -> NDArray[np.float32]: ...
    def set_marginals(self, marginals: NDArray[np.float32]) -> bool: ...
    def labels(self) -> NDArray[np.uint8]: ...
    def kl_divergence(self) -> float: ...

def isa() -> Literal["baseline", "avx2", "avx512"]: ...
def all_finite(values: NDArray[np.float32]) -> bool: ...
def upsample_labels(
    logits: NDArray[np.float32],
    full_size: tuple[int, int],
    out_size: tuple[int, int],
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.uint8]: ...
def upsample_logits(
    logits: NDArray[np.float32],
    full_size: tuple[int, int],
    out_size: tuple[int, int],
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.float32]: ...
def upsample_probabilities(
    logits: NDArray[np.float32],
    full_size: tuple[int, int],
    out_size: tuple[int, int],
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.float32]: ...
def normalize_image(
    image: NDArray[np.uint8],
    mean: _Triple,
    std: _Triple,
    swap_rgb: bool,
    out_height: int,
    out_width: int,
    pad_value: _Triple,
    threads: int = 0,
) -> NDArray[np.float32]: ...
def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: float, threads: int = 0
) -> NDArray[np.uint8]: ...
