"""The application: every verb, and what becomes of errors.

Exit codes: 0 done; 1 atrous refused or a check failed, said without a traceback; 2 wrong usage; 130 interrupted
(Ctrl-C; bundles and images are written whole or not at all).
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from .._version import __version__
from ..errors import AtrousError
from .add_bf16 import add_bf16
from .add_fp16 import add_fp16
from .batch import batch
from .bench import bench
from .build import build
from .console import print_error
from .crf import crf
from .doctor import doctor
from .eval import evaluate
from .export import export
from .inspect import inspect
from .optimize import optimize
from .pack import pack
from .quantize import quantize
from .run import run
from .serve import serve
from .studio import studio
from .triton import triton
from .tune import tune
from .verify import verify

app = typer.Typer(
    name="atrous",
    help="Put DeepLab segmentation into production: export, build, verify and run bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_models = (export, pack, add_fp16, add_bf16, quantize, tune, optimize, build)
for verb in (*_models, run, batch, crf, verify, bench, serve, studio, triton, inspect, doctor):
    app.command()(verb)
app.command("eval")(evaluate)  # `eval` is a builtin of Python


def run_app() -> None:
    """Run the application on `sys.argv` and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # × and Δ where the terminal or the pipe takes ASCII only
    try:
        app()
    except (AtrousError, OSError) as exc:  # OSError: a full disk, a folder that may not be read
        print_error(exc)
        sys.exit(1)


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
