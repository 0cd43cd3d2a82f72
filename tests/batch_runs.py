"""Runs over data sets, and what they leave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from segmenters import picture

#: In a tree of two folders.
NAMES = tuple(f"{'day' if index % 2 else 'night'}/{index:02}" for index in range(12))


def make_photos(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A folder of small images."""
    for index, name in enumerate(names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture((24 + index % 12, 40), seed=index)).save(path)
    return folder


def results(folder: Path) -> dict[str, str]:
    """Relative path → hash of every file, hidden ones too; ledgers left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("ledger")
    }


def lines(ledger: Path) -> list[dict[str, Any]]:
    """Lines behind the header."""
    return [json.loads(line) for line in ledger.read_text().splitlines()[1:]]


def ids(path: Path) -> NDArray[Any]:
    """Values of the pixels of labels."""
    with Image.open(path) as opened:
        return np.asarray(opened)
