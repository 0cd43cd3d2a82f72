"""A dense CRF as bundles and files store it: its parameters by name, and how many iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..arguments import describe
from ..errors import CRFError
from .compatibility import Compatibility
from .dense_crf import DenseCRF
from .params import CRFParams

#: Mean-field updates where nothing else is said.
DEFAULT_ITERATIONS: Final = 10
_ITERATIONS: Final = "iterations"
_COMPATIBILITY: Final = "compatibility"


def stored_crf(params: CRFParams, iterations: int, compatibility: Compatibility | None = None) -> dict[str, Any]:
    """Describe a CRF for a manifest; the inverse of `crf_from_stored`."""
    learned = {} if compatibility is None else {_COMPATIBILITY: compatibility.to_dict()}
    return {**params.to_dict(), _ITERATIONS: iterations, **learned}


def crf_to_stored(crf: DenseCRF) -> dict[str, Any]:
    """Describe a CRF for a manifest, with what it has learned of its classes; `crf_from_stored` makes it again."""
    return stored_crf(crf.params, crf.iterations, crf.compatibility)


def crf_from_stored(values: Mapping[str, Any], *, threads: int = 0, class_floor: float = 0.0) -> DenseCRF:
    """Make the dense CRF that a manifest or a file describes.

    Args:
        values: what `CRFParams.to_dict` returns and, if wanted, `iterations` and `compatibility`, which is what
            `Compatibility.to_dict` returns; DeepLab v2's parameters where empty.
        threads: CPU threads; 0 uses all cores.
        class_floor: as in `DenseCRF`.

    Raises:
        CRFError: a parameter is missing, unknown or invalid, or `class_floor` is unusable.
    """
    rest = dict(values)
    iterations = rest.pop(_ITERATIONS, DEFAULT_ITERATIONS)
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise CRFError(f"{_ITERATIONS} must be a whole number, got {describe(iterations)}")
    learned = rest.pop(_COMPATIBILITY, None)
    if learned is not None and not isinstance(learned, Mapping):
        raise CRFError(f"{_COMPATIBILITY} must hold bilateral, gaussian and matrix, got {describe(learned)}")
    params = CRFParams.from_dict(rest) if rest else CRFParams.deeplab_v2_resnet()
    compatibility = None if learned is None else Compatibility.from_dict(learned)
    return DenseCRF(
        params, iterations=iterations, threads=threads, class_floor=class_floor, compatibility=compatibility
    )
