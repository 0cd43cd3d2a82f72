"""Masks in: grey, palette, 1-bit, 16-bit and colour files become class ids and void; nothing is dropped silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..arrays import Labels, label_type
from ..errors import EvaluationError, ImageError
from ..manifest import ClassInfo, Manifest
from .image import open_picture, turn_to_page
from .mask_rules import MAX_VALUE, MaskRules
from .metrics import Mask, Scores

#: Class of each pixel, or a code below 0.
Codes = NDArray[np.int16] | NDArray[np.int32]

#: Modes of Pillow in which pixels are numbers, and those that may hold colours.
_INDEX_MODES: Final = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOR_MODES: Final = ("RGB", "RGBA", "LA", "PA")
_MAX_COLOR: Final = 255
_VOID: Final = -1
#: Void because of the bundle's `ignore_index` alone: the caller did not say so.
_ASSUMED_VOID: Final = -2
_UNKNOWN: Final = -3
#: Share of the pixels from which void that nobody named is much, where a class is in no mask.
_MUCH: Final = 0.05
_MAX_LISTED: Final = 8
_WEBP_HEADER_BYTES: Final = 4096


def load_mask(path: Path, *, page: int | None = None) -> NDArray[Any]:
    """Read pixel values [H, W], uint8 or wider, of a grey, palette or 1-bit mask, or colours [H, W, 3] uint8.

    Args:
        path: of the mask.
        page: page of its image, from 1: of a mask of several pages it is that one.

    Raises:
        ImageError: the file cannot be read, or has several pages and not that one.
        EvaluationError: pixels are of another kind, partly transparent, or of a format with loss.
    """
    with open_picture(path) as picture:
        if _is_lossy(picture, path):
            raise EvaluationError(
                f"the mask {path} is a lossy {picture.format}, whose pixels are near what was saved, and so may be "
                "other classes; save it as PNG from its source, or round its values to those that were meant",
                path=path,
            )
        if picture.mode not in (*_INDEX_MODES, *_COLOR_MODES):
            raise EvaluationError(
                f"the mask {path} has pixels of mode {picture.mode}; expected class ids as grey (1, 8 or 16 bits) or "
                "palette, or RGB in the colours of the classes. Convert it first.",
                path=path,
            )
        try:
            palette = picture.getpalette() if picture.format == "GIF" else None
            turn_to_page(picture, page if getattr(picture, "n_frames", 1) > 1 else None, path)
            pixels = _decode(ImageOps.exif_transpose(picture))
            if palette and pixels is not None and pixels.ndim == 3:
                pixels = _indices(pixels, palette)
        except ImageError:
            raise
        except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
            raise ImageError(f"cannot decode {path}: {exc}. Is it truncated or damaged?", path=path) from exc
    if pixels is None:
        raise EvaluationError(
            f"the mask {path} is partly transparent, and nothing says what its transparent pixels are; save it without "
            "an alpha channel",
            path=path,
        )
    return pixels


def _is_lossy(picture: Image.Image, path: Path) -> bool:
    """True for formats that keep an impression of pixels, not their values."""
    if picture.format == "WEBP":  # "RIFF", size, "WEBP", then chunks; without loss they hold VP8L
        return b"VP8L" not in path.read_bytes()[:_WEBP_HEADER_BYTES]
    return picture.format in ("JPEG", "MPO", "AVIF")


def _decode(picture: Image.Image) -> NDArray[Any] | None:
    """Values or colours; None where some of the pixels are transparent."""
    if picture.mode in _INDEX_MODES:
        values = np.asarray(picture)
        return values.astype(np.uint8) if values.dtype == np.bool_ else values
    if picture.mode != "RGB":
        alpha = picture.getchannel("A")
        if np.asarray(alpha).min() < np.iinfo(np.uint8).max:
            return None
    if picture.mode in ("LA", "PA"):
        return np.asarray(picture)[..., 0]
    return np.asarray(picture.convert("RGB"))


def _indices(colors: NDArray[np.uint8], palette: list[int]) -> NDArray[np.uint8]:
    """Indices [H, W] in the palette of a GIF's first page, as whose colours Pillow gives the pages behind it.

    The colours [H, W, 3] themselves where one is not in the palette, or is in it twice; black that fills it up at its
    end counts once.
    """
    entries = [(red, green, blue) for red, green, blue in zip(palette[::3], palette[1::3], palette[2::3], strict=False)]
    while len(entries) > 1 and entries[-1] == (0, 0, 0) and (0, 0, 0) in entries[:-1]:
        entries.pop()
    used, places = np.unique(colors.reshape(-1, 3), axis=0, return_inverse=True)
    rows = [tuple(color) for color in used.tolist()]
    if any(entries.count(color) != 1 for color in rows):
        return colors
    indices = np.array([entries.index(color) for color in rows], np.uint8)
    return indices[places.reshape(colors.shape[:2])]


@dataclass(frozen=True, eq=False)
class MaskPixels:
    """A mask that was read.

    Attributes:
        ids: [H, W] class ids, of the type of labels; 0 on void.
        valid: [H, W] bool, false on void.
        assumed_void_px: pixels that are void because of the bundle's `ignore_index` alone.
    """

    ids: Labels
    valid: Mask
    assumed_void_px: int


class MaskReader:
    """Reads the masks of a bundle's classes. Safe to use from many threads.

    A pixel value or colour that the rules map is what they say. Otherwise a value is void where it is the bundle's
    `ignore_index` or in `ignore`, and else a class id; a colour is the class that has it.

    Args:
        manifest: names the classes, their colours and the `ignore_index`.
        ignore: pixel values that are void besides.
        rules: how pixels become ids; as they are by default.

    Attributes:
        ignored: classes that are void everywhere.

    Raises:
        EvaluationError: a value to ignore that no pixel can have, or a rule that leads to neither a class nor void.
    """

    def __init__(self, manifest: Manifest, *, ignore: Collection[int] = (), rules: MaskRules | None = None) -> None:
        self.rules = rules or MaskRules()
        self.void = void_ids(manifest, ignore)
        self._classes = manifest.classes
        self._code_type = np.int16 if len(self._classes) <= np.iinfo(np.int16).max else np.int32
        first = int(self.rules.one_based)
        self.ignored = frozenset(value - first for value in self.void if first <= value < len(self._classes) + first)
        self._values = self._table_of_values(manifest.ignore_index, ignore, first)

    def read(self, path: Path, *, page: int | None = None) -> MaskPixels:
        """Read a mask; of several pages the one that `load_mask` takes.

        Raises:
            ImageError: the file cannot be read.
            EvaluationError: it has pixels that are neither classes nor void.
        """
        pixels = load_mask(path, page=page)
        codes = self._read_colors(pixels, path) if pixels.ndim == 3 else self._read_values(pixels, path)
        ids = np.maximum(codes, 0).astype(label_type(len(self._classes)))
        return MaskPixels(ids, codes >= 0, int(np.count_nonzero(codes == _ASSUMED_VOID)))

    def _table_of_values(self, ignore_index: int | None, ignore: Collection[int], first: int) -> Codes:
        """[65536]: the class of each pixel value, or a code below 0."""
        table = np.full(MAX_VALUE + 1, _UNKNOWN, self._code_type)
        table[first : len(self._classes) + first] = np.arange(len(self._classes))
        table[:first] = _VOID
        table[list(self.void)] = _VOID
        if ignore_index is not None and ignore_index not in ignore:
            table[ignore_index] = _ASSUMED_VOID
        for key, value in self.rules.mapping.items():
            if isinstance(key, int):
                table[key] = self._target(key, value)
        return table

    def _target(self, key: object, value: int | None) -> int:
        if value is None or value in self.ignored or (value in self.void and value >= len(self._classes)):
            return _VOID
        if value >= len(self._classes):
            raise EvaluationError(
                f"{key} of masks is mapped to {value}; expected a class from 0 to {len(self._classes) - 1}, or void"
            )
        return value

    @cached_property
    def _colors(self) -> Codes:
        """[2^24]: the class of each colour, or a code below 0."""
        table = np.full(1 << 24, _UNKNOWN, self._code_type)
        times = Counter(entry.color for entry in self._classes)
        for entry in self._classes:
            if times[entry.color] == 1:  # a colour of several classes says nothing
                table[_packed(entry.color)] = self._target(entry.name, entry.id)
        for key, value in self.rules.mapping.items():
            color = (key, key, key) if isinstance(key, int) else key
            if max(color) <= _MAX_COLOR:
                table[_packed(color)] = self._target(key, value)
        return table

    def _read_values(self, values: NDArray[Any], path: Path) -> Codes:
        if values.size and (values.min() < 0 or values.max() > MAX_VALUE):
            raise EvaluationError(
                f"the mask {path} has values from {values.min()} to {values.max()}; expected 0 to {MAX_VALUE}",
                path=path,
            )
        used = np.flatnonzero(np.bincount(values.ravel()))
        unknown = used[self._values[used] == _UNKNOWN]
        if unknown.size:
            raise EvaluationError(
                f"the mask {path} has ids {_listed(map(str, unknown))}; expected the classes "
                f"{_range(self._classes, self.rules)}, or void ({', '.join(map(str, sorted(self.void))) or 'none'}). "
                f"If those ids are void too, ignore them (--ignore ID); if they are classes, say which (--mask-map "
                f"{unknown[-1]}={len(self._classes) - 1}).",
                path=path,
            )
        self._check_palette(path, used)
        codes: Codes = self._values[values]
        return codes

    def _check_palette(self, path: Path, used: NDArray[np.intp]) -> None:
        """Refuse a palette in which a value has the colour of another class: its values are no class ids."""
        with open_picture(path) as picture:
            palette = picture.getpalette() if picture.mode == "P" else None
        if not palette:
            return
        colors = dict(enumerate(zip(palette[::3], palette[1::3], palette[2::3], strict=False)))
        for value in used.tolist():
            code, color = int(self._values[value]), colors.get(value)
            others = [entry for entry in self._classes if entry.color == color]
            if code >= 0 and value not in self.rules.mapping and others and self._classes[code] not in others:
                raise EvaluationError(
                    f"the mask {path} has a palette in which {value} has the colour of class {others[0].id} "
                    f"({others[0].name}), not of class {code} ({self._classes[code].name}). Are its values class ids? "
                    f"If so, say it (--mask-map {value}={code}); if its colours count, save it as RGB.",
                    path=path,
                )

    def _read_colors(self, colors: NDArray[np.uint8], path: Path) -> Codes:
        wide = colors.astype(np.uint32)
        packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        codes: Codes = self._colors[packed]
        unknown = np.unique(packed[codes == _UNKNOWN])
        if unknown.size:
            named = [f"{value >> 16},{value >> 8 & 255},{value & 255}" for value in unknown[:_MAX_LISTED].tolist()]
            raise EvaluationError(
                f"the mask {path} has {unknown.size} colours that are not of exactly one class of the bundle: "
                f"{_listed(named, unknown.size)}. Say what they are (--mask-map {named[0]}=ID, or =void), or convert "
                "the colours to class ids.",
                path=path,
            )
        return codes


def void_ids(manifest: Manifest, ignore: Collection[int]) -> frozenset[int]:
    """Ids of masks that are not scored: the bundle's `ignore_index` and those to ignore besides.

    Raises:
        EvaluationError: an id that no pixel can have.
    """
    own = frozenset() if manifest.ignore_index is None else frozenset({manifest.ignore_index})
    void = frozenset(int(index) for index in ignore) | own
    wrong = sorted(index for index in void if not 0 <= index <= MAX_VALUE)
    if wrong:
        raise EvaluationError(f"ids to ignore are pixel values from 0 to {MAX_VALUE}; got {wrong[0]}")
    return void


def check_void(scores: Scores, manifest: Manifest) -> None:
    """Refuse masks in which a class never occurs while much is void that nobody said is void.

    Masks of 0 and 255, as many data sets store two classes, are such: every pixel of the second class would be void,
    and a network that never finds it would be perfect.

    Raises:
        EvaluationError: at least a twentieth of the pixels, or any where at most one class is left.
    """
    share = scores.assumed_void_share
    left = len(manifest.classes) - len(scores.absent)
    if not scores.absent or not share > 0 or (share < _MUCH and left > 1):
        return
    value = manifest.ignore_index
    raise EvaluationError(
        f"{share:.1%} of the masks' pixels are {value}, which is void in this bundle, and no mask holds "
        f"{_names(scores, manifest.classes)}: the scores would say nothing of that. If {value} is a class, say which "
        f"(--mask-map {value}={scores.absent[0]}); if it is void indeed, say so (--ignore {value})."
    )


def describe_truth(scores: Scores, classes: Sequence[ClassInfo]) -> str:
    """One line on what masks hold: the share of void, and the classes that are in none."""
    void = f"void: {scores.void_share:.1%} of the masks' pixels"
    return f"{void}; in no mask: {_names(scores, classes)}" if scores.absent else f"{void}; every class is in a mask"


def _names(scores: Scores, classes: Sequence[ClassInfo]) -> str:
    return _listed(classes[index].name for index in scores.absent)


def _range(classes: Sequence[ClassInfo], rules: MaskRules) -> str:
    first = int(rules.one_based)
    return f"{first} to {len(classes) - 1 + first}"


def _listed(values: Iterable[str], total: int = 0) -> str:
    found = list(values)
    more = max(total, len(found)) - _MAX_LISTED
    return ", ".join(found[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _packed(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
