"""The file that makes a search resumable: what is searched on, then a line of JSON for each image and candidate."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import CRFError
from ...runtime.metrics import IntArray
from .candidate import Candidate

_FORMAT: Final = "atrous tune 1"
_Key = tuple[str, tuple[float, ...] | None]


class ScoreLog:
    """Counts that were made, in memory and in a file. For one thread.

    A file of another search is begun anew: it holds nothing but what can be computed again. What an interruption left
    of a last line is cut off.

    Args:
        path: made, with its folder, where it does not exist.
        identity: JSON values; what counts depend on besides image and candidate.

    Raises:
        CRFError: the file cannot be opened, or another search has it.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._counts: dict[_Key, IntArray] = {}
        header = json.loads(json.dumps({"format": _FORMAT, **identity}))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as exc:
            raise CRFError(f"cannot keep the search in {path}: {exc.strerror}; choose another folder (--work)") from exc
        self._lock(path.parent)
        size = self._load(path, header)
        self._file.truncate(size)
        if size == 0:
            self._write(header)

    def __contains__(self, key: tuple[str, Candidate | None]) -> bool:
        return _key(*key) in self._counts

    def find(self, image: str, candidate: Candidate | None) -> IntArray:
        """Counts [R, C] of a candidate, or of no CRF, on an image; raises KeyError where there are none."""
        return self._counts[_key(image, candidate)]

    def add(self, image: str, candidate: Candidate | None, counts: IntArray) -> None:
        """Add counts."""
        key = _key(image, candidate)
        self._counts[key] = counts
        self._write({"image": image, "candidate": key[1], "counts": counts.tolist()})

    def sync(self) -> None:
        """Bring what was added onto the disk, where a power cut leaves it."""
        with contextlib.suppress(OSError):  # a filesystem that cannot
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            raise CRFError(
                f"another search goes on in {folder}; wait for it, or choose another folder (--work)"
            ) from exc
        except OSError:  # a filesystem without locks
            pass

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def _load(self, path: Path, header: Mapping[str, Any]) -> int:
        """Read the lines that are whole; returns their bytes, 0 where the file is of another search."""
        size = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                    if number == 0 and value != header:
                        return 0
                    if value is None:
                        break
                    if number > 0:
                        key = value["candidate"]
                        self._counts[value["image"], None if key is None else tuple(key)] = np.array(
                            value["counts"], np.int64
                        )
                except (ValueError, KeyError, TypeError):
                    break  # a line that was damaged, and all behind it, are computed again
                size += len(line)
        return size


def _key(image: str, candidate: Candidate | None) -> _Key:
    return image, None if candidate is None else candidate.key
