"""`atrous serve`: bundles over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import check_arguments
from ..errors import importing
from ..runtime.path import MAX_BATCH
from ..serve.limits import Limits
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
CrfOption = Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF unless a request says no.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Batches in work at once, for each bundle.")]
ReloadOption = Annotated[
    bool, typer.Option("--allow-reload", help="Let clients have bundles opened again: …/models/NAME/load.")
]
QueueOption = Annotated[
    int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Images that wait for each bundle.")
]
BytesOption = Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Bytes of a request.")]
PixelsOption = Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Pixels of an image.")]
MemoryOption = Annotated[
    int, typer.Option(min=1, rich_help_panel=_LIMITS_PANEL, help="Bytes of all requests together.")
]
SecondsOption = Annotated[
    float, typer.Option(min=0.1, rich_help_panel=_LIMITS_PANEL, help="Seconds until an image is segmented.")
]
DrainOption = Annotated[
    float, typer.Option(min=0.1, rich_help_panel=_LIMITS_PANEL, help="Seconds to finish requests after SIGTERM.")
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
    crf: CrfOption = False,
    threads: ThreadsOption = 0,
    workers: WorkersOption = 1,
    max_batch: MaxBatchOption = 0,
    token_file: TokenOption = None,
    allow_reload: ReloadOption = False,
    queue: QueueOption = Limits.queue,
    max_bytes: BytesOption = Limits.body_bytes,
    max_pixels: PixelsOption = Limits.pixels,
    max_memory: MemoryOption = Limits.held_bytes,
    max_seconds: SecondsOption = Limits.wait_s,
    drain_seconds: DrainOption = Limits.drain_s,
) -> None:
    """Serve bundles over HTTP: the Open Inference Protocol v2, and POST /segment for curl.

    Example: atrous serve street.atrous --port 8000
    """
    with importing("serve", purpose="atrous serve"):
        from ..serve.models import LoadOptions
        from ..serve.start import Address, open_server

    limits = Limits(
        queue=queue,
        body_bytes=max_bytes,
        pixels=max_pixels,
        held_bytes=max_memory,
        wait_s=max_seconds,
        drain_s=drain_seconds,
    )
    options = LoadOptions(
        backend=backend,
        precisions=tuple(precisions or ("auto",)),
        crf=crf,
        threads=threads,
        workers=workers,
        max_batch=max_batch,
        fast=fast,
    )
    address = Address(host, port, token_file)
    with open_server(bundles, address, options, limits, allow_reload=allow_reload) as server:
        typer.echo(f"serving {', '.join(model.name for model in server.service.models)} at {server.url}")
        server.run()
