"""Options of the dense CRF, and how they become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import Bundle
from ..errors import CRFError

if TYPE_CHECKING:
    from ..crf import DenseCRF

CrfParamsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Refine with the dense CRF with the parameters in this JSON file, those of CRFParams, and iterations.",
    ),
]


ClassFloorOption = Annotated[
    float,
    typer.Option(
        metavar="P",
        help="Leave classes whose probability is nowhere P, 0 to 0.01, out of the CRF on the CPU: it saves their time.",
    ),
]


def chosen_crf(bundle: Path, params: Path | None, *, crf: bool, class_floor: float, threads: int) -> bool | DenseCRF:
    """The CRF that --crf, --crf-params and --crf-class-floor ask for: the bundle's, one of a file, or none.

    Raises:
        BundleError: the bundle cannot be opened.
        CRFError: parameters cannot be read or are unusable, or there is a floor and no CRF.
    """
    if params is not None:
        return read_crf(params, class_floor=class_floor, threads=threads)
    if class_floor == 0:
        return crf
    if not crf:
        raise CRFError("--crf-class-floor is about the dense CRF, which is off: add --crf")
    from ..runtime.segmenter import bundle_crf

    return bundle_crf(Bundle.open(bundle), class_floor=class_floor, threads=threads)


def read_crf(path: Path, *, class_floor: float, threads: int) -> DenseCRF:
    """Read a CRF from JSON: what `CRFParams.to_dict` returns, and optionally `iterations`.

    Raises:
        CRFError: the file cannot be read, or a parameter is missing, unknown or invalid.
    """
    from ..crf import CRFParams
    from ..crf.stored import crf_from_stored

    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise CRFError(f"cannot read CRF parameters from {path}: {exc}") from exc
    if not isinstance(values, dict) or not values:
        expected = ", ".join(f'"{name}": {value:g}' for name, value in CRFParams.deeplab_v2_resnet().to_dict().items())
        raise CRFError(f"{path} holds no CRF parameters; expected {{{expected}}}")
    try:
        return crf_from_stored(values, threads=threads, class_floor=class_floor)
    except CRFError as exc:
        raise CRFError(f"{path}: {exc}") from exc
