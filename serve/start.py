"""Start of a server: everything that may go wrong is tried before it says that it serves."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.routing import BaseRoute

from .app import create_app
from .limits import Limits
from .logs import log_json
from .metrics import Metrics
from .models import LoadOptions, Models
from .server import open_socket, read_token, run_server, url_of
from .service import Service

_LOOPBACK: Final = ("127.0.0.1", "::1")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Address to listen at; port 0 takes a free one. `token_file` holds the token that requests must bring, if any."""

    host: str
    port: int
    token_file: Path | None = None


@dataclass(frozen=True)
class Server:
    """A server that is ready to take requests.

    Attributes:
        service: with its bundles opened.
        token: what requests must bring, or None.
        is_local: only this machine reaches it.
    """

    service: Service
    token: str | None
    is_local: bool
    _listening: socket.socket

    @property
    def url(self) -> str:
        """Address of the server."""
        return url_of(self._listening)

    def run(self, *, routes: Sequence[BaseRoute] = (), open_paths: Collection[str] = ()) -> None:
        """Take requests until SIGTERM or SIGINT.

        Args:
            routes: more of them, such as those of a page; they find the service in `request.app.state.service`.
            open_paths: paths that need no token.
        """
        app = create_app(self.service, token=self.token, routes=routes, open_paths=open_paths)
        run_server(app, self._listening, self.service.limits)


@contextmanager
def open_server(
    bundles: Sequence[Path], address: Address, options: LoadOptions, limits: Limits, *, allow_reload: bool = False
) -> Iterator[Server]:
    """Open bundles, and an address to serve them at.

    Args:
        bundles: a model each, by its name.
        address: where, and for whom.
        options: how bundles are opened.
        limits: of requests and connections.
        allow_reload: whether clients may have bundles opened again.

    Raises:
        ServeError: the address, the token or the names of the bundles cannot be used.
        AtrousError: a bundle cannot be opened.
    """
    token = read_token(address.token_file) if address.token_file else None
    with open_socket(address.host, address.port) as listening:
        metrics = Metrics()
        service = Service(Models(bundles, options, limits, metrics), limits, metrics, allow_reload=allow_reload)
        log_json()
        is_local = listening.getsockname()[0] in _LOOPBACK
        if token is None and not is_local:
            _logger.warning("everybody who reaches this address may use it: there is no token, see --token-file")
        yield Server(service, token, is_local, listening)
