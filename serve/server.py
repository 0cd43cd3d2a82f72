"""Process of a server: a socket, uvicorn's loop, and an end that finishes what has begun."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ..errors import ServeError
from .connection import limited
from .limits import Limits

#: Seconds that an idle connection stays open: as long as pools of clients keep theirs.
_KEEP_ALIVE_S: Final = 75
_FEWEST_TOKEN_CHARACTERS: Final = 16


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 takes a free one.

    Raises:
        ServeError: the address is not of this machine, or the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, UnicodeError, OverflowError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise ServeError(
            f"cannot listen at {host} port {port}: {reason}; choose others with --host and --port"
        ) from exc


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        ServeError: the file cannot be read, or holds no token.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ServeError(f"cannot read a token from {path}: {exc}") from exc
    if len(token) < _FEWEST_TOKEN_CHARACTERS or any(each.isspace() for each in token):
        raise ServeError(
            f"{path} holds no token: expected at least {_FEWEST_TOKEN_CHARACTERS} characters without spaces, such as "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` prints"
        )
    return token


def url_of(listening: socket.socket) -> str:
    """Address of a server for a browser or a client."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """A server of an application within limits; `should_exit` ends it as SIGTERM does."""
    config = uvicorn.Config(
        app,
        http=limited(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Server(config)


def run_server(app: ASGIApp, listening: socket.socket, limits: Limits) -> None:
    """Serve at a socket of `open_socket` until SIGTERM or SIGINT; requests in work get `limits.drain_s` to finish."""
    with _quiet_end():
        make_server(app, limits).run(sockets=[listening])


@contextmanager
def _quiet_end() -> Iterator[None]:
    """End normally on SIGTERM, which uvicorn, after it has stopped, would let kill the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
