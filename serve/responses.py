"""Responses that go out in pieces, so that one which a client does not read stays out of the connection's buffer."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Bytes of a piece; uvicorn waits before the next one until the client has read.
_PIECE_BYTES: Final = 256 << 10


class PiecewiseResponse(Response):
    """A response whose body is sent as the client reads it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that does not read is the connection's to end."""
        body = memoryview(self.body)
        if len(body) <= _PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(body), _PIECE_BYTES):
            piece = bytes(body[start : start + _PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
