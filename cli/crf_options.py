"""Options of the dense CRF, and how they become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


def chosen_crf(params: Path | None, *, crf: bool, threads: int) -> bool | DenseCRF:
    """The CRF that --crf and --crf-params ask for: the bundle's, one of a file, or none.

    Raises:
        CRFError: the file cannot be read, or does not hold the parameters of a CRF.
    """
    return crf if params is None else read_crf(params, threads=threads)


def read_crf(path: Path, *, threads: int) -> DenseCRF:
    """Read a CRF from JSON: what `CRFParams.to_dict` returns, and optionally `iterations`.

    Raises:
        CRFError: the file cannot be read, or a parameter is missing, unknown or invalid.
    """
    from ..crf import CRFParams, DenseCRF

    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise CRFError(f"cannot read CRF parameters from {path}: {exc}") from exc
    if not isinstance(values, dict):
        expected = ", ".join(f'"{name}": {value:g}' for name, value in CRFParams.deeplab_v2_resnet().to_dict().items())
        raise CRFError(f"{path} holds no CRF parameters; expected {{{expected}}}")
    iterations = values.pop("iterations", 10)
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise CRFError(f"{path}: iterations must be a whole number, got {iterations!r}")
    try:
        return DenseCRF(CRFParams.from_dict(values), iterations=iterations, threads=threads)
    except CRFError as exc:
        raise CRFError(f"{path}: {exc}") from exc
