"""`atrous optimize`: each atrous convolution in the form that is fastest on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.table import Column, Table

from ..arguments import check_arguments
from ..bundle import Bundle
from ..errors import importing
from .console import JsonFlag, print_json, print_line, print_table, progress_bar
from .options import BackendOption, BundleArgument, PrecisionOption

if TYPE_CHECKING:
    from ..exporter.optimize.optimize import OptimizedGraph


@check_arguments
def optimize(
    bundle: BundleArgument,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    *,
    as_json: JsonFlag = False,
) -> None:
    """Time every atrous convolution in each form, and keep a graph of the fastest ones for this kind of CPU.

    Dilated stays where nothing else is faster beyond noise. Example: atrous optimize street.atrous
    """
    with importing("export", purpose="atrous optimize"):
        from ..exporter.optimize.optimize import optimize as optimize_bundle
    with _progress() as progress:
        extended, report = optimize_bundle(Bundle.open(bundle), backend=backend, precision=precision, progress=progress)
    if as_json:
        print_json({"bundle": str(extended.path), **dataclasses.asdict(report)})
        return
    for graph in report.graphs:
        _print_graph(graph, f"{report.backend} {report.version}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    with progress_bar() as bar:
        task = bar.add_task("timing layers", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)


def _print_graph(graph: OptimizedGraph, backend: str) -> None:
    forms = list(dict.fromkeys(form for layer in graph.layers for form in layer.ms))
    if graph.layers:
        columns = (Column(f"{form} ms", justify="right") for form in forms)
        table = Table(Column("layer", no_wrap=True), *columns, "fastest", title=f"{graph.precision} in {backend}")
        for layer in graph.layers:
            cells = (f"{layer.ms[form]:.2f}" if form in layer.ms else "" for form in forms)
            table.add_row(layer.name, *cells, layer.form)
        print_table(table)
    if graph.canonical_ms is not None and graph.tuned_ms is not None:
        print_line(
            f"whole network: {graph.canonical_ms:.1f} ms dilated, {graph.tuned_ms:.1f} ms with the fastest forms"
        )
    outcome = f"wrote {graph.tuned}" if graph.tuned else f"the {graph.precision} graph stays as it is: {graph.reason}"
    print_line(outcome)
