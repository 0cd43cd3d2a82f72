"""Options of the verbs that run over a data set, their progress, and their summary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from ..errors import BatchError
from .console import errors, print_json, print_line

if TYPE_CHECKING:
    from ..batch import Progress, Shard, Summary, WorkOptions

SourcesArgument = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE…", help="Images, folders with all below them, globs, or .txt, .csv, .tsv lists."),
]
OutOption = Annotated[Path, typer.Option(help="Folder of the results, and of the ledger.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one; failed images run again.")
]
ShardOption = Annotated[
    str, typer.Option(metavar="I/N", help="Run the I-th of N parts; the part of an image follows from its name.")
]
MaxErrorsOption = Annotated[int, typer.Option(min=0, help="Images that may fail before the run ends.")]
RootOption = Annotated[
    Path | None,
    typer.Option(help="Folder that the names of results are relative to; by default each source has its own."),
]
KeepEndingsOption = Annotated[
    bool, typer.Option("--keep-endings", help="Keep the images' endings in names: a.jpg becomes a.jpg.png.")
]
ColumnOption = Annotated[str | None, typer.Option(metavar="NAME", help="Column of paths in .csv and .tsv lists.")]

#: Seconds between two lines of progress where there is no terminal.
_QUIET_S: Final = 60.0


def chosen_work(
    root: Path | None, column: str | None, out: Path, page: int | None, bits: int | None, *, keep_endings: bool
) -> WorkOptions:
    """The choices of --root, --column, --page, --bits and --keep-endings; results are no images of the run."""
    from ..batch import WorkOptions

    return WorkOptions(root=root, keep_endings=keep_endings, column=column, page=page, bits=bits, besides=out)


@contextlib.contextmanager
def batch_progress(description: str) -> Iterator[Callable[[Progress], None]]:
    """Progress of a run on stderr: a bar with rate and time left, or a line a minute where that is a file."""
    if not errors.is_terminal:
        yield _Lines(description)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RateColumn())
    with Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=errors, transient=True) as bar:
        task = bar.add_task(description, total=None)

        def show(state: Progress) -> None:
            failed = f", {len(state.failures)} failed" if state.failures else ""
            bar.update(task, total=state.total, completed=state.done, description=description + failed)

        yield show


class _RateColumn(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The rate of late, as the time left supposes it."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class _Lines:
    """Progress as lines, for logs."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._start = self._said = time.monotonic()

    def __call__(self, state: Progress) -> None:
        now = time.monotonic()
        if now - self._said < _QUIET_S:
            return
        self._said = now
        rate = state.done / (now - self._start)
        left_min = (state.total - state.done) / rate / 60
        failed = f", {len(state.failures)} failed" if state.failures else ""
        print_line(
            f"{self._description}: {state.done} of {state.total}{failed}, {rate:.1f}/s, {left_min:.0f} min left",
            console=errors,
        )


def report(summary: Summary, shard: Shard, out: Path, about: dict[str, Any], *, as_json: bool) -> None:
    """Print what a run did; ends with exit code 1 if an image failed."""
    rate = summary.done / summary.seconds if summary.done and summary.seconds else 0.0
    if as_json:
        print_json(
            {
                **about,
                "shard": str(shard),
                "images": summary.images,
                "done": summary.done,
                "done_before": summary.done_before,
                "failed": [{"input": each.input, "error": each.error} for each in summary.failures],
                "seconds": round(summary.seconds, 3),
                "images_per_s": round(rate, 3),
                "out": str(out),
                "ledger": str(summary.ledger),
            }
        )
    else:
        before = f", {summary.done_before} were done before" if summary.done_before else ""
        print_line(f"{summary.done} of {summary.images} images done in {summary.seconds:.1f} s, {rate:.1f}/s{before}")
        print_line(f"in {out}/, with {summary.ledger.name}")
    for each in summary.failures:
        print_line(f"failed: {each.error}", console=errors)
    if summary.failures:
        errors.print(f"{len(summary.failures)} of {summary.images} images failed")
        raise typer.Exit(1)


def check_out(out: Path, sources: list[str]) -> None:
    """Raise `BatchError` if results would lie among the images."""
    for source in sources:
        if Path(source).is_dir() and out.resolve() in (resolved := Path(source).resolve(), *resolved.parents):
            raise BatchError(
                f"results in {out} would lie among the images of {source}. Choose another folder with --out.", path=out
            )
