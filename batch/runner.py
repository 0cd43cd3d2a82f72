"""The run itself: items go through a job, a few at a time, and into the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from ..arguments import MAX_THREADS, check_fields
from ..errors import AtrousError, BatchError
from .ledger import Entry, Ledger
from .outputs import OutputFolder, OutputKind
from .work_list import ALL, Shard, WorkItem

DEFAULT_MAX_ERRORS: Final = 10
#: Threads that read and write while the workers compute.
_FILE_THREADS: Final = 2


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Choices about a run.

    Attributes:
        resume: go on with the run in the folder, if there is one. Images that failed are tried again.
        shard: the part of the images to run.
        workers: images that are computed at once, besides those that are read and written.
        max_errors: images that may fail; one more ends the run.

    Raises:
        ArgumentError: a field has a wrong type.
        BatchError: a number is out of range.
    """

    resume: bool = False
    shard: Shard = ALL
    workers: int = 1
    max_errors: int = DEFAULT_MAX_ERRORS

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.workers <= MAX_THREADS:
            raise BatchError(f"workers must be 1 to {MAX_THREADS}; got {self.workers}")
        if self.max_errors < 0:
            raise BatchError(f"max_errors must be 0 or more; got {self.max_errors}")


class Job(Protocol):
    """Work on single images; called from many threads."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that the results depend on besides the files, as JSON."""
        ...

    @property
    def kinds(self) -> Sequence[OutputKind]:
        """Files that become of an image."""
        ...

    def __call__(self, item: WorkItem, folder: OutputFolder) -> Entry:
        """Read, compute and write one image.

        Raises:
            BatchError: a result cannot be written; that ends the run.
            AtrousError: the image is at fault.
        """
        ...


@dataclass(frozen=True)
class Failure:
    """An image that failed."""

    input: str
    error: str


@dataclass(frozen=True)
class Summary:
    """A run that came to its end.

    Attributes:
        images: in the shard.
        done: of these, that were run now.
        done_before: of these, that the ledgers had already.
        failures: images that failed now.
        seconds: of this run.
        ledger: its file.
    """

    images: int
    done: int
    done_before: int
    failures: tuple[Failure, ...]
    seconds: float
    ledger: Path


@dataclass
class Progress:
    """State of a run. Images count when their lines are on the disk.

    Attributes:
        total: images that are to be run.
        done: of these, that are done or failed.
        failures: those that failed.
    """

    total: int
    done: int = 0
    failures: list[Failure] = field(default_factory=list)


def run_job(
    job: Job,
    items: Sequence[WorkItem],
    out: Path,
    options: BatchOptions,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Run a job over the items of a shard that are not done yet.

    Raises:
        BatchError: the run cannot start (see `Ledger`), more images than allowed failed, or a file cannot be written.
            What is done then is in the ledger.
    """
    start = time.monotonic()
    folder = _made(out)
    mine = [item for item in items if item.name in options.shard]
    with closing(Ledger(out, job.identity, options.shard, resume=options.resume)) as ledger:
        todo = [item for item in mine if item.name not in ledger.done]
        folder.remove_leftovers(kind.file(item.name) for item in todo for kind in job.kinds)
        state = Progress(len(todo))
        try:
            with closing(_outcomes(job, todo, folder, options.workers + _FILE_THREADS)) as outcomes:
                for entry in outcomes:
                    count = ledger.add(entry)
                    if entry.error:
                        state.failures.append(Failure(entry.input, entry.error))
                        _check_failures(state, options.max_errors, ledger.path)
                    _report(state, count, progress)
        finally:
            count = ledger.sync()
        _report(state, count, progress)
        done = state.done - len(state.failures)
        failures = tuple(state.failures)
        return Summary(len(mine), done, len(mine) - len(todo), failures, time.monotonic() - start, ledger.path)


def _made(out: Path) -> OutputFolder:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BatchError(f"cannot write to {out}: {exc.strerror}. Choose a writable folder.", path=out) from exc
    return OutputFolder(out)


def _report(state: Progress, count: int, progress: Callable[[Progress], None] | None) -> None:
    state.done += count
    if progress and count:
        progress(state)


def _check_failures(state: Progress, most: int, ledger: Path) -> None:
    failures = state.failures
    if len(failures) > most:
        reasons = "; ".join(each.error for each in failures[:3])
        raise BatchError(
            f"{len(failures)} images failed, more than the {most} that may: {reasons}; … The ledger {ledger} has them "
            "all. Replace or remove those files, or allow more (--max-errors), and go on with --resume.",
            path=Path(failures[0].input),
        )


def _outcomes(job: Job, items: Sequence[WorkItem], folder: OutputFolder, threads: int) -> Generator[Entry, None, None]:
    """The entry of each item, in order; at most twice the threads are ahead, which bounds the memory."""
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:

        def submit(most: int) -> None:
            for item in islice(source, most):
                waiting.append(pool.submit(_entry, job, item, folder))

        waiting: deque[Future[Entry]] = deque()
        submit(2 * threads)
        try:
            while waiting:
                entry = waiting.popleft().result()
                submit(1)
                yield entry
        finally:
            for future in waiting:
                future.cancel()


def _entry(job: Job, item: WorkItem, folder: OutputFolder) -> Entry:
    try:
        return job(item, folder)
    except BatchError:
        raise
    except AtrousError as exc:
        return Entry(item.name, str(item.image), error=str(exc))
