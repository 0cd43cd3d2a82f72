"""Pool of GPU memory."""

from __future__ import annotations

from collections import deque
from typing import Any


class Pool:
    """Keeps the memory of freed buffers for later buffers of exactly the same size.

    PyCUDA's own pool rounds sizes up, and ends the process if a buffer is freed while no context is current. Returning
    memory to this pool makes no driver call, so any thread can do it, including the garbage collector.

    Args:
        max_bytes: maximum amount of unused memory.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._free: deque[tuple[int, Any]] = deque()  # least recently used first

    @property
    def nbytes(self) -> int:
        """Bytes of unused memory."""
        return sum(nbytes for nbytes, _ in tuple(self._free))

    def give(self, nbytes: int, allocation: Any) -> None:  # noqa: ANN401 - what frees itself with its last reference
        """Return an allocation to the pool."""
        self._free.append((nbytes, allocation))

    def take(self, nbytes: int) -> Any:  # noqa: ANN401
        """Take an allocation of this size, or None; frees excess memory, so the context must be current."""
        self.shrink(self._max_bytes)
        for entry in tuple(self._free):
            if entry[0] == nbytes:
                self._free.remove(entry)
                return entry[1]
        return None

    def shrink(self, max_bytes: int) -> None:
        """Free the least recently used allocations until at most `max_bytes` are left."""
        while self.nbytes > max_bytes:
            self._free.popleft()


class PooledBuffer:
    """Allocation that returns to its pool with the last reference.

    Attributes:
        address: device pointer.
        nbytes: size in bytes.
    """

    def __init__(self, pool: Pool, allocation: Any, nbytes: int) -> None:  # noqa: ANN401
        self._pool = pool
        self._allocation = allocation
        self.address = int(allocation)
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._pool.give(self.nbytes, self._allocation)
