"""`atrous triton`: bundles become models of Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..arguments import check_arguments
from .console import JsonFlag, print_json, print_line, status
from .options import BackendOption, PrecisionOption, ThreadsOption, parse_size

SERVER_PANEL = "Server"
NETWORK_PANEL = "Network"

BundlesArgument = Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="NAME.atrous directories.")]
RepositoryOption = Annotated[Path, typer.Option(metavar="DIR", help="The model repository to write the models into.")]
FlavourOption = Annotated[
    Literal["python", "cpp"],
    typer.Option(help="What runs a model: atrous in Triton's Python backend, or libtriton_atrous.so."),
]
InstancesOption = Annotated[
    int, typer.Option(min=1, rich_help_panel=SERVER_PANEL, help="Instances of a model, which work at the same time.")
]
GpuFlag = Annotated[bool, typer.Option("--gpu", rich_help_panel=SERVER_PANEL, help="Instances on each GPU.")]
MaxBatchOption = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=SERVER_PANEL,
        help="The most images of a request [N, H, W, bands], and of requests of equal sizes that Triton joins; 0 for "
        "images [H, W, bands] without a batch axis.",
    ),
]
BatchDelayOption = Annotated[
    int,
    typer.Option(
        min=0, metavar="US", rich_help_panel=SERVER_PANEL, help="How long a request waits for others to join, in µs."
    ),
]
QueueOption = Annotated[
    int, typer.Option(min=1, rich_help_panel=SERVER_PANEL, help="Requests that may wait; further ones are refused.")
]
QueueTimeoutOption = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="MS",
        rich_help_panel=SERVER_PANEL,
        help="How long a request may wait before it is refused, in ms; 0 for as long as it takes.",
    ),
]
WarmUpOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HxW",
        rich_help_panel=SERVER_PANEL,
        help="Size of an image to segment before the model is ready, may be repeated; by default the bundle's best.",
    ),
]
CacheFlag = Annotated[
    bool,
    typer.Option(
        "--cache", rich_help_panel=SERVER_PANEL, help="Answer repeated images from the server's response cache."
    ),
]
SitePackagesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        rich_help_panel=SERVER_PANEL,
        help="Folder where the server's Python finds atrous, besides its own; may be repeated (python).",
    ),
]
CrfFlag = Annotated[bool, typer.Option("--crf", help="Refine with the dense CRF, with the bundle's parameters.")]
NetworkFlag = Annotated[
    bool,
    typer.Option(
        "--bare-network",
        help="Also write NAME_network, the ONNX graph, and NAME_engine, the TensorRT engines, for pre- and "
        "postprocessing of your own.",
    ),
]
LinkFlag = Annotated[bool, typer.Option("--link", help="Link the bundles into the repository instead of copying them.")]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace models of these names.")]


@check_arguments
def triton(
    bundles: BundlesArgument,
    repository: RepositoryOption,
    flavour: FlavourOption = "python",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    crf: CrfFlag = False,
    threads: ThreadsOption = 0,
    instances: InstancesOption = 1,
    gpu: GpuFlag = False,
    max_batch: MaxBatchOption = 0,
    batch_delay: BatchDelayOption = 0,
    queue: QueueOption = 64,
    queue_timeout: QueueTimeoutOption = 0,
    warm_up: WarmUpOption = None,
    cache: CacheFlag = False,
    site_packages: SitePackagesOption = None,
    bare_network: NetworkFlag = False,
    link: LinkFlag = False,
    overwrite: OverwriteFlag = False,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Write a model repository for Triton Inference Server, a model for each bundle.

    Example: atrous triton street.atrous --repository models
    """
    from ..serve.triton import TritonOptions, write_repository

    options = TritonOptions(
        flavour=flavour,
        instances=instances,
        gpu=gpu,
        max_batch=max_batch,
        batch_delay_us=batch_delay,
        queue=queue,
        queue_timeout_ms=queue_timeout,
        warm_up=tuple(map(parse_size, warm_up or ())),
        cache=cache,
        backend=backend,
        precision=precision,
        crf=crf,
        threads=threads,
        bare_network=bare_network,
        link=link,
        site_packages=tuple(site_packages or ()),
    )
    with status("writing"):
        models = write_repository(bundles, repository, options=options, overwrite=overwrite)
    if as_json:
        print_json({"repository": str(repository), "models": models})
        return
    for model in models:
        print_line(f"wrote {repository / model}")
    flag = " --cache-config local,size=1048576" if cache else ""
    print_line(f"serve it: tritonserver --model-repository {repository} --disable-auto-complete-config{flag}")
