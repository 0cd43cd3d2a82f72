"""The file that makes an evaluation resumable: what was evaluated, then a line of JSON for each image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EvaluationError
from .metrics import MAX_BAND_PX, Counts, IntArray

_FORMAT: Final = "atrous evaluation 2"


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
        EvaluationError: the file is no state, of another evaluation, or damaged, or cannot be opened.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._classes: int = identity["classes"]
        self._places: dict[str, tuple[int, int]] = {}
        # As it will be read: tuples become lists.
        header = json.loads(json.dumps({"format": _FORMAT, **identity}))
        try:
            self._size = self._load(header) if path.exists() else 0
            self._file = path.open("ab+")
        except OSError as exc:
            raise EvaluationError(f"cannot keep the evaluation in {path}: {exc.strerror}", path=path) from exc
        self._file.truncate(self._size)
        if self._size == 0:
            self._write(header)

    def find(self, digest: str) -> Record | None:
        """The record of an image, or None."""
        if digest not in self._places:
            return None
        start, length = self._places[digest]
        return self._record(json.loads(os.pread(self._file.fileno(), length, start)))

    def add(self, record: Record) -> None:
        """Append an image, unless it is there."""
        if record.digest not in self._places:
            self._places[record.digest] = self._write(
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
        self._file.close()

    def _write(self, value: Mapping[str, Any]) -> tuple[int, int]:
        """Append a line; returns where it starts and its length in bytes."""
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        place = self._size, len(line)
        self._size += len(line)
        return place

    def _load(self, header: Mapping[str, Any]) -> int:
        """Read the lines that are whole; returns their bytes."""
        size = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number > 1 and not line.endswith(b"\n"):
                    break
                try:
                    if number == 1:
                        self._check_header(line, header)
                    else:
                        self._places[self._record(json.loads(line)).digest] = size, len(line)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
                    raise EvaluationError(
                        f"{self._path} is not the state of an evaluation, or is damaged in line {number}: {exc}. "
                        "Choose another file, or delete it to start over.",
                        path=self._path,
                    ) from exc
                size += len(line)
        return size

    def _check_header(self, line: bytes, wanted: Mapping[str, Any]) -> None:
        found = json.loads(line)
        if not line.endswith(b"\n"):
            raise ValueError("the line has no end")
        if found.get("format") != _FORMAT:
            raise ValueError(f"its format is {found.get('format')!r}, expected {_FORMAT!r}")
        for key, value in wanted.items():
            if found.get(key) != value:
                raise EvaluationError(
                    f"{self._path} is the state of another evaluation: its {key} is {found.get(key)!r}, this one's is "
                    f"{value!r}. Choose another file.",
                    path=self._path,
                )

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
