"""`atrous studio`: a bundle in the browser."""

from __future__ import annotations

import logging
import threading
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from ..arguments import check_arguments
from ..bundle import Bundle
from ..errors import importing
from ..serve.limits import Limits
from .options import BackendOption, BundleArgument, ThreadsOption
from .serve import BytesOption, HostOption, PixelsOption, PortOption, PrecisionsOption, TokenOption


@check_arguments
def studio(
    bundle: BundleArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8080,
    backend: BackendOption = "auto",
    precisions: PrecisionsOption = None,
    threads: ThreadsOption = 0,
    token_file: TokenOption = None,
    write: Annotated[
        bool, typer.Option("--write", help="Let the page write the CRF's parameters into the bundle.")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
    max_bytes: BytesOption = Limits.body_bytes,
    max_pixels: PixelsOption = Limits.pixels,
) -> None:
    """Try a bundle in the browser: drop images, compare precisions, and tune the dense CRF while you look.

    Without --precision the page has all graphs of the bundle. Ctrl-C ends it.

    Example: atrous studio street.atrous
    """
    with importing("serve", purpose="atrous studio"):
        from ..serve.models import LoadOptions
        from ..serve.start import Address, open_server
        from ..serve.studio.routes import studio_routes
        from ..serve.studio.studio import Studio

    limits = Limits(body_bytes=max_bytes, pixels=max_pixels)
    chosen = tuple(precisions or _graph_precisions(bundle))
    options = LoadOptions(backend=backend, precisions=chosen, threads=threads)
    with open_server([bundle], Address(host, port, token_file), options, limits) as server:
        logging.getLogger("atrous.serve").setLevel(logging.WARNING)  # whoever looks at the page needs no line a request
        address = server.url + (f"/#token={quote(server.token)}" if server.token else "/")
        with Studio(server.service, str(bundle), writable=write, is_local=server.is_local, threads=threads) as page:
            routes, open_paths = studio_routes(page)
            typer.echo(f"the studio of {bundle} is at {address}")
            if not no_open:
                # A browser may be slow to start, or be one of text that only ends when its user is done.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            server.run(routes=routes, open_paths=open_paths)


def _graph_precisions(bundle: Path) -> list[str]:
    """Precisions of the bundle's graphs, in its order; raises `BundleError` where it cannot be opened."""
    artifacts = Bundle.open(bundle).manifest.artifacts
    return list(dict.fromkeys(each.precision for each in artifacts if each.kind == "onnx"))
