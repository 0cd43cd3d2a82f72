"""TensorRT in its two flavours: which can be imported here, how they differ, and where their messages go."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from ...errors import EngineError, importing
from .tensorrt_types import ILogger, TensorRTModule

Flavor = Literal["tensorrt", "tensorrt-rtx"]

_log = logging.getLogger(__name__)
_loading = threading.Lock()

#: TensorRT's severities, by value, in the levels of `logging`: internal error, error, warning, info, verbose.
_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass(frozen=True)
class FlavorFacts:
    """Facts about a flavour that hold wherever it is installed.

    Attributes:
        module: what it is imported as.
        distribution: what pip calls it.
        extra: of atrous, which installs it.
        purpose: what it is for, in words.
        oldest: first version (major, minor) that has everything that is used here.
        builds_without_gpu: takes the compute capability to build for, and then needs neither GPU nor driver.
    """

    module: str
    distribution: str
    extra: str
    purpose: str
    oldest: tuple[int, int]
    builds_without_gpu: bool


FLAVORS: Final[Mapping[Flavor, FlavorFacts]] = {
    "tensorrt": FlavorFacts(
        "tensorrt", "tensorrt", "gpu", "TensorRT engines", oldest=(10, 13), builds_without_gpu=False
    ),
    "tensorrt-rtx": FlavorFacts(
        "tensorrt_rtx",
        "tensorrt-rtx-cu13",
        "tensorrt-rtx",
        "TensorRT-RTX engines",
        oldest=(1, 2),
        builds_without_gpu=True,
    ),
}


@dataclass
class LogCapture:
    """Messages of TensorRT, in order, as (level of `logging`, text)."""

    messages: list[tuple[int, str]] = field(default_factory=list)

    def texts(self, *, least: int = logging.DEBUG) -> list[str]:
        """The messages of at least that level."""
        return [text for level, text in self.messages if level >= least]

    def tail(self, lines: int = 12) -> str:
        """The last lines of what explains a failure: errors and warnings, or whatever there is without any."""
        texts = self.texts(least=logging.WARNING) or self.texts(least=logging.INFO)
        return "\n".join("\n".join(texts).splitlines()[-lines:])


class LogRouter:
    """Router of one flavour's messages: into the captures that are open, otherwise to `logging`.

    TensorRT keeps the first logger that a process gives it for as long as anything made with it lives, and ignores
    later ones, so there is one for the whole process and it hands on.
    """

    def __init__(self) -> None:
        self._captures: list[LogCapture] = []
        self._lock = threading.Lock()

    @contextmanager
    def capture(self) -> Iterator[LogCapture]:
        """Collects what TensorRT says while the block runs, in any thread."""
        capture = LogCapture()
        with self._lock:
            self._captures.append(capture)
        try:
            yield capture
        finally:
            with self._lock:  # by identity: captures with the same messages are equal
                self._captures = [each for each in self._captures if each is not capture]

    def route(self, severity: int, text: str) -> None:
        """Takes a message from TensorRT."""
        level = _LEVELS[min(severity, len(_LEVELS) - 1)]
        with self._lock:
            captures = self._captures
            for capture in captures:
                capture.messages.append((level, text))
        # What is captured is part of an answer or an error already.
        _log.log(logging.DEBUG if captures else level, "%s", text)


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT, the same object for the whole process.

    Attributes:
        version: in full, e.g. `10.16.1.11`; a plan fits exactly this one.
        logger: to be passed wherever TensorRT wants a logger.
        log: where the logger's messages can be captured.
    """

    flavor: Flavor
    module: TensorRTModule
    version: str
    logger: ILogger
    log: LogRouter

    @property
    def facts(self) -> FlavorFacts:
        """Facts about this flavour."""
        return FLAVORS[self.flavor]

    @property
    def major(self) -> int:
        """The first number of the version."""
        return version_numbers(self.version)[0]

    @contextmanager
    def starting(self, log: LogCapture) -> Iterator[None]:
        """For the calls that make a builder or a runtime; raises EngineError where TensorRT gives none."""
        try:
            yield
        except TypeError as exc:  # how the bindings say so
            raise EngineError(
                f"{self.flavor} {self.version} does not start; `atrous doctor` shows driver and GPUs. Its log ends:\n"
                f"{log.tail()}"
            ) from exc

    @functools.cached_property
    def cuda(self) -> str | None:
        """The major version of CUDA that it was built for, or None where the installation does not say."""
        base = "tensorrt" if self.flavor == "tensorrt" else "tensorrt-rtx"
        for major in ("13", "12"):
            for suffix in ("-bindings", ""):
                try:
                    importlib.metadata.version(f"{base}-cu{major}{suffix}")
                except importlib.metadata.PackageNotFoundError:
                    continue
                return major
        return None


def installed_flavors() -> tuple[Flavor, ...]:
    """The flavours that are installed, without importing them; whether they load is known from `load_tensorrt`."""
    return tuple(flavor for flavor, facts in FLAVORS.items() if importlib.util.find_spec(facts.module) is not None)


def load_tensorrt(flavor: Flavor) -> TensorRT:
    """Import a flavour, or hand out the one that was.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is installed, but does not load or is too old.
    """
    with _loading:
        return _load(flavor)


@functools.cache
def _load(flavor: Flavor) -> TensorRT:
    facts = FLAVORS[flavor]
    install = f"pip install --upgrade 'atrous[{facts.extra}]'"
    with importing(facts.extra, purpose=f"the {flavor} backend"):
        try:
            module = importlib.import_module(facts.module)
        except ModuleNotFoundError:
            raise
        except (ImportError, OSError, RuntimeError) as exc:
            raise EngineError(
                f"{flavor} is installed but does not load: {exc}. Its libraries are missing or belong to another "
                f"version; install all of them again: {install}"
            ) from exc
    version = str(module.__version__)
    if version_numbers(version) < facts.oldest:
        oldest = ".".join(map(str, facts.oldest))
        raise EngineError(f"{flavor} {version} is installed; expected {oldest} or newer: {install}")
    router = LogRouter()
    return TensorRT(flavor, module, version, _make_logger(module, router), router)


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.13.3.9.post1` → (10, 13, 3, 9)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else (0,)


def _make_logger(trt: TensorRTModule, router: LogRouter) -> ILogger:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: object, msg: str) -> None:
            router.route(int(severity), msg)  # type: ignore[call-overload]  # an enumeration of the bindings

    return Logger()
