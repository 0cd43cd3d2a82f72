"""The images of a run: files, folders, globs and lists of them become items with names that stay the same."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from ..arguments import check_arguments, check_fields
from ..errors import BatchError
from ..runtime.image import ImageFile, picture_suffixes

#: Endings of lists of images, and the separators of their columns; a text file has none.
LIST_SEPARATORS: Final = {".txt": "", ".csv": ",", ".tsv": "\t"}
#: Columns that are taken without being named, in this order.
_COLUMNS: Final = ("image", "path", "file", "file_name", "filename")
_SHARD: Final = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class WorkItem:
    """An image of a run.

    Attributes:
        image: its file, and how to read it.
        name: relative path, without an ending, of all that becomes of it, with / between folders.
    """

    image: ImageFile
    name: str


@dataclass(frozen=True)
class Shard:
    """One of the `count` parts of a list of images.

    The part of an image follows from its name alone. So the parts of one `count` are disjoint and together complete,
    whatever the order of the list, and wherever each of them runs.

    Attributes:
        index: from 1.
        count: number of parts.

    Raises:
        BatchError: `index` is not from 1 to `count`.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.index <= self.count:
            raise BatchError(f"there is no shard {self.index} of {self.count}; shards count from 1, as in 1/8 … 8/8")

    @classmethod
    @check_arguments
    def parse(cls, text: str) -> Shard:
        """Read `3/8`, the third of eight; raises `BatchError` for anything else."""
        match = _SHARD.fullmatch(text.strip())
        if match is None or len(text) > 20:
            raise BatchError(f"{text!r} is no shard; expected INDEX/COUNT, from 1/8 to 8/8 for example")
        return cls(int(match[1]), int(match[2]))

    def __contains__(self, name: str) -> bool:
        """True if the item of this name is in the shard."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


#: All images in one part.
ALL: Final = Shard()


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Choices about a list of images.

    Attributes:
        root: folder that names are relative to, of all sources. By default each folder is its own root, as is the part
            of a glob in front of its first wildcard, the folder of a file, and the folder of a list.
        keep_endings: names keep the images' endings: `a.jpg` becomes `a.jpg.png`.
        column: of CSV and TSV lists, the column with the paths. By default one called image, path, file, file_name or
            filename, or the only one.
        page, bits: as `ImageFile` has them.
        besides: a folder whose files are no images of the run, though they may lie below a source: its results.

    Raises:
        ArgumentError: a field has a wrong type.
    """

    root: Path | None = None
    keep_endings: bool = False
    column: str | None = None
    page: int | None = None
    bits: int | None = None
    besides: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@check_arguments
def find_work(sources: Sequence[str | Path], options: WorkOptions | None = None) -> list[WorkItem]:
    """List the images of a run in a fixed order: by their names.

    Args:
        sources: image files; folders, with all that lies below them; globs; lists: a `.txt` with a path a line, a
            `.csv` or `.tsv` with a header. Paths in a list are relative to the list's folder. An image that is given
            twice is one item.
        options: see there.

    Raises:
        BatchError: there is no image at all, a source does not exist or cannot be read, or two images have one name.
    """
    options = options or WorkOptions()
    found: dict[str, tuple[Path, str]] = {}  # absolute path → path as given, and name
    for source in map(Path, sources):
        for path, base in _paths(source, options):
            key = _absolute(path)
            if key not in found:
                found[key] = path, _name(key, options.root or base, options)
    if not found:
        raise BatchError("there is nothing to do: got no images. Give files, folders, globs or lists of them.")
    _check_names(found.values())
    ordered = sorted(found.values(), key=lambda each: each[1])
    return [WorkItem(ImageFile(path, options.page, options.bits), name) for path, name in ordered]


