"""Connections of a server that end those of clients who send no header, or do not read their answer."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .limits import Limits

#: Bytes of a request's line and headers.
_HEADER_BYTES: Final = 64 << 10


class Connection(HttpToolsProtocol):
    """Uvicorn's connection with limits that it has not: on the time and size of a header, and on the time to send.

    `limited` makes the class for a server's limits.
    """

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as uvicorn calls it
        super().__init__(*args, **kwargs)
        self._timers: dict[str, TimerHandle] = {}
        self._reads_header = self._answers = False
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Wait for the first header; count everything that the system did not take as not sent."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._start("header", self.limits.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and end the connection of an endless header."""
        super().data_received(data)
        if self._reads_header:
            self._header_bytes += len(data)
            if self._header_bytes > _HEADER_BYTES:
                self.transport.abort()
        if self._answers and not self.cycle.response_complete:
            self._stop("header")
        elif "header" not in self._timers:  # part of a header, or the rest of a body that was refused
            self._start("header", self.limits.header_s)

    def on_message_begin(self) -> None:
        """Begin to count a header."""
        super().on_message_begin()
        self._reads_header, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._reads_header, self._answers = False, True
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._start("send", self.limits.send_s)

    def resume_writing(self) -> None:
        """Stop waiting: everything was taken."""
        super().resume_writing()
        self._stop("send")

    def _start(self, name: str, seconds: float) -> None:
        self._timers[name] = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()


def limited(limits: Limits) -> type[Connection]:
    """The class of connections with these limits."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
