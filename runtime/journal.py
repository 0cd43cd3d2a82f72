"""A file that makes a long run resumable: a header that says which run it is, then a line of JSON for each step."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AtrousError
from ..files import NO_LOCKS


@dataclass(frozen=True, kw_only=True)
class JournalKind:
    """Journals of one kind, and how errors speak of them.

    Attributes:
        format: value of the header's key `format`.
        name: a journal of this kind, such as "state".
        run: what it belongs to, such as "evaluation".
        article: of the latter, "a" or "an".
        error: takes the message and `path=`.
        repairs_header: a header that was cut off is written again. Only for journals whose name nobody else would use.
    """

    format: str
    name: str
    run: str
    article: str
    error: Callable[..., AtrousError]
    repairs_header: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a line in bytes: where it starts, and its length."""

    start: int
    length: int


class Journal:
    """An open journal, which one process at a time may have open. Reading is safe from many threads, adding from one.

    What an interruption left of a last line is cut off.

    Args:
        path: made where it does not exist.
        kind: says how errors speak of it.
        identity: JSON values; what the lines depend on. It becomes the header.
        accept: takes each line that is there, and its place; raises what a wrong structure happens to raise.

    Raises:
        AtrousError: of `kind.error`: the file is of another kind or another run, damaged, open elsewhere, or cannot be
            opened.
        OSError: it cannot be written.
    """

    def __init__(
        self, path: Path, kind: JournalKind, identity: Mapping[str, Any], accept: Callable[[Any, Place], None]
    ) -> None:
        self._path = path
        header = as_read({"format": kind.format, **identity})
        try:
            # Unbuffered: closing would try again to write what a full disk did not take.
            self._file = path.open("ab+", buffering=0)
        except OSError as exc:
            raise kind.error(f"cannot keep the {kind.run} in {path}: {exc.strerror}", path=path) from exc
        try:
            self._lock(kind)
            self._size = read_lines(path, kind, header, accept)
            self._file.truncate(self._size)
            if self._size == 0:
                self.append(header)
        except BaseException:
            self._file.close()
            raise

    def append(self, value: Mapping[str, Any]) -> Place:
        """Append a line, which the system has when this returns; returns its place.

        Raises:
            OSError: it cannot be written, or not all of it.
        """
        line = _line(value)
        written = 0
        while written < len(line):
            written += self._file.write(line[written:])
        place = Place(self._size, len(line))
        self._size += len(line)
        return place

    def sync(self) -> None:
        """Wait until the disk has what was appended.

        Raises:
            OSError: the disk failed.
        """
        os.fsync(self._file.fileno())

    def read(self, place: Place) -> Any:  # noqa: ANN401 - JSON
        """The value of a line."""
        return json.loads(os.pread(self._file.fileno(), place.length, place.start))

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._file.close()

    def _lock(self, kind: JournalKind) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise kind.error(
                f"{self._path} is being written by another {kind.run} that is still running. Wait for it to end, "
                "or choose another place.",
                path=self._path,
            ) from exc
        except OSError as exc:
            if exc.errno not in NO_LOCKS:  # without locks nobody is locked out
                raise kind.error(f"cannot lock {self._path}: {exc.strerror}", path=self._path) from exc


def read_lines(path: Path, kind: JournalKind, header: Mapping[str, Any], accept: Callable[[Any, Place], None]) -> int:
    """Read the lines of a journal that are whole, and check its header; returns their bytes.

    Args:
        path: of the file.
        kind: what it is to be.
        header: JSON values as they are read, which its header has to have.
        accept: as `Journal` takes it.

    Raises:
        AtrousError: of `kind.error`, as `Journal` raises it.
        OSError: it cannot be read.
    """
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > 1 and not line.endswith(b"\n"):
                break
            if number == 1 and kind.repairs_header and line != _line(header) and _line(header).startswith(line):
                break
            try:
                if number == 1:
                    _check_header(path, kind, line, header)
                else:
                    accept(json.loads(line), Place(size, len(line)))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
                if isinstance(exc, AtrousError):
                    raise
                raise kind.error(
                    f"{path} is not the {kind.name} of {kind.article} {kind.run}, or is damaged in line {number}: "
                    f"{exc}. Choose another file, or delete it to start over.",
                    path=path,
                ) from exc
            size += len(line)
    return size


def _check_header(path: Path, kind: JournalKind, line: bytes, wanted: Mapping[str, Any]) -> None:
    found = json.loads(line)
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    if found.get("format") != kind.format:
        raise ValueError(f"its format is {found.get('format')!r}, expected {kind.format!r}")
    for key, value in wanted.items():
        if found.get(key) != value:
            raise kind.error(
                f"{path} is the {kind.name} of another {kind.run}: its {key} is {found.get(key)!r}, this one's is "
                f"{value!r}. Choose another file.",
                path=path,
            )


def as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values as they will be read: tuples become lists."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
