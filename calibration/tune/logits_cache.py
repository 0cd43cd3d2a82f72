"""Coarse logits on disk, so that the network runs once an image; no more than a number of bytes."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from pathlib import Path

import numpy as np

from ...arrays import FloatArray
from ...files import write_whole
from ...manifest import Size


class LogitsCache:
    """Logits of images by a key. Safe to use from many threads; a full disk, or a damaged file, only costs time.

    Args:
        folder: made where it does not exist.
        max_bytes: the most that is stored; what comes later is not.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        self._left = max_bytes - sum(path.stat().st_size for path in folder.glob("*.npz"))

    def find(self, key: str) -> tuple[FloatArray, Size] | None:
        """Logits [channels, h, w] float32 and the size of the network's input; None where they are not stored."""
        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                height, width = stored["input_size"].tolist()
                return stored["logits"], (height, width)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def add(self, key: str, logits: FloatArray, input_size: Size) -> None:
        """Store logits, if there is room."""
        with self._lock:
            if logits.nbytes > self._left:
                return
            self._left -= logits.nbytes
        with contextlib.suppress(OSError), write_whole(self._path(key)) as temporary, temporary.open("wb") as file:
            np.savez(file, logits=logits, input_size=np.array(input_size))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"
