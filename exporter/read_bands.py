"""Bands of a network's images, from the text of a command line or a JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, cast, get_args

from ..bands import Bands, BandType
from ..errors import AtrousError, ExportError

_NUMBER: Final = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
_BANDS: Final = re.compile(rf"([^:]+)(?::(\w+))?(?::({_NUMBER}?)\.\.({_NUMBER}))?")
_EXPECTED: Final = "4, red,green,blue,nir, 1:uint16 or grey:uint16:0..4095"
_KEYS: Final = frozenset({"names", "dtype", "ranges", "colors", "crf_weights"})


def parse_bands(text: str) -> Bands:
    """Read bands from text: a number or names with commas, then their type, then the range of all.

    Raises:
        ExportError: it is something else, or says what bands cannot be.
    """
    match = _BANDS.fullmatch(text.strip())
    if match is None or match[2] not in (None, *get_args(BandType)):
        raise ExportError(f"bands={text!r} is not understood; expected for example {_EXPECTED}")
    named, dtype, low, high = match.groups()
    count = int(named) if named.isdecimal() else tuple(name.strip() for name in named.split(","))
    try:
        return Bands.of(
            count, cast("BandType", dtype or "uint8"), ranges=((float(low), float(high)),) if high else None
        )
    except (AtrousError, ValueError) as exc:
        raise ExportError(f"bands={text!r}: {exc}") from exc


def read_bands(path: Path) -> Bands:
    """Read bands from JSON: an object of `names` (or their number), and where wanted the other fields of `Bands`.

    Raises:
        ExportError: the file cannot be read, or says what bands cannot be.
    """
    try:
        stated: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stated, dict) or not {"names"} <= stated.keys() <= _KEYS:
            raise ExportError(f"it is no object of names and, where wanted, {', '.join(sorted(_KEYS - {'names'}))}")
        return Bands.of(stated.pop("names"), **stated)
    except (AtrousError, OSError, ValueError) as exc:
        raise ExportError(f"cannot read bands from {path}: {exc}") from exc
