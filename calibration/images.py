"""The pictures that activations are observed on."""

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
from ..bundle import hash_file
from ..errors import CalibrationError, ImageError
from ..exporter.verify import photo_inputs
from ..manifest import InputSpec
from ..runtime.image import ImageSource, list_pictures, load_image
from .report.model import SkippedPicture

#: One picture may be unreadable, or this share of many.
MAX_UNREADABLE_SHARE: Final = 0.1

_logger = logging.getLogger(__name__)


class CalibrationImages:
    """A calibration set: iterating reads one picture after the other and prepares it as the runtime would.

    What exceeds the graph's maximum size is cropped to it. Pictures that cannot be read are skipped, up to one or
    10 % of the set, whichever is more; a second pass does not try them again.

    Args:
        images: a folder, of which the pictures are taken in the order of their names and not from deeper, or pictures.
        inputs: what the graph takes.
        max_images: take no more than these, picked by chance and left in their order; None for all.
        seed: of that choice.

    Attributes:
        sources: the chosen pictures, in the order of iteration; paths where a folder was given.

    Raises:
        CalibrationError: `images` is not a folder, or there is no picture in it; `max_images` is less than 1.
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
            raise CalibrationError(f"a calibration needs at least one picture; got max_images = {max_images}")
        found = _list(Path(images)) if isinstance(images, str | os.PathLike) else tuple(images)
        if not found:
            raise CalibrationError("a calibration needs pictures; got none. A few dozen as seen in use are enough.")
        if max_images is not None and max_images < len(found):
            chosen = sorted(random.Random(seed).sample(range(len(found)), max_images))  # noqa: S311 - no secret
            found = tuple(found[index] for index in chosen)
        self.sources: tuple[ImageSource, ...] = found
        self._inputs = inputs
        self._skipped: dict[int, SkippedPicture] = {}

    def __len__(self) -> int:
        """How many pictures were chosen, also those that turn out to be unreadable."""
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[str, FloatArray]]:
        """Name and prepared picture [1, 3, H, W] of each that can be read.

        Raises:
            CalibrationError: too many pictures cannot be read, or none can.
            ShapeError: an array that was given as a picture is none.
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
    def skipped(self) -> tuple[SkippedPicture, ...]:
        """The pictures that could not be read, as far as iteration has come."""
        return tuple(self._skipped[index] for index in sorted(self._skipped))

    @property
    def readable(self) -> tuple[ImageSource, ...]:
        """`sources` without those that were skipped so far."""
        return tuple(source for index, source in enumerate(self.sources) if index not in self._skipped)

    @cached_property
    def data_sha256(self) -> str:
        """Hex SHA-256 of what the graph gets to see: the contents of the pictures in order, and their preparation."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self._inputs), sort_keys=True).encode())
        for source in self.sources:
            digest.update(_digest(source))
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        """What messages call a picture: its path, or its place among those chosen."""
        source = self.sources[index]
        return os.fspath(source) if isinstance(source, str | os.PathLike) else f"picture {index + 1}"

    def _skip(self, index: int, reason: ImageError) -> None:
        self._skipped[index] = SkippedPicture(self.name_of(index), str(reason))
        limit = max(1, int(len(self) * MAX_UNREADABLE_SHARE))
        if len(self._skipped) > limit or len(self._skipped) == len(self):
            reasons = "; ".join(each.reason for each in self.skipped[:3])
            more = "; …" if len(self._skipped) > 3 else ""
            raise CalibrationError(
                f"{len(self._skipped)} of {len(self)} pictures cannot be read, {limit} may be skipped: {reasons}{more}"
                ". Replace or remove those files."
            ) from reason
        _logger.warning("skipped %s: %s", self.name_of(index), reason)


def _list(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is not a folder; expected one with pictures as seen in use")
    try:
        found = tuple(list_pictures(folder))
    except ImageError as exc:
        raise CalibrationError(str(exc)) from exc
    if not found:
        raise CalibrationError(f"no pictures in the folder {folder}; expected a few dozen as seen in use")
    return found


def _digest(source: ImageSource) -> bytes:
    """SHA-256 of a file's content or of a picture's pixels; of nothing where it cannot be read."""
    try:
        if isinstance(source, str | os.PathLike):
            return bytes.fromhex(hash_file(Path(source)))
        pixels = load_image(source)
    except (OSError, ImageError):
        return hashlib.sha256().digest()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
