"""Files of the page: read once, and sent with a policy that keeps everything from elsewhere out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
#: The page itself, which is at `/`; its files are beside `/studio/`.
_PAGE: Final = "index.html"
_HEADERS: Final[Mapping[str, str]] = {
    # blob: for pictures that the page makes; the camera's are streams, which need no source.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked for again, and answered with 304 where it has not changed
}


def asset_routes() -> list[Route]:
    """A route for each file of the page."""
    folder = resources.files(__package__) / "page"
    routes = []
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        suffix = "." + file.name.rpartition(".")[2]
        path = "/" if file.name == _PAGE else f"/studio/{file.name}"
        routes.append(_route(path, file.read_bytes(), _TYPES[suffix]))
    return routes


def _route(path: str, content: bytes, media_type: str) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, answer)
