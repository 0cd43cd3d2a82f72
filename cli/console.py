"""Output of the command line: tables and progress for people, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

#: Where nobody says how wide a line may be, columns are cut off nowhere near this.
_FILE_WIDTH: Final = 200

#: Results go to stdout, everything else to stderr, so that `--json` can be piped. Text is
#: taken literally: a path, a class or a licence may have brackets or colons in it.
results = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(markup=False, emoji=False, highlight=False, stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """Print JSON without wrapping or colour, in ASCII, which every reader and every pipe takes."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def finite(value: float | None) -> float | None:
    """A number for JSON, which has no infinity and no NaN: None in their place."""
    return float(value) if value is not None and math.isfinite(value) else None


def print_line(text: str, *, console: Console = results) -> None:
    """Print one line whole: the terminal wraps it, so that a path in it can be copied."""
    console.print(text, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table without the spaces that Rich fills its lines up with, which a file or a pipe would keep."""
    for segments in results.render_lines(table, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        results.print(line, soft_wrap=True)


def print_error(exc: Exception, *, console: Console = errors) -> None:
    """Print the kind of an error and its message."""
    console.print(Text(type(exc).__name__, style="bold red"), str(exc), sep=": ", soft_wrap=True)


def status(message: str) -> Status:
    """A spinner on stderr while something runs."""
    return errors.status(Text(message))


def verdict(*, passed: bool) -> Text:
    """The outcome of a check, in a colour."""
    return Text("passed", style="green") if passed else Text("failed", style="red")


def progress_bar() -> Progress:
    """A progress bar on stderr that vanishes when done; none where stderr is a file."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
