"""Guard against pages of other sites, whose requests a browser sends for anybody who visits them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..refusals import RefusedError


class SameOrigin:
    """ASGI application around another one that only its own pages, and programs, may use.

    Args:
        app: what is behind it.
        is_local: whether only this machine reaches the server: then the name in a request is a name of this machine.
            A site whose name was made to lead here has another one (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, is_local: bool) -> None:
        self._app = app
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through; raises `RefusedError` (403) for one of another site."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._is_local and not _names_this_machine(host):
            raise RefusedError(403, f"this server is for 127.0.0.1 and localhost; the request names {host[:80]!r}")
        is_foreign = origin is not None and urlsplit(origin).netloc != host
        if is_foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise RefusedError(403, f"pages of other sites may not use this server; the request is of {origin!r}")
        await self._app(scope, receive, send)


def _names_this_machine(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
