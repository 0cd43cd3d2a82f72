"""Inputs of a verb: files, folders and globs become a list of images."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ImageError


def find_images(sources: Iterable[Path | str]) -> list[Path]:
    """Files as they are, the images in folders, and what globs match, in order and without repeats.

    Raises:
        ImageError: no source at all, a file that does not exist, a folder without images, or a glob without matches.
    """
    from ..runtime.image import list_pictures

    found: dict[str, Path] = {}  # by the absolute path: a folder may be given twice in two ways
    for source in sources:
        path = Path(source)
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as exc:  # such as a name that is too long, until Python 3.14
            raise ImageError(f"cannot look for {path}: {exc.strerror}", path=path) from exc
        if is_folder:
            matches = list_pictures(path)
            problem = f"no pictures in the folder {path}"
        elif is_there:
            matches, problem = [path], ""
        else:
            entries = map(Path, glob.glob(str(source), recursive=True))  # noqa: PTH207 - absolute globs
            matches = sorted(entry for entry in entries if entry.is_file())
            problem = f"no such file, folder or match: {source}"
        if not matches:
            raise ImageError(problem, path=path)
        for match in matches:
            found.setdefault(_absolute(match), match)
    if not found:
        raise ImageError("no input: got an empty list. Give files, folders or globs.")
    return list(found.values())


def output_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """Relative name, without an ending, for what each input becomes; no two are equal.

    Names are the stems; where two are equal, whole file names; and where inputs of several folders have one name, all
    of them keep their folders, below the one that they share.
    """
    folders = [_absolute(path.parent) for path in paths]
    base = os.path.commonpath(folders)
    flat = [Path()] * len(paths)
    trees = [Path(os.path.relpath(folder, base)) for folder in folders]
    candidates = [names(paths, below) for below in (flat, trees) for names in (_stems, _file_names)]
    chosen = next((names for names in candidates if len(set(names)) == len(paths)), candidates[-1])
    return dict(zip(paths, chosen, strict=True))


def _stems(paths: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Stems in these folders, or file names where two stems are equal."""
    stems = [folder / path.stem for folder, path in zip(folders, paths, strict=True)]
    times = Counter(stems)
    return [stem if times[stem] == 1 else named for stem, named in zip(stems, _file_names(paths, folders), strict=True)]


def _file_names(paths: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    return [folder / path.name for folder, path in zip(folders, paths, strict=True)]


def _absolute(path: Path) -> str:
    """Absolute path without `..`; links stay what they are, since two links to one file are two inputs."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links
