"""`atrous build`: a bundle's graph becomes TensorRT engines."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..bundle import Bundle
from ..manifest import Artifact
from .console import JsonFlag, print_json, print_line, print_table, progress_bar
from .options import BundleArgument, DynamicOption, SizeOption, chosen_size

_MEBIBYTE = 1 << 20
_PERCENT = 100


class EnginePrecision(str, enum.Enum):
    """Which graph of the bundle."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class EngineBackend(str, enum.Enum):
    """What builds."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class Hardware(str, enum.Enum):
    """Which other GPUs are to run a plan."""

    none = "none"
    same_compute_capability = "same-compute-capability"
    ampere_plus = "ampere+"


def build(
    bundle: BundleArgument,
    precision: Annotated[EnginePrecision, typer.Option(help="Which graph of the bundle.")] = EnginePrecision.fp16,
    backend: Annotated[
        EngineBackend, typer.Option(help="tensorrt-rtx builds for --sm without a GPU.")
    ] = EngineBackend.auto,
    sm: Annotated[
        list[str] | None,
        typer.Option(metavar="SM", help="GPU to build for, e.g. 89; repeat it for several. The GPU here otherwise."),
    ] = None,
    size: SizeOption = None,
    dynamic: DynamicOption = None,
    batch: Annotated[int, typer.Option(help="The most pictures of one inference.")] = 1,
    workspace: Annotated[int | None, typer.Option(metavar="MIB", help="Most scratch memory, in MiB.")] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="0 builds fastest, 5 looks longest for fast kernels (tensorrt).")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File to keep measured kernels in, so that later builds are fast (tensorrt).")
    ] = None,
    hardware_compatibility: Annotated[
        Hardware, typer.Option(help="Which other GPUs are to run it, at the cost of speed (tensorrt).")
    ] = Hardware.none,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later TensorRT of the same major version runs it (tensorrt).")
    ] = False,
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
        hardware_compatibility=hardware_compatibility.value,
        version_compatible=version_compatible,
    )
    with _progress() as progress:
        extended = build_engine(
            Bundle.open(bundle),
            precision=precision.value,
            backend=backend.value,
            sm=sm or (),
            size=chosen_size(size, dynamic),
            batch=batch,
            options=options,
            progress=progress,
        )
    count = len(set(sm or ("here",)))  # they stand last in the manifest
    if as_json:
        print_json({"bundle": str(extended.path), "engines": _plain(extended)[-count:]})
        return
    _print_engines(extended.manifest.artifacts[-count:])
    print_line(f"wrote {extended.path}")


def _plain(bundle: Bundle) -> list[Any]:
    """The artifacts as they stand in the manifest."""
    artifacts: list[Any] = json.loads(bundle.manifest.to_json())["artifacts"]
    return artifacts


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
