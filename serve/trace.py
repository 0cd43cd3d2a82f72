"""Trace of one request: its id, and where its time went."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

#: An id that a client gives is taken over where it is one that can stand in a log.
_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass
class Trace:
    """A request on its way.

    Attributes:
        request_id: of the client's header `X-Request-ID`, or made here.
        model: its name, where the request has come to one.
        stages_ms: milliseconds by stage, in order.
        until_sent: what is to be given back when the answer has been sent.
    """

    request_id: str
    model: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)
    until_sent: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Note the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3

    @property
    def server_timing(self) -> str:
        """The stages as the header `Server-Timing` has them, which browsers show (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={value:.2f}" for stage, value in self.stages_ms.items())


def request_id(given: str | None) -> str:
    """The client's id of a request, or a new one."""
    return given if given and _ID.fullmatch(given) else secrets.token_hex(8)
