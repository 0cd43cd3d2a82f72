"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


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
