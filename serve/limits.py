"""Limits of a server: on bytes, pixels and seconds, and on what it holds at once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ..arguments import check_fields, describe
from ..errors import ServeError
from .refusals import RefusedError

#: From here on a limit is none.
_ENDLESS: Final = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on what a server takes from its clients; all are above 0.

    Attributes:
        body_bytes: of the body of a request.
        json_bytes: of the JSON in it, which is parsed without a pause; larger images go as bytes.
        pixels: of an image, checked before it is decoded.
        probability_bytes: of the probabilities of all classes at full size, which PROBABILITIES, CONFIDENCE and the
            dense CRF need.
        held_bytes: of bodies, images and answers of all requests together.
        queue: images that wait for a model.
        connections: open at once.
        header_s: until the header of a request is there.
        body_s: until its body is there.
        wait_s: until its image is segmented.
        send_s: for which a client may not read its answer.
        drain_s: that a server which was told to stop gives to requests in work.
    """

    body_bytes: int = 64 << 20
    json_bytes: int = 8 << 20
    pixels: int = 1 << 24
    probability_bytes: int = 256 << 20
    held_bytes: int = 1 << 30
    queue: int = 32
    connections: int = 512
    header_s: float = 10.0
    body_s: float = 30.0
    wait_s: float = 30.0
    send_s: float = 30.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        check_fields(self)
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if not 0 < value < _ENDLESS:
                raise ServeError(f"the limit {each.name} must be above 0 and finite; got {describe(value)}")


class Budget:
    """Bytes that all requests together may hold; safe to use from many threads."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes held at the moment."""
        return self._held

    @contextmanager
    def hold(self) -> Iterator[Holding]:
        """Hold bytes, added as they come, until the block ends."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.change(-holding.held_bytes)

    def change(self, count: int) -> None:
        """Hold `count` more bytes, fewer where it is negative; raises `RefusedError` where they would be too many."""
        with self._lock:
            if count > 0 and self._held + count > self._total:
                raise RefusedError(
                    503, f"the server holds {self._held} bytes of requests, of at most {self._total}", retry_after_s=1
                )
            self._held += count


class Holding:
    """Bytes that one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def add(self, count: int) -> None:
        """Hold `count` more bytes; raises `RefusedError` (503) where all requests together would hold too many."""
        self._budget.change(count)
        self.held_bytes += count
