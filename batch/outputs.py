"""Files that a run writes: whole, on the disk, and known by their hash."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import BatchError
from ..files import write_whole

#: Names that `write_whole` gives to files that are not whole yet.
_TEMPORARY: Final = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class OutputKind:
    """One of the files that become of an image: `FOLDER/NAME.ENDING` in the folder of the results.

    Attributes:
        name: in the ledger, and of the folder.
        ending: with its dot.
    """

    name: str
    ending: str

    def file(self, name: str) -> str:
        """Path, relative to the folder of the results, of what becomes of an image of this name."""
        return f"{self.name}/{name}{self.ending}"


LABELS: Final = OutputKind("labels", ".png")
OVERLAYS: Final = OutputKind("overlays", ".jpg")
PROBABILITIES: Final = OutputKind("probabilities", ".npy")


@dataclass(frozen=True)
class Output:
    """A file that was written.

    Attributes:
        kind: name of its kind.
        file: path relative to the folder of the results.
        sha256: of its content, hex.
    """

    kind: str
    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class OutputFolder:
    """The folder of the results of a run."""

    path: Path

    def write(self, kind: OutputKind, name: str, encode: Callable[[BinaryIO], object]) -> Output:
        """Write a file whole; it is on the disk when this returns.

        Args:
            kind: of file.
            name: of the image.
            encode: writes the content.

        Raises:
            BatchError: it cannot be written: a full disk, a folder without permission.
        """
        buffer = io.BytesIO()
        encode(buffer)
        content, file = buffer.getbuffer(), kind.file(name)
        target = self.path / file
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(target) as temporary, temporary.open("wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as exc:
            raise BatchError(
                f"cannot write {target}: {exc.strerror}. What is done is safe: make room or choose a writable folder, "
                "and go on with --resume.",
                path=target,
            ) from exc
        return Output(kind.name, file, len(content), hashlib.sha256(content).hexdigest())

    def remove_leftovers(self, files: Iterable[str]) -> None:
        """Remove what a killed process left of these files, whose paths are relative; others may be in work."""
        wanted = set(files)
        for folder in {kind.name for kind in (LABELS, OVERLAYS, PROBABILITIES)}:
            for path in (self.path / folder).rglob(".*.tmp"):
                match = _TEMPORARY.fullmatch(path.name)
                if match and path.with_name(match[1]).relative_to(self.path).as_posix() in wanted:
                    path.unlink(missing_ok=True)
