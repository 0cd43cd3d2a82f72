"""One writer of a bundle at a time: an advisory lock on a file beside the bundle.

The kernel holds the lock, not the file: it is free the moment its process ends, however that ends. Readers take no
lock. What holds over NFS is in `docs/bundle.md`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import BundleError
from .files import NO_LOCKS

#: How long a writer waits for another one.
MAX_WAIT_S: Final = 600.0
#: Waits shorter than this are not mentioned.
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.05
_NOTE_BYTES: Final = 1024

_log = logging.getLogger(__name__)


class _Held:
    """A lock that this process holds; `file` is its descriptor, or None where the filesystem knows no locks."""

    def __init__(self, note: str) -> None:
        self.thread = threading.get_ident()
        self.note = note
        self.file: int | None = None


#: Lock file → its holder in this process. Locks of the kernel belong to processes on some filesystems (NFS), so threads
#: exclude one another here.
_held: dict[Path, _Held] = {}
_guard = threading.Condition()


def _forget_after_fork() -> None:
    """Close a forked child's copies of the locks, which would outlive a parent that is killed."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Condition()
    for held in _held.values():
        if held.file is not None:
            os.close(held.file)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def lock_bundle(target: Path) -> Iterator[bool]:
    """Hold the lock of the bundle at `target` while the block runs; waits for another writer, and says for whom.

    A thread that holds the lock of one bundle does not wait for that of another, so that no two writers can wait for
    each other.

    Args:
        target: the bundle, which need not exist; its folder must.

    Yields:
        True if other processes are excluded too; False, after a warning, on a filesystem without locks.

    Raises:
        BundleError: this thread is changing the bundle already, another writer holds the lock and this thread holds
            another one, the wait exceeds `MAX_WAIT_S`, or the lock file cannot be written.
    """
    file = target.parent.resolve() / f".{target.name}.lock"
    held = _Held(_note())
    waiting = _Wait(target, file)
    _take_turn(file, held, waiting)
    try:
        held.file = _lock_file(file, held, waiting)
        yield held.file is not None
    finally:
        _release(file, held)


class _Wait:
    """The wait of one writer for another: says once for whom, and ends."""

    def __init__(self, target: Path, file: Path) -> None:
        self._target = target
        self._file = file
        self._start = time.monotonic()
        self._is_said = False

    def check(self, holder: str) -> None:
        """Raise BundleError if this thread must not, or not any longer, wait for `holder`."""
        waited = time.monotonic() - self._start
        mine = threading.get_ident()
        if any(held.thread == mine for file, held in list(_held.items()) if file != self._file):
            raise BundleError(
                f"{self._target} is being changed by {holder}, and waiting for it while changing another bundle could "
                "last forever. Change one bundle after the other.",
                path=self._target,
            )
        if waited > MAX_WAIT_S:
            raise BundleError(
                f"{self._target} is still being changed by {holder} after {waited:.0f} s of waiting. Wait for it to "
                "end, or end it, and try again; the bundle is as it was.",
                path=self._target,
            )
        if waited > _PATIENCE_S and not self._is_said:
            self._is_said = True
            _log.warning("waiting for %s, which is changing %s", holder, self._target)


def _take_turn(file: Path, held: _Held, waiting: _Wait) -> None:
    """Enter `held` as the holder in this process, after the others."""
    with _guard:
        while (other := _held.get(file)) is not None:
            if other.thread == held.thread:
                raise BundleError(
                    f"this thread is changing the bundle of {file.name} already; finish that change first",
                    path=file,
                )
            waiting.check(f"another thread of {other.note}")
            _guard.wait(_POLL_S)
        _held[file] = held


def _lock_file(file: Path, held: _Held, waiting: _Wait) -> int | None:
    """Descriptor of the locked file, or None where the filesystem knows no locks."""
    while True:
        descriptor = _open(file)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_at(file, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, held.note.encode(), 0)
                locked, descriptor = descriptor, -1
                return locked
        except BlockingIOError:
            waiting.check(_read_note(descriptor))
            time.sleep(_POLL_S)
        except OSError as exc:
            if exc.errno not in NO_LOCKS:
                raise BundleError(f"cannot lock {file}: {exc.strerror}", path=file) from exc
            _log.warning("%s: this filesystem knows no locks; let nobody else change the bundle meanwhile", file.parent)
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        raise BundleError(
            f"cannot write to {file.parent}: {exc.strerror}. Choose a writable folder.", path=file
        ) from exc


def _is_file_at(file: Path, descriptor: int) -> bool:
    """True unless its last holder removed the file between our opening and our locking it."""
    try:
        # Opened, not stat: over NFS only that asks the server.
        again = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(again), os.fstat(descriptor))
    finally:
        os.close(again)


def _release(file: Path, held: _Held) -> None:
    with _guard:
        if _held.get(file) is not held:  # a forked child leaves the lock to its parent
            return
        if held.file is not None:
            # Removed first, while nobody else can hold it.
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            os.close(held.file)
        del _held[file]
        _guard.notify_all()


def _read_note(descriptor: int) -> str:
    note = os.pread(descriptor, _NOTE_BYTES, 0).decode("utf-8", "replace").strip()
    return note or "another writer"


def _note() -> str:
    """Words for this process, for whoever waits for it."""
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else ""  # noqa: PTH119
    command = f" ({command[:200]})" if command else ""
    return f"process {os.getpid()} on {platform.node() or 'this machine'}{command}, since {time.strftime('%H:%M:%S')}"
