"""What a user points at: files, folders and globs become a list of pictures."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import ImageError

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})


def find_images(sources: Iterable[Path | str]) -> list[Path]:
    """Files as they are, the pictures in folders, and what globs match, in order and without repeats.

    Raises:
        ImageError: a file that does not exist, a folder without pictures, or a glob without matches.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            suffixes = _picture_suffixes()
            matches = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in suffixes and entry.is_file())
            problem = f"no pictures in the folder {path}"
        elif path.exists():
            matches, problem = [path], ""
        else:
            entries = map(Path, glob.glob(str(source), recursive=True))  # noqa: PTH207 - absolute globs
            matches = sorted(entry for entry in entries if entry.is_file())
            problem = f"no such file, folder or match: {source}"
        if not matches:
            raise ImageError(problem, path=path)
        found.update(dict.fromkeys(matches))
    return list(found)


def _picture_suffixes() -> frozenset[str]:
    from PIL import Image

    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(readable) - VIDEO_SUFFIXES
