"""Pieces of memory."""

from __future__ import annotations

from dataclasses import dataclass

from .device import Buffer


@dataclass(frozen=True, slots=True)
class Region:
    """Part of a buffer, as a buffer.

    Attributes:
        whole: the buffer, kept alive.
        offset: of the first byte.
        nbytes: the size.
    """

    whole: Buffer
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """The device pointer."""
        return self.whole.address + self.offset


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)
