"""The file that makes an evaluation resumable: what was evaluated, then a line of JSON for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EvaluationError
from .journal import Journal, JournalKind, Place
from .metrics import MAX_BAND_PX, Counts, IntArray

_KIND: Final = JournalKind(
    format="atrous evaluation 2", name="state", run="evaluation", article="an", error=EvaluationError
)


@dataclass(frozen=True, eq=False)
class Record:
    """One evaluated image.

    Attributes:
        name: of the image's file; for people.
        digest: identifies the content of image and mask.
        latency_ms: milliseconds in the segmenter.
    """

    name: str
    digest: str
    counts: Counts
    latency_ms: float


class EvaluationState:
    """An open state file. Finding is safe from many threads, adding from one.

    What an interruption left of a last line is cut off. Only the places of the lines are kept in memory.

    Args:
        path: made where it does not exist.
        identity: JSON values; what the results depend on besides the images. `identity["classes"]` is C.

    Raises:
        EvaluationError: the file is no state, of another evaluation, damaged, in use, or cannot be opened.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._classes: int = identity["classes"]
        self._places: dict[str, Place] = {}
        self._journal = Journal(path, _KIND, identity, self._accept)

    def find(self, digest: str) -> Record | None:
        """The record of an image, or None."""
        place = self._places.get(digest)
        return None if place is None else self._record(self._journal.read(place))

    def add(self, record: Record) -> None:
        """Append an image, unless it is there."""
        if record.digest not in self._places:
            self._places[record.digest] = self._journal.append(
                {
                    "picture": record.name,
                    "sha256": record.digest,
                    "latency_ms": round(record.latency_ms, 3),
                    "rings": _sparse(record.counts.rings),
                    "boundary": record.counts.boundary.tolist(),
                    "void_px": [record.counts.void_px, record.counts.assumed_void_px],
                }
            )

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _accept(self, value: Any, place: Place) -> None:  # noqa: ANN401 - JSON
        self._places[self._record(value).digest] = place

    def _record(self, value: Mapping[str, Any]) -> Record:
        """A line's values, validated; raises what a wrong structure happens to raise."""
        rings = _dense(value["rings"], (MAX_BAND_PX + 1, self._classes, self._classes))
        boundary = np.array(value["boundary"], np.int64).reshape(4, self._classes)
        void_px, assumed_void_px = map(int, value["void_px"])
        counts = Counts(rings, boundary, void_px, assumed_void_px)
        return Record(str(value["picture"]), str(value["sha256"]), counts, float(value["latency_ms"]))


def _sparse(counts: IntArray) -> list[list[int]]:
    """[flat indices, counts] of what is not 0: most classes are never confused."""
    indices = np.flatnonzero(counts)
    return [indices.tolist(), counts.ravel()[indices].tolist()]


def _dense(sparse: list[list[int]], shape: tuple[int, ...]) -> IntArray:
    counts = np.zeros(shape, np.int64)
    indices, values = np.array(sparse, np.int64)
    counts.ravel()[indices] = values
    return counts
