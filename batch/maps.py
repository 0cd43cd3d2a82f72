"""Probabilities and labels that another tool made, one file or folder for each image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_fields
from ..arrays import MAX_CLASSES, FloatArray, not_finite
from ..errors import BatchError, ImageError
from ..manifest import Size
from ..runtime.band_images import read_tiff
from ..runtime.image import open_picture

_TIFF_ENDINGS: Final = (".tif", ".tiff")
_ARRAY_ENDINGS: Final = (".npy", ".npz")
_LABEL_ENDINGS: Final = (".png", ".npy", *_TIFF_ENDINGS)
#: Name of an array in an `.npz` with several.
_ARRAY_NAME: Final = "probabilities"
_CLASS_FILE: Final = re.compile(r"(?:.*\D)?(\d+)\.png", re.IGNORECASE)
#: Sums of probabilities may be off by this besides what rounding to integers or halves explains.
SUM_TOLERANCE: Final = 1e-2
#: Modes of Pillow whose samples are numbers of one channel.
_MODES: Final = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, kw_only=True)
class ProbabilityMaps:
    """Probabilities [C, H, W] of images: for the image NAME a file NAME.npy, NAME.npz or NAME.tif, or a folder NAME.

    `.npy` and `.npz` hold one array [C, H, W], or of several the one called `probabilities`; a TIFF has a band for each
    class; a folder has a grey PNG for each class, whose name ends in its number, from 0. Floats are probabilities;
    integers are divided by the largest number of their type.

    Attributes:
        folder: with all of them, in the same tree as the images.
        channels_last: arrays are [H, W, C].
        normalize: divide by the sum over the classes, which otherwise has to be 1.

    Raises:
        ArgumentError: a field has a wrong type.
    """

    folder: Path
    channels_last: bool = False
    normalize: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def find(self, name: str) -> Path:
        """The file or folder of an image; raises `ImageError` where there is none or more than one."""
        endings = (*_ARRAY_ENDINGS, *_TIFF_ENDINGS)
        paths = [self.folder / f"{name}{ending}" for ending in endings]
        found = [path for path in paths if path.is_file()]
        if (folder := self.folder / name).is_dir() and (not found or _class_files(folder)):
            found.append(folder)
        return _only(found, f"{self.folder / name} ({', '.join(endings)} or a folder)", "probabilities")

    def read(self, name: str, size: Size) -> FloatArray:
        """Probabilities [C, H, W] float32 of an image of a size; they sum to 1.

        Raises:
            ImageError: there are none; the file is unreadable; or they are of another size, not finite, outside of
                0 to 1, or do not sum to 1.
            MissingDependencyError: it is a TIFF, and tifffile is not installed.
        """
        path = self.find(name)
        if path.is_dir():
            stored = _read_class_files(path)
        elif path.suffix.lower() in _TIFF_ENDINGS:
            stored = np.moveaxis(read_tiff(path), 2, 0)
        else:
            stored = _read_array(path)
            if self.channels_last and stored.ndim == 3:
                stored = np.moveaxis(stored, 2, 0)
        _check_shape(stored, size, path)
        return self._as_probabilities(stored, path)

    def to_dict(self) -> dict[str, Any]:
        """The choices about reading as JSON, for the ledger."""
        return {"channels_last": self.channels_last, "normalize": self.normalize}

    def _as_probabilities(self, stored: NDArray[Any], path: Path) -> FloatArray:
        if stored.dtype.kind not in "fu":
            raise ImageError(f"{path} holds {stored.dtype}; expected floats, or unsigned integers", path=path)
        maps, rounding = np.ascontiguousarray(stored, np.float32), 0.0
        if stored.dtype.kind == "u":
            largest = np.iinfo(stored.dtype).max
            maps = maps / np.float32(largest)
            rounding = 0.5 * len(maps) / largest
        if not np.isfinite(maps).all():
            raise ImageError(str(not_finite(maps, f"the probabilities in {path}")), path=path)
        low, high = float(maps.min()), float(maps.max())
        if low < 0 or (high > 1 + SUM_TOLERANCE and not self.normalize):
            raise ImageError(
                f"{path} has values from {low:g} to {high:g}; probabilities lie between 0 and 1. Apply softmax to "
                "logits first" + (", or normalize scores that are not negative (--normalize)" if low >= 0 else ""),
                path=path,
            )
        sums = maps.sum(axis=0)
        off = float(abs(sums - 1).max())
        if off > SUM_TOLERANCE + rounding and not self.normalize:
            row, column = (int(index) for index in np.unravel_index(abs(sums - 1).argmax(), sums.shape))
            raise ImageError(
                f"{path} has probabilities that sum to {sums[row, column]:g} at row {row}, column {column}; expected "
                "1. Is a class missing, such as the background? Scores that are to be divided by their sum are "
                "normalized (--normalize)",
                path=path,
            )
        if not sums.min() > 0:
            row, column = (int(index) for index in np.unravel_index(sums.argmin(), sums.shape))
            raise ImageError(f"{path} has no class at row {row}, column {column}: all are 0 there", path=path)
        normalized: FloatArray = maps / sums if rounding or self.normalize else maps
        bounded: FloatArray = np.minimum(normalized, np.float32(1))
        return bounded


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Labels of images, which are right with some probability: for the image NAME a file NAME.png, .npy or .tif.

    A labelled pixel has `confidence` for its class and shares the rest evenly among the others; void has the same for
    all classes.

    Attributes:
        folder: with all of them, in the same tree as the images.
        classes: C.
        confidence: between 1 / C and 1.
        void: ids that are no class.

    Raises:
        ArgumentError: a field has a wrong type.
        BatchError: a number is out of range.
    """

    folder: Path
    classes: int
    confidence: float = 0.7
    void: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not 2 <= self.classes <= MAX_CLASSES:
            raise BatchError(f"labels have 2 to {MAX_CLASSES} classes; got {self.classes}")
        if not 1 / self.classes < self.confidence < 1:
            raise BatchError(
                f"confidence is the probability that a label is right: between 1 / {self.classes}, which is no "
                f"knowledge, and 1, exclusive; got {self.confidence:g}"
            )
        if wrong := [each for each in self.void if not 0 <= each < MAX_CLASSES]:
            raise BatchError(f"ids of labels are 0 to {MAX_CLASSES - 1}; got {wrong[0]} as void")

    def find(self, name: str) -> Path:
        """The file of an image; raises `ImageError` where there is none or more than one."""
        paths = [self.folder / f"{name}{ending}" for ending in _LABEL_ENDINGS]
        found = [path for path in paths if path.is_file()]
        return _only(found, f"{self.folder / name} ({', '.join(_LABEL_ENDINGS)})", "labels")

    def read(self, name: str, size: Size) -> FloatArray:
        """Probabilities [C, H, W] float32 of an image of a size.

        Raises:
            ImageError: there are no labels; the file is unreadable; or they are of another size or out of range.
        """
        path = self.find(name)
        labels = _read_array(path) if path.suffix.lower() == ".npy" else _read_grey(path)
        if labels.shape != size:
            raise ImageError(f"{path} is {list(labels.shape)}; expected {list(size)}, as the image", path=path)
        if labels.dtype.kind not in "uib":
            raise ImageError(f"{path} holds {labels.dtype}; expected class ids, which are integers", path=path)
        void = np.isin(labels, np.array(self.void, np.int64))
        wrong = ~void & ((labels < 0) | (labels >= self.classes))
        if wrong.any():
            ids = ", ".join(map(str, np.unique(labels[wrong])[:5].tolist()))
            raise ImageError(
                f"{path} has the ids {ids}, and there are {self.classes} classes, from 0. Say how many there are "
                "(--classes), or which ids are void (--ignore)",
                path=path,
            )
        rest = (1 - self.confidence) / (self.classes - 1)
        maps = np.full((self.classes, *size), rest, np.float32)
        np.put_along_axis(maps, np.where(void, 0, labels).astype(np.int64)[None], np.float32(self.confidence), axis=0)
        maps[:, void] = 1 / self.classes
        return maps

    def to_dict(self) -> dict[str, Any]:
        """The choices about reading as JSON, for the ledger."""
        return {"confidence": self.confidence, "classes": self.classes, "void": sorted(self.void)}


