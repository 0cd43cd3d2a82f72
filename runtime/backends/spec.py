"""Description of a backend, for all that list, choose or open backends; no library is loaded for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ...bundle import Bundle
from ...manifest import Artifact
from .base import Backend


@dataclass(frozen=True)
class Package:
    """A package that brings a backend's library.

    Attributes:
        module: the name it is imported by.
        distribution: what pip calls it.
        extra: the extra of atrous that installs it; empty where atrous itself does.
        purpose: what it is for, in words.
    """

    module: str
    distribution: str
    extra: str
    purpose: str

    @property
    def is_installed(self) -> bool:
        """True if the module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def command(self) -> str:
        """The command that installs it."""
        return f"pip install 'atrous[{self.extra}]'" if self.extra else f"pip install {self.distribution}"

    @property
    def version(self) -> str:
        """The version that pip installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "unknown version"


class OpenBackend(Protocol):
    """Opens one artifact of a bundle: the one it is told, nothing else."""

    def __call__(self, bundle: Bundle, artifact: Artifact, *, threads: int = 0) -> Backend:
        """An opened backend.

        Args:
            bundle: holds the artifact.
            artifact: of the kind that the backend reads.
            threads: CPU threads of one inference; 0 for all cores.

        Raises:
            EngineError: the backend refuses the artifact.
            MissingDependencyError: its library is not installed.
            DeviceError: it computes on a GPU, which cannot be used.
            BundleError: the file is not the one that the manifest describes.
        """
        ...


def _no_misfits(artifacts: Sequence[Artifact]) -> Sequence[str | None]:
    return [None] * len(artifacts)


def _no_bf16() -> str | None:
    return "it computes in the precision of the graph; openvino computes FP32 graphs in bfloat16 on CPUs that have it"


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A backend as it describes itself; `registry.py` lists all of them.

    Attributes:
        name: the name it is chosen by.
        reads: the kind of artifact that it opens.
        device: where it computes.
        packages: any one of them brings its library.
        open: opens one artifact.
        describe: library and version in words, without a bundle; raises `AtrousError` where it would not run.
        is_expected: whether `backend="auto"` has a reason to expect that it works here.
        misfits: for each artifact why it cannot be opened here, as the end of a sentence about it, or None; raises what
            `open` raises.
        bf16_objection: why it cannot compute FP32 graphs in bfloat16 here, as a sentence about it, or None.
    """

    name: str
    reads: Literal["onnx", "engine"]
    device: Literal["cpu", "gpu"]
    packages: tuple[Package, ...]
    open: OpenBackend
    describe: Callable[[], str]
    is_expected: Callable[[], bool]
    misfits: Callable[[Sequence[Artifact]], Sequence[str | None]] = _no_misfits
    bf16_objection: Callable[[], str | None] = _no_bf16

    @property
    def is_installed(self) -> bool:
        """True if the library is there; it is not loaded."""
        return any(package.is_installed for package in self.packages)

    @property
    def version(self) -> str:
        """Version of the library that is installed."""
        return next((package.version for package in self.packages if package.is_installed), "")
