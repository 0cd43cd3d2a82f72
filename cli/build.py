"""`atrous build`: a bundle's graph becomes TensorRT engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..arguments import check_arguments
from ..bundle import Bundle
from ..exporter.options import AtrousForm, BackendChoice
from ..manifest import Artifact, GraphPrecision, HardwareCompatibility
from .console import JsonFlag, print_json, print_line, print_table, progress_bar
from .options import INPUT_PANEL, BundleArgument, DynamicOption, SizeOption, chosen_size

_MEBIBYTE = 1 << 20
_PERCENT = 100


TARGET_PANEL = "Target"
BUILDER_PANEL = "Builder"


PrecisionOption = Annotated[GraphPrecision, typer.Option(help="Graph of the bundle to build from.")]
BuilderOption = Annotated[
    BackendChoice,
    typer.Option(rich_help_panel=TARGET_PANEL, help="The builder; tensorrt-rtx builds for --sm without a GPU."),
]
SmOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SM",
        rich_help_panel=TARGET_PANEL,
        help="GPU to build for, e.g. 89, may be repeated; by default the GPU here.",
    ),
]
HardwareOption = Annotated[
    HardwareCompatibility,
    typer.Option(
        rich_help_panel=TARGET_PANEL, help="Other GPUs that can run the engine, at the cost of speed (tensorrt)."
    ),
]
VersionsOption = Annotated[
    bool,
    typer.Option(
        "--version-compatible",
        rich_help_panel=TARGET_PANEL,
        help="Let later TensorRT of the same major version run it (tensorrt).",
    ),
]
AtrousOption = Annotated[
    AtrousForm,
    typer.Option(
        rich_help_panel=BUILDER_PANEL,
        help="How atrous convolutions are written for the builder, which times its own kernels for dilated ones.",
    ),
]
BatchOption = Annotated[int, typer.Option(rich_help_panel=INPUT_PANEL, help="The most images of one inference.")]
WorkspaceOption = Annotated[
    int | None,
    typer.Option(metavar="MIB", rich_help_panel=BUILDER_PANEL, help="Maximum scratch memory, in MiB."),
]
LevelOption = Annotated[
    int | None,
    typer.Option(
        metavar="0-5",
        rich_help_panel=BUILDER_PANEL,
        help="0 builds fastest, 5 searches longest for fast kernels (tensorrt).",
    ),
]
TimingCacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=BUILDER_PANEL,
        help="File to keep measured kernels in, so that later builds are fast (tensorrt).",
    ),
]


@check_arguments
def build(
    bundle: BundleArgument,
    precision: PrecisionOption = "fp16",
    backend: BuilderOption = "auto",
    sm: SmOption = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    batch: BatchOption = 1,
    workspace: WorkspaceOption = None,
    optimization_level: LevelOption = None,
    timing_cache: TimingCacheOption = None,
    hardware_compatibility: HardwareOption = "none",
    version_compatible: VersionsOption = False,
    atrous: AtrousOption = "dilated",
    *,
    as_json: JsonFlag = False,
) -> None:
    """Build TensorRT engines of a bundle's graph and add them to it.

    Example: atrous build street.atrous --precision fp16 --sm 89 --sm 120
    """
    from ..exporter.engine.build import build_engine
    from ..exporter.engine.target import BuilderOptions

    options = BuilderOptions(
        workspace_bytes=None if workspace is None else workspace * _MEBIBYTE,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
        atrous=atrous,
    )
    with _progress() as progress:
        extended, built = build_engine(
            Bundle.open(bundle),
            precision=precision,
            backend=backend,
            sm=sm or (),
            size=chosen_size(size, dynamic),
            batch=batch,
            options=options,
            progress=progress,
        )
    if as_json:
        print_json({"bundle": str(extended.path), "engines": _plain(extended, built)})
        return
    _print_engines(built)
    print_line(f"wrote {extended.path}")


def _plain(bundle: Bundle, built: Collection[Artifact]) -> list[Any]:
    """The engines as they stand in the manifest."""
    files = {artifact.file for artifact in built}
    artifacts: list[Any] = json.loads(bundle.manifest.to_json())["artifacts"]
    return [artifact for artifact in artifacts if artifact["file"] in files]


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar that shows what is being done and the share that is done."""
    with progress_bar() as bar:
        task = bar.add_task("building", total=_PERCENT)
        yield lambda doing, share: bar.update(task, description=doing, completed=int(share * _PERCENT))


def _print_engines(built: tuple[Artifact, ...]) -> None:
    table = Table("engine", "for", "layers", "read", "MB", "activations MB")
    for artifact in built:
        made = artifact.provenance
        if artifact.engine is None:
            continue
        table.add_row(
            artifact.file,
            f"SM {artifact.engine.compute_capability}",
            str(made["layers"]),
            ", ".join(f"{dtype} {count}" for dtype, count in made["reading"].items()),
            f"{artifact.bytes / 1e6:.1f}",
            f"{made['memory_bytes'].get('activation', 0) / 1e6:.1f}",
        )
    print_table(table)
