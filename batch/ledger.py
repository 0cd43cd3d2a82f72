"""The ledger of a run: a line of JSON for each image that is done or failed, by which a run is resumed."""

from __future__ import annotations

import errno
import fcntl
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import BatchError
from ..manifest import Size
from ..runtime.journal import Journal, JournalKind, Place, as_read, read_lines
from .outputs import Output
from .work_list import Shard

_KIND: Final = JournalKind(
    format="atrous ledger 1", name="ledger", run="run", article="a", error=BatchError, repairs_header=True
)
_NAME: Final = re.compile(r"ledger(?:\.(\d+)-of-(\d+))?\.jsonl")
#: Lines are synced together when so long has passed since the last time; then the images are reported as done.
SYNC_S: Final = 0.5


@dataclass(frozen=True)
class Entry:
    """An image that is done, or failed.

    Attributes:
        name: as in the list of work.
        input: its path.
        size: height and width in pixels; None if it could not be read.
        outputs: what was written.
        classes: class id → share of the pixels, of those that occur.
        timings_ms: milliseconds by stage, reading and writing among them.
        error: why it failed; empty if it did not.
    """

    name: str
    input: str
    size: Size | None = None
    outputs: tuple[Output, ...] = ()
    classes: Mapping[int, float] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON of its line."""
        line: dict[str, Any] = {"name": self.name, "input": self.input, "size": self.size}
        if self.error:
            return {**line, "error": self.error}
        return {
            **line,
            "outputs": {each.kind: [each.file, each.size_bytes, each.sha256] for each in self.outputs},
            "classes": {str(index): round(share, 6) for index, share in self.classes.items()},
            "ms": round(sum(self.timings_ms.values()), 3),
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
        }


class Ledger:
    """The open ledger of one shard in a folder, and what the ledgers of all shards there say is done.

    A line is with the system when `add` returns, so that a killed process loses nothing. It is on the disk, and so safe
    from a power failure, when `add` or `sync` says so.

    Args:
        folder: of the results.
        identity: JSON values; all that the results depend on besides the images.
        shard: the part of the images that is this run's.
        resume: go on with what is there. Otherwise there must be nothing.

    Raises:
        BatchError: the folder has a ledger and `resume` is False; a ledger is of another run or damaged; another
            process works on the same images, or the files cannot be opened.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard: Shard, *, resume: bool) -> None:
        self.path = folder / ledger_name(shard)
        self.done: set[str] = set()
        self._folder = folder
        self._waiting = 0
        self._synced_at = time.monotonic()
        others = [path for path in folder.glob("ledger*.jsonl") if path != self.path and _NAME.fullmatch(path.name)]
        if not resume:
            self._check_new([self.path, *(path for path in others if _count(path) != shard.count)])
        try:
            self._journal = Journal(self.path, _KIND, identity, self._accept)
        except OSError as exc:
            raise BatchError(f"cannot write {self.path}: {exc.strerror}", path=self.path) from exc
        try:
            self._read_others(others, identity, shard)
        except BaseException:
            self._journal.close()
            raise

    def add(self, entry: Entry) -> int:
        """Append a line; returns how many lines since the last time are now on the disk: 0 while some wait.

        Raises:
            BatchError: it cannot be written, because the disk is full for example.
        """
        self._waiting += 1
        try:
            self._journal.append(entry.to_dict())
        except OSError as exc:
            raise self._failed(exc) from exc
        return self.sync() if time.monotonic() - self._synced_at >= SYNC_S else 0

    def sync(self) -> int:
        """Wait for the disk; returns how many lines are on it since the last time. Raises as `add` does."""
        try:
            self._journal.sync()
        except OSError as exc:
            raise self._failed(exc) from exc
        count, self._waiting, self._synced_at = self._waiting, 0, time.monotonic()
        return count

    def close(self) -> None:
        """Close the file, and let other processes have it."""
        self._journal.close()

    def _check_new(self, paths: list[Path]) -> None:
        for path in paths:
            if path.exists() and path.stat().st_size:
                raise BatchError(
                    f"{self._folder} holds a run already, whose ledger is {path.name}. Go on with it (--resume), or "
                    "choose another folder.",
                    path=path,
                )

    def _read_others(self, paths: list[Path], identity: Mapping[str, Any], shard: Shard) -> None:
        """Take what other shards have done; those of another number overlap with this one, so none may be running."""
        header = as_read({"format": _KIND.format, **identity})
        for path in paths:
            try:
                if _count(path) != shard.count and _is_locked(path):
                    raise BatchError(
                        f"{path} is being written by a run that has some of the same images: its shards are "
                        f"{_count(path)}, this one's {shard.count}. Wait for it to end, or use its number of shards.",
                        path=path,
                    )
                read_lines(path, _KIND, header, self._accept)
            except OSError as exc:
                raise BatchError(f"cannot read {path}: {exc.strerror}", path=path) from exc

    def _accept(self, line: Any, _: Place) -> None:  # noqa: ANN401 - JSON
        """Take a line of a ledger: an image is done if what it became is still there."""
        name = str(line["name"])
        if "error" not in line and all(
            self._is_there(str(file), int(size)) for file, size, _sha256 in line["outputs"].values()
        ):
            self.done.add(name)
        else:
            self.done.discard(name)

    def _is_there(self, file: str, size_bytes: int) -> bool:
        try:
            return (self._folder / file).stat().st_size == size_bytes
        except OSError:
            return False

    def _failed(self, exc: OSError) -> BatchError:
        return BatchError(
            f"cannot write {self.path}: {exc.strerror}. What it holds is safe: go on with --resume.", path=self.path
        )


def ledger_name(shard: Shard) -> str:
    """Name of the ledger of a shard."""
    return "ledger.jsonl" if shard.count == 1 else f"ledger.{shard.index}-of-{shard.count}.jsonl"


def _count(path: Path) -> int:
    """Number of the shards that a ledger's name says."""
    match = _NAME.fullmatch(path.name)
    return int(match[2] or 1) if match else 0


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as exc:
            return exc.errno in (errno.EWOULDBLOCK, errno.EAGAIN)
    return False
