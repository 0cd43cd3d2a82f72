"""Files that are written whole or not at all, and folders that trade places."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
#: Answers of a kernel without the call, of a filesystem without the flag, and of a sandbox that forbids it.
_CANNOT_EXCHANGE: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


#: Answers of a filesystem that knows no locks, such as Lustre without `-o flock` or NFS without a lock daemon.
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, which becomes `path` when the block ends without an exception.

    Whoever reads `path` meanwhile finds what was there before or all of the new, never a part. Of several writers at
    once, threads or processes, the last one wins.

    Yields:
        The temporary path, whose name ends in `.tmp`: writers that go by a file's suffix must be told the format.

    Raises:
        OSError: the temporary file cannot be renamed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # in a folder that is none, for example: writing said so already
            temporary.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step, so that each names something at every instant.

    Returns:
        False where the system or the filesystem cannot (anything but Linux; NFS, some FUSE filesystems); nothing was
        changed then.

    Raises:
        OSError: it can, and failed.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The function of the C library (glibc 2.28, musl 1.2.6), or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return cast("Callable[[int, bytes, int, bytes, int], int]", function)
