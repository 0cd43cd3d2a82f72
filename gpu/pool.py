"""Memory of the GPU that is kept for the next buffer of its size."""

from __future__ import annotations

from collections import deque
from typing import Any


class Pool:
    """Memory of freed buffers, for the next ones of exactly that size.

    PyCUDA's own pool rounds sizes up, and ends the process when a buffer is freed while no context is current. Giving
    memory back to this one makes no call to the driver, so that any thread may do it, the garbage collector included.

    Args:
        most_bytes: that it keeps unused.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._free: deque[tuple[int, Any]] = deque()  # the longest unused first

    @property
    def nbytes(self) -> int:
        """Bytes that it holds unused."""
        return sum(nbytes for nbytes, _ in tuple(self._free))

    def give(self, nbytes: int, allocation: Any) -> None:  # noqa: ANN401 - what frees itself with its last reference
        """Takes an allocation back."""
        self._free.append((nbytes, allocation))

    def take(self, nbytes: int) -> Any:  # noqa: ANN401
        """An allocation of this size or None. Frees what is too much, so the context must be current."""
        self.shrink(self._most_bytes)
        for entry in tuple(self._free):
            if entry[0] == nbytes:
                self._free.remove(entry)
                return entry[1]
        return None

    def shrink(self, most_bytes: int) -> None:
        """Frees the longest unused until no more than this is left."""
        while self.nbytes > most_bytes:
            self._free.popleft()


class PooledBuffer:
    """An allocation that goes back to its pool with the last reference.

    Attributes:
        address: the device pointer.
        nbytes: the size.
    """

    def __init__(self, pool: Pool, allocation: Any, nbytes: int) -> None:  # noqa: ANN401
        self._pool = pool
        self._allocation = allocation
        self.address = int(allocation)
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._pool.give(self.nbytes, self._allocation)
