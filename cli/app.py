"""The application: every verb, and what becomes of errors.

Exit codes: 0 done; 1 atrous refused or a check failed, said in one line without a traceback; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import AtrousError
from .console import errors
from .doctor import doctor
from .export import export
from .inspect import inspect
from .pack import pack
from .run import run
from .verify import verify

app = typer.Typer(
    name="atrous",
    help="Put DeepLab segmentation into production: export, verify and run bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for verb in (export, pack, run, verify, inspect, doctor):
    app.command()(verb)


def run_app() -> None:
    """Run the application on `sys.argv` and exit."""
    try:
        app()
    except AtrousError as exc:
        errors.print(f"[bold red]error[/] {type(exc).__name__}: ", end="")
        errors.print(str(exc), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; nothing was half-written")
        sys.exit(130)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atrous {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