def _paths(source: Path, options: WorkOptions) -> Iterator[tuple[Path, Path]]:
    """The image files of a source, each with the folder that its name is relative to."""
    try:
        if source.is_dir():
            paths, base = _walk(source, options.besides), source
            problem = f"no pictures in the folder {source} or below it"
        elif not source.exists():
            matches = glob.glob(str(source), recursive=True)  # noqa: PTH207 - absolute globs
            paths, base = (path for path in map(Path, sorted(matches)) if path.is_file()), _fixed_part(source)
            problem = f"no such file, folder or match: {source}"
        elif source.suffix.lower() in LIST_SEPARATORS:
            entries = _entries(source, options.column)
            paths, base = (source.parent / entry for entry in entries), source.parent
            problem = f"the list {source} is empty"
        else:
            paths, base, problem = iter([source]), source.parent, ""
        is_empty = True
        for path in paths:
            is_empty = False
            yield path, base
    except (OSError, ValueError) as exc:  # a name that is too long, or that no file can have
        raise BatchError(f"cannot read {source}: {getattr(exc, 'strerror', None) or exc}", path=source) from exc
    if is_empty:
        raise BatchError(problem, path=source)


def _walk(folder: Path, besides: Path | None) -> Iterator[Path]:
    """Files below a folder that end like images; links to folders and hidden folders are left out."""
    suffixes, outside = picture_suffixes(), besides and _absolute(besides)

    def fail(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=fail):
        here = Path(name)
        folders[:] = [each for each in folders if each[0] != "." and _absolute(here / each) != outside]
        for path in map(here.joinpath, files):
            if path.suffix.lower() in suffixes and path.name[0] != ".":
                yield path


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of a pattern's first wildcard."""
    parts = pattern.parts
    return Path(*parts[: next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)])


def _absolute(path: Path) -> str:
    """Absolute path without `..`; links stay what they are, since two links to one file are two images."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links


def _entries(file: Path, column: str | None) -> Iterator[str]:
    """The paths in a list."""
    separator = LIST_SEPARATORS[file.suffix.lower()]
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        if not separator:
            yield from (entry for line in lines if (entry := line.strip("\r\n")))
            return
        rows = csv.DictReader(lines, delimiter=separator, strict=True)
        try:
            chosen = _column(rows.fieldnames or (), column, file)
            for row in rows:
                if entry := (row[chosen] or "").strip():
                    yield entry
        except csv.Error as exc:
            raise BatchError(f"{file} is no table in line {rows.line_num}: {exc}", path=file) from exc


def _column(names: Sequence[str], wanted: str | None, file: Path) -> str:
    candidates = [wanted] if wanted is not None else [*_COLUMNS, *(names if len(names) == 1 else ())]
    found = next((name for name in candidates if name in names), None)
    if found is None:
        raise BatchError(
            f"{file} has no column {wanted or ' or '.join(_COLUMNS)}; it has {', '.join(names) or 'none'}. Say which "
            "one holds the paths (--column NAME)",
            path=file,
        )
    return found


def _name(path: str, root: Path, options: WorkOptions) -> str:
    """Name of an image at an absolute path; outside of its root, the whole path is its name."""
    pure = PurePath(os.path.relpath(path, root))
    if pure.parts[0] == os.pardir:
        if options.root is not None:
            raise BatchError(f"{path} is not below the root {root}, to which names are relative", path=path)
        pure = PurePath(path).relative_to(PurePath(path).anchor)
    return (pure if options.keep_endings else pure.with_suffix("")).as_posix()


def _check_names(items: Collection[tuple[Path, str]]) -> None:
    """Raise `BatchError` if what becomes of two images would have one path."""
    named: dict[str, Path] = {}
    for path, name in items:
        if name in named:
            raise BatchError(
                f"two images would be written under one name, {name!r}: {named[name]} and {path}. Tell them apart by "
                "their endings (--keep-endings) or by their folders (--root FOLDER, a folder above both), or run them "
                "into two folders.",
                path=path,
            )
        named[name] = path
    for folder in {parent for name in named for parent in PurePath(name).parents}:
        if folder.suffix and (other := named.get(folder.with_suffix("").as_posix())):
            raise BatchError(
                f"the results of {other} would be in the way of the folder {folder} of results. Rename one of the "
                "two, or run them into two folders.",
                path=other,
            )
