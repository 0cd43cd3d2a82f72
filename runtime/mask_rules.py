"""Rules for reading masks: which file belongs to which image, and what its pixels mean."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..arguments import check_fields
from ..errors import EvaluationError

#: What ends the part of an image's name that its mask shares: `aachen_000019_leftImg8bit`, `aachen_000019_gtFine…`.
_SEPARATORS: Final = "_-. "
DEFAULT_PATTERN: Final = "*.png"
#: Pixel values are 8 or 16 bits wide.
MAX_VALUE: Final = 65535

#: A pixel value, or a colour (red, green, blue).
MaskKey = int | tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Rules of a set of masks.

    Attributes:
        pattern: name of the masks, in which `*` is the name that a mask shares with its image. `*` is the image's
            whole stem, or its beginning where all images end alike: `*_gtFine_labelIds.png` belongs to
            `*_leftImg8bit.png`. May begin with folders, `**/` for any depth.
        mapping: pixel value or colour → class id, or None for void. Comes before everything else; a value v is also
            the grey (v, v, v) of a colour mask.
        one_based: pixel value v is class v − 1, and 0 is void.

    Raises:
        EvaluationError: the pattern has no single `*` in its name, or the mapping has no pixel values or no ids.
    """

    pattern: str = DEFAULT_PATTERN
    mapping: Mapping[MaskKey, int | None] = field(default_factory=dict)
    one_based: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        name = self.pattern.rpartition("/")[2]
        if name.count("*") != 1 or set(name) & set("?["):
            raise EvaluationError(
                f"{self.pattern!r} is no pattern for masks; expected a name with one *, which stands for what mask and "
                "picture have in common, e.g. *_mask.png"
            )
        mapping = {
            _key(key): None if value is None else _index(value, MAX_VALUE) for key, value in self.mapping.items()
        }
        object.__setattr__(self, "mapping", mapping)

    def to_dict(self) -> dict[str, Any] | None:
        """The meaning of pixels as JSON; None where they are class ids as they are."""
        if not self.mapping and not self.one_based:
            return None
        pairs = sorted((str(key), value) for key, value in self.mapping.items())
        return {"mapping": [list(pair) for pair in pairs], "one_based": self.one_based}

    def find(self, images: Sequence[Path], folder: Path) -> list[Path]:
        """Find the mask of each image, in the order of the images.

        Raises:
            EvaluationError: images without a mask, one of which is named; or two masks for one image.
        """
        if self.pattern == DEFAULT_PATTERN:
            masks = [folder / f"{path.stem}.png" for path in images]
            self._check_missing([mask for mask in masks if not mask.is_file()], len(images))
            return masks
        known = self._list(folder)
        stems = [path.stem for path in images]
        ending = _common_ending(stems, known)
        names = [stem.removesuffix(ending) for stem in stems]
        self._check_missing(
            [folder / self.pattern.replace("*", name) for name in names if name not in known], len(names)
        )
        return [known[name] for name in names]

    def _list(self, folder: Path) -> dict[str, Path]:
        """Masks by what `*` stands for."""
        before, after = self.pattern.rpartition("/")[2].split("*")
        found: dict[str, Path] = {}
        for path in sorted(folder.glob(self.pattern)):
            name = path.name[len(before) : len(path.name) - len(after)]
            if name in found:
                raise EvaluationError(f"two masks are of one picture: {found[name]} and {path}; rename one", path=path)
            found[name] = path
        return found

    def _check_missing(self, missing: Sequence[Path], pictures: int) -> None:
        if missing:
            raise EvaluationError(
                f"{len(missing)} of {pictures} pictures have no mask, e.g. {missing[0]}. Expected a file "
                f"{self.pattern} with the stem of each picture for the *; add the masks, leave those pictures out, or "
                "say how the masks are called (--mask-pattern '*_mask.png').",
                path=missing[0],
            )


def _common_ending(stems: Sequence[str], known: Mapping[str, Path]) -> str:
    """Ending without which every stem is a known name, the shortest; empty where there is none."""
    if not stems:
        return ""
    first = stems[0]
    endings = [first[at:] for at in range(len(first), 0, -1) if at == len(first) or first[at] in _SEPARATORS]
    fits = (each for each in endings if all(stem.endswith(each) and stem.removesuffix(each) in known for stem in stems))
    return next(fits, "")


def _key(key: Any) -> MaskKey:  # noqa: ANN401 - from a caller
    if isinstance(key, str | os.PathLike) or not hasattr(key, "__len__"):
        return _index(key, MAX_VALUE)
    if len(key) != 3:
        raise EvaluationError(f"{key!r} is no pixel value: expected a number or a colour (red, green, blue)")
    red, green, blue = (_index(part, 255) for part in key)
    return red, green, blue


def _index(value: Any, largest: int) -> int:  # noqa: ANN401 - from a caller; numpy's integers too
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= largest:
        raise EvaluationError(f"{value!r} is no id of a mask; expected a whole number from 0 to {largest}")
    return number
