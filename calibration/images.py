"""Calibration images: chosen, read one at a time, and preprocessed as the runtime does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from ..arrays import FloatArray
from ..bands import Bands
from ..errors import CalibrationError, ImageError
from ..exporter.verify import photo_inputs
from ..manifest import InputSpec
from ..runtime.band_images import load_pixels
from ..runtime.image import ImageFile, ImageSource, list_pictures
from .report.model import SkippedImage

#: Up to one image, or this share of the set if that is more, may be unreadable.
MAX_UNREADABLE_SHARE: Final = 0.1

_logger = logging.getLogger(__name__)


class CalibrationImages:
    """A calibration set; iterating reads and preprocesses one image at a time, as the runtime does.

    Images larger than the graph's maximum size are cropped to it. Unreadable images are skipped, up to one or 10 % of
    the set, whichever is more; a second pass does not try them again.

    Args:
        images: a folder, whose images are taken in the order of their names (no subfolders), or a sequence of images.
        inputs: input of the graph.
        max_images: random sample of at most this many images, in their order; None for all.
        seed: random seed of the sample.

    Attributes:
        sources: the chosen images, in the order of iteration; paths if a folder was given.

    Raises:
        CalibrationError: `images` is not a folder or holds no image, or `max_images` is less than 1.
    """

    def __init__(
        self,
        images: str | os.PathLike[str] | Sequence[ImageSource],
        inputs: InputSpec,
        *,
        max_images: int | None = None,
        seed: int = 0,
    ) -> None:
        if max_images is not None and max_images < 1:
            raise CalibrationError(f"max_images must be 1 or more; got {max_images}")
        found = _list(Path(images)) if isinstance(images, str | os.PathLike) else tuple(images)
        if not found:
            raise CalibrationError(
                "no calibration images given. A few dozen images like those in production are enough."
            )
        if max_images is not None and max_images < len(found):
            chosen = sorted(random.Random(seed).sample(range(len(found)), max_images))  # noqa: S311 - no secret
            found = tuple(found[index] for index in chosen)
        self.sources: tuple[ImageSource, ...] = found
        self._inputs = inputs
        self._skipped: dict[int, SkippedImage] = {}

    def __len__(self) -> int:
        """Number of chosen images, unreadable ones included."""
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[str, FloatArray]]:
        """Name and preprocessed image [1, bands, H, W] float32 of each readable image.

        Raises:
            CalibrationError: too many images are unreadable, or all of them.
            ShapeError: an input array is not an image.
        """
        for index, source in enumerate(self.sources):
            if index in self._skipped:
                continue
            try:
                (batch,) = photo_inputs([source], self._inputs)
            except ImageError as exc:
                self._skip(index, exc)
            else:
                yield self.name_of(index), batch

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Unreadable images met by the iteration so far."""
        return tuple(self._skipped[index] for index in sorted(self._skipped))

    @property
    def readable(self) -> tuple[ImageSource, ...]:
        """`sources` without the images skipped so far."""
        return tuple(source for index, source in enumerate(self.sources) if index not in self._skipped)

    @cached_property
    def data_sha256(self) -> str:
        """Hex SHA-256 of the images in order and of their preprocessing."""
        rules = dataclasses.asdict(self._inputs)
        if self._inputs.bands is None:
            del rules["bands"]  # caches of RGB were made before there were bands
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode())
        for source in self.sources:
            digest.update(_digest(source, self._inputs.bands))
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        """Name of an image for messages: its path, or its number in the set."""
        source = self.sources[index]
        return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image {index + 1}"

    def _skip(self, index: int, reason: ImageError) -> None:
        self._skipped[index] = SkippedImage(self.name_of(index), str(reason))
        limit = max(1, int(len(self) * MAX_UNREADABLE_SHARE))
        if len(self._skipped) > limit or len(self._skipped) == len(self):
            reasons = "; ".join(each.reason for each in self.skipped[:3])
            more = "; …" if len(self._skipped) > 3 else ""
            raise CalibrationError(
                f"{len(self._skipped)} of {len(self)} images are unreadable; at most {limit} may be skipped: {reasons}"
                f"{more}. Replace or remove those files."
            ) from reason
        _logger.warning("skipped %s: %s", self.name_of(index), reason)


def _list(folder: Path) -> tuple[Path, ...]:
    try:
        is_folder = folder.is_dir()
    except OSError:  # a name that is too long, for example
        is_folder = False
    if not is_folder:
        raise CalibrationError(f"{folder} is not a folder; expected a folder of calibration images")
    try:
        found = tuple(list_pictures(folder))
    except ImageError as exc:
        raise CalibrationError(str(exc)) from exc
    if not found:
        raise CalibrationError(f"no images in {folder}; expected a few dozen like those in production")
    return found


def _digest(source: ImageSource, bands: Bands | None) -> bytes:
    """SHA-256 of a file and of what is read of it, or of an image's pixels; of no bytes if the image is unreadable."""
    try:
        if isinstance(source, str | os.PathLike):
            return (source if isinstance(source, ImageFile) else ImageFile(Path(source))).digest
        pixels = load_pixels(source, bands)
    except (OSError, ImageError):
        return hashlib.sha256().digest()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