def _only(found: Sequence[Path], expected: str, what: str) -> Path:
    if not found:
        raise ImageError(f"there are no {what} of this image: expected {expected}")
    if len(found) > 1:
        raise ImageError(f"an image has {what} twice: {' and '.join(map(str, found))}; remove one", path=found[0])
    return found[0]


def _check_shape(stored: NDArray[Any], size: Size, path: Path) -> None:
    if stored.ndim == 3 and stored.shape[1:] == size and 1 <= stored.shape[0] <= MAX_CLASSES:
        return
    hint = ""
    if stored.ndim == 3 and stored.shape[:2] == size:
        hint = "; its classes come last (--channels-last)"
    elif stored.ndim == 4 and stored.shape[0] == 1:
        hint = "; save it without the axis of batches"
    elif stored.ndim == 3 and stored.shape[1:] == size[::-1]:
        hint = "; its height and width are swapped"
    raise ImageError(
        f"{path} is {list(stored.shape)}; expected [classes, {size[0]}, {size[1]}], which is the size of the image"
        f"{hint}",
        path=path,
    )


def _read_array(path: Path) -> NDArray[Any]:
    """An array of an `.npy` or `.npz`."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            array: NDArray[Any] = loaded if isinstance(loaded, np.ndarray) else loaded[_array_name(loaded.files)]
            return array
    except Exception as exc:  # OSError, ValueError, EOFError, BadZipFile, zlib's errors
        raise ImageError(f"cannot read {path} as an array: {exc}", path=path) from exc


def _array_name(names: Sequence[str]) -> str:
    if len(names) == 1 or _ARRAY_NAME in names:
        return names[0] if len(names) == 1 else _ARRAY_NAME
    raise ValueError(f"it holds {', '.join(names) or 'none'}; expected one array, or one called {_ARRAY_NAME}")


def _class_files(folder: Path) -> dict[int, Path]:
    """The PNGs of classes by their numbers."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        raise ImageError(f"cannot list the folder {folder}: {exc.strerror}", path=folder) from exc
    return {int(match[1]): entry for entry in entries if (match := _CLASS_FILE.fullmatch(entry.name))}


