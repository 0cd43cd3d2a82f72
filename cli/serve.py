"""`atrous serve`: bundles over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import check_arguments
from ..errors import importing
from ..runtime.path import MAX_BATCH
from .console import errors, print_line
from .options import BackendOption, FastOption, ThreadsOption

_LIMITS_PANEL = "Limits"

BundlesArgument = Annotated[list[Path], typer.Argument(metavar="BUNDLE…", help="NAME.atrous directories.")]
HostOption = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 for the network.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Precision that requests may ask for, as in `atrous run`; repeatable. The first is the default.",
    ),
]
MaxBatchOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_BATCH,
        help="Images of one size that share an inference at most; 0 for 1 on the CPU and as many as possible on a GPU.",
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with a token that requests must bring."),
]


@check_arguments
def serve(
    bundles: BundlesArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    backend: BackendOption = "auto",
    precisions: PrecisionsOption = None,
    fast: FastOption = False,
    crf: Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF unless a request says no.")] = False,
    threads: ThreadsOption = 0,
    workers: Annotated[int, typer.Option(min=1, help="Batches in work at once, for each bundle.")] = 1,
    max_batch: MaxBatchOption = 0,
    token_file: TokenOption = None,
    allow_reload: Annotated[
        bool, typer.Option("--allow-reload", help="Let clients have bundles opened again: …/models/NAME/load.")
    ] = False,
    queue: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Images that wait for each bundle.")
    ] = 32,
    max_bytes: Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Bytes of a request.")] = 64
    << 20,
    max_pixels: Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Pixels of an image.")] = 1
    << 24,
    max_memory: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Bytes of all requests together.")
    ] = 1 << 30,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, rich_help_panel=_LIMITS_PANEL, help="Seconds until an image is segmented.")
    ] = 30.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0.1, rich_help_panel=_LIMITS_PANEL, help="Seconds to finish requests after SIGTERM.")
    ] = 30.0,
) -> None:
    """Serve bundles over HTTP: the Open Inference Protocol v2, and POST /segment for curl.

    Example: atrous serve street.atrous --port 8000
    """
    with importing("serve", purpose="atrous serve"):
        from ..serve.app import create_app
        from ..serve.limits import Limits
        from ..serve.logs import log_json
        from ..serve.metrics import Metrics
        from ..serve.models import LoadOptions, Models
        from ..serve.server import open_socket, read_token, run_server, url_of
        from ..serve.service import Service

    limits = Limits(
        queue=queue,
        body_bytes=max_bytes,
        pixels=max_pixels,
        held_bytes=max_memory,
        wait_s=max_seconds,
        drain_s=drain_seconds,
    )
    token = read_token(token_file) if token_file else None
    options = LoadOptions(
        backend=backend,
        precisions=tuple(precisions or ("auto",)),
        crf=crf,
        threads=threads,
        workers=workers,
        max_batch=max_batch,
        fast=fast,
    )
    with open_socket(host, port) as listening:
        metrics = Metrics()
        models = Models(bundles, options, limits, metrics)
        service = Service(models, limits, metrics, allow_reload=allow_reload)
        if token is None and listening.getsockname()[0] not in ("127.0.0.1", "::1"):
            print_line("warning: everybody who reaches this address may use it; see --token-file", console=errors)
        log_json()
        names = ", ".join(model.name for model in models)
        typer.echo(f"serving {names} at {url_of(listening)}")
        run_server(create_app(service, token=token), listening, limits)
