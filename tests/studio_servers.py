"""Studios to test, in threads of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from http_servers import PATIENCE_S

from atrous.serve.app import create_app
from atrous.serve.limits import Limits
from atrous.serve.metrics import Metrics
from atrous.serve.models import LoadOptions, Models
from atrous.serve.server import make_server, open_socket
from atrous.serve.service import Service
from atrous.serve.studio.routes import studio_routes
from atrous.serve.studio.studio import Studio


@dataclass(frozen=True)
class RunningStudio:
    """A studio that answers."""

    port: int
    studio: Studio

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def studio_in_thread(
    bundle: Path,
    precisions: tuple[str, ...] = ("fp32",),
    *,
    limits: Limits | None = None,
    token: str | None = None,
    writable: bool = False,
    is_local: bool = True,
) -> Iterator[RunningStudio]:
    """The studio of a bundle at a free port."""
    limits = limits or Limits()
    metrics = Metrics()
    models = Models([bundle], LoadOptions(threads=1, precisions=precisions, backend="onnxruntime"), limits, metrics)
    service = Service(models, limits, metrics, allow_reload=False)
    with (
        open_socket("127.0.0.1", 0) as listening,
        Studio(service, str(bundle), writable=writable, is_local=is_local, threads=1) as studio,
    ):
        routes, open_paths = studio_routes(studio)
        server = make_server(create_app(service, token=token, routes=routes, open_paths=open_paths), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield RunningStudio(listening.getsockname()[1], studio)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
