"""Start of a server: everything that may go wrong is tried before it says that it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
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


def serve_bundles(
    bundles: Sequence[Path],
    address: Address,
    options: LoadOptions,
    limits: Limits,
    *,
    allow_reload: bool,
    say: Callable[[str], object],
    routes: Sequence[BaseRoute] = (),
) -> None:
    """Serve bundles until SIGTERM or SIGINT.

    Args:
        bundles: a model each, by its name.
        address: where, and for whom.
        options: how bundles are opened.
        limits: of requests and connections.
        allow_reload: whether clients may have bundles opened again.
        say: told the address once requests are taken.
        routes: more of them, such as those of a page; they find the service in `request.app.state.service`.

    Raises:
        ServeError: the address, the token or the names of the bundles cannot be used.
        AtrousError: a bundle cannot be opened.
    """
    token = read_token(address.token_file) if address.token_file else None
    with open_socket(address.host, address.port) as listening:
        metrics = Metrics()
        models = Models(bundles, options, limits, metrics)
        service = Service(models, limits, metrics, allow_reload=allow_reload)
        log_json()
        if token is None and listening.getsockname()[0] not in _LOOPBACK:
            _logger.warning("everybody who reaches this address may use it: there is no token, see --token-file")
        say(f"serving {', '.join(model.name for model in models)} at {url_of(listening)}")
        run_server(create_app(service, token=token, routes=routes), listening, limits)
