"""Inputs of a verb: files, folders and globs become a list of images."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from ..errors import ImageError


def find_images(sources: Iterable[Path | str]) -> list[Path]:
    """Files as they are, the pictures in folders, and what globs match, in order and without repeats.

    Raises:
        ImageError: a file that does not exist, a folder without pictures, or a glob without matches.
    """
    from ..runtime.image import list_pictures

    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = list_pictures(path)
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
