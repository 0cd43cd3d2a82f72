"""Bands of the images that a network takes: how many, of which type, what each means and holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from .arguments import check_arguments, check_fields, describe
from .errors import BundleError

BandType = Literal["uint8", "uint16", "float32"]

MAX_BANDS: Final = 32
_SAMPLE_BYTES: Final[Mapping[BandType, int]] = {"uint8": 1, "uint16": 2, "float32": 4}
#: Range of a band where nobody says more; a float's values are then taken for reflectances or probabilities.
_WHOLE: Final[Mapping[BandType, tuple[float, float]]] = {
    "uint8": (0.0, 255.0),
    "uint16": (0.0, 65535.0),
    "float32": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Bands of an image [H, W, B], in the order of the network's channels.

    Attributes:
        names: a name for each of the 1 to 32 bands.
        dtype: type of the values.
        ranges: lowest and highest value of each band that is meant to occur, such as 0 to 4095 of a camera of 12 bits.
            Values beyond it are no error: the network sees them as they are. Overlays and the CRF clip them.
        colors: indices, from 0, of the one to three bands that make the picture: R, G and B of overlays, and the colour
            features of the dense CRF. One band is grey.
        crf_weights: factor, above 0 and at most 1, of each of those bands in the CRF: how much of `sigma_rgb` the whole
            range of the band is worth, 1 for as much as a colour of 0 to 255.

    Raises:
        ArgumentError: a field has a wrong type.
        BundleError: a value is none of these.
    """

    names: tuple[str, ...]
    dtype: BandType
    ranges: tuple[tuple[float, float], ...]
    colors: tuple[int, ...]
    crf_weights: tuple[float, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        count = len(self.names)
        if not 1 <= count <= MAX_BANDS:
            raise BundleError(f"a network takes 1 to {MAX_BANDS} bands; got {count}")
        if len(set(self.names)) < count or not all(self.names):
            raise BundleError(f"every band needs a name of its own; got {', '.join(map(repr, self.names))}")
        if len(self.ranges) != count or not all(
            math.isfinite(low) and math.isfinite(high) and low < high for low, high in self.ranges
        ):
            raise BundleError(f"each of {count} bands needs a range (low, high), finite; got {list(self.ranges)}")
        whole = _WHOLE[self.dtype]
        if self.dtype != "float32" and not all(whole[0] <= low and high <= whole[1] for low, high in self.ranges):
            raise BundleError(f"{self.dtype} holds {whole[0]:g} to {whole[1]:g}; got ranges {list(self.ranges)}")
        if not 1 <= len(self.colors) <= 3 or len(set(self.colors)) < len(self.colors):
            raise BundleError(f"one to three different bands make the picture; got {list(self.colors)}")
        if not all(0 <= index < count for index in self.colors):
            raise BundleError(f"the bands of the picture are indices from 0 to {count - 1}; got {list(self.colors)}")
        if len(self.crf_weights) != len(self.colors) or not all(0 < weight <= 1 for weight in self.crf_weights):
            raise BundleError(
                f"each of the {len(self.colors)} bands of the picture has a weight above 0 and up to 1 in the CRF; got "
                f"{list(self.crf_weights)}"
            )

    @classmethod
    @check_arguments
    def of(
        cls,
        names: int | tuple[str, ...],
        dtype: BandType = "uint8",
        *,
        ranges: tuple[tuple[float, float], ...] | None = None,
        colors: tuple[int, ...] | None = None,
        crf_weights: tuple[float, ...] | None = None,
    ) -> Bands:
        """Make bands of a number of them or of their names, with defaults for the rest.

        Args:
            names: "band 1", "band 2" … where there is a number only.
            dtype: type of the values.
            ranges: one for all, or one each; by default 0 to 255, 65535 or, of float32, 1.
            colors: the first three by default, of two or one the first.
            crf_weights: 1 each by default.

        Raises:
            BundleError: values are not those of bands.
        """
        if isinstance(names, int):
            if not 1 <= names <= MAX_BANDS:
                raise BundleError(f"a network takes 1 to {MAX_BANDS} bands; got {describe(names)}")
            names = tuple(f"band {index + 1}" for index in range(names))
        if dtype not in get_args(BandType):
            raise BundleError(f"bands are of {', '.join(get_args(BandType))}; got {dtype!r}")
        ranges = ranges or (_WHOLE[dtype],)
        chosen = colors or ((0, 1, 2) if len(names) > 2 else (0,))
        return cls(
            names=names,
            dtype=dtype,
            ranges=ranges * len(names) if len(ranges) == 1 else ranges,
            colors=chosen,
            crf_weights=crf_weights or (1.0,) * len(chosen),
        )

    @property
    def whole_range(self) -> tuple[float, float]:
        """Lowest and highest value that a sample can have; of floats, infinities."""
        return (-math.inf, math.inf) if self.dtype == "float32" else _WHOLE[self.dtype]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return len(self.names) * _SAMPLE_BYTES[self.dtype]

    def __str__(self) -> str:
        """As messages say it: `4 bands uint8`."""
        return f"{len(self.names)} band{'s' if len(self.names) > 1 else ''} {self.dtype}"


def bands_from_dict(data: Mapping[str, Any]) -> Bands:
    """Convert from JSON that its schema has validated."""
    return Bands(
        names=tuple(data["names"]),
        dtype=data["dtype"],
        ranges=tuple((float(low), float(high)) for low, high in data["ranges"]),
        colors=tuple(data["colors"]),
        crf_weights=tuple(map(float, data["crf_weights"])),
    )
