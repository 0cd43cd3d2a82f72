"""Where the command line writes: tables and progress for people, JSON for machines."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Results go to stdout, everything else to stderr, so that `--json` can be piped.
results = Console()
errors = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """Print JSON without wrapping or colour."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def progress_bar() -> Progress:
    """A progress bar on stderr that vanishes when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
