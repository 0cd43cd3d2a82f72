"""A dense CRF as bundles and files store it: its parameters by name, and how many iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..arguments import describe
from ..errors import CRFError
from .dense_crf import DenseCRF
from .params import CRFParams

#: Mean-field updates where nothing else is said.
DEFAULT_ITERATIONS: Final = 10
_ITERATIONS: Final = "iterations"


def stored_crf(params: CRFParams, iterations: int) -> dict[str, float]:
    """Parameters and iterations as a manifest stores them; the inverse of `crf_from_stored`."""
    return {**params.to_dict(), _ITERATIONS: iterations}


def crf_from_stored(values: Mapping[str, Any], *, threads: int = 0, class_floor: float = 0.0) -> DenseCRF:
    """Make the dense CRF that a manifest or a file describes.

    Args:
        values: what `CRFParams.to_dict` returns and, if wanted, `iterations`; DeepLab v2's parameters where empty.
        threads: CPU threads; 0 uses all cores.
        class_floor: as in `DenseCRF`.

    Raises:
        CRFError: a parameter is missing, unknown or invalid, or `class_floor` is unusable.
    """
    rest = dict(values)
    iterations = rest.pop(_ITERATIONS, DEFAULT_ITERATIONS)
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise CRFError(f"{_ITERATIONS} must be a whole number, got {describe(iterations)}")
    params = CRFParams.from_dict(rest) if rest else CRFParams.deeplab_v2_resnet()
    return DenseCRF(params, iterations=iterations, threads=threads, class_floor=class_floor)