def _read_class_files(folder: Path) -> NDArray[Any]:
    """Maps [C, H, W] of the PNGs in a folder, one a class."""
    files = _class_files(folder)
    if sorted(files) != list(range(len(files))) or not files:
        raise ImageError(
            f"the folder {folder} has PNGs of the classes {', '.join(map(str, sorted(files))) or 'none'}; expected "
            "names that end in 0.png, 1.png, …, one for each class",
            path=folder,
        )
    maps = [_read_grey(files[index]) for index in range(len(files))]
    kinds = {(each.shape, each.dtype) for each in maps}
    if len(kinds) > 1:
        raise ImageError(f"the PNGs in {folder} differ in size or bits", path=folder)
    return np.stack(maps)


def _read_grey(path: Path) -> NDArray[Any]:
    """Numbers [H, W] of an image with one channel, as they are stored."""
    with open_picture(path) as image:
        if image.mode not in _MODES:
            raise ImageError(f"{path} has colours (Pillow's mode {image.mode}); expected one number a pixel", path=path)
        try:
            array = np.asarray(image)
        except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, …
            raise ImageError(f"cannot decode {path}: {exc}. Is it truncated or damaged?", path=path) from exc
    # Pillow before 11 has 16-bit PNGs in 32 bits.
    fits = array.dtype == np.int32 and array.size and array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max
    return array.astype(np.uint16) if fits else array
