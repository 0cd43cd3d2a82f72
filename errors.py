"""Exceptions of atrous.

AtrousError
├── ArgumentError (also TypeError)    an argument of a public function has the wrong type
├── ShapeError (also ValueError)      an array or image has the wrong shape, dtype or values
├── ImageError (also ValueError)      an image is unreadable
├── CheckpointError                   a checkpoint is not plain weights, or does not match the model
├── ExportError                       a model cannot be exported, or its export differs from it
├── CalibrationError                  calibration data or activations are invalid
├── EvaluationError                   images and masks do not match, or an evaluation cannot be resumed
├── EngineError                       an engine cannot be built, loaded or run
├── BundleError                       a bundle is missing, damaged, of an unknown version, or unsafe
├── CRFError                          CRF parameters or state are invalid
├── DeviceError                       a GPU is missing, or an operation on it failed
├── ServeError                        a server cannot start with these bundles and options
└── MissingDependencyError            an optional package is missing; the message names the extra

A message states the problem, what was expected, what was found and what to do; values that a program needs are also
attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


class AtrousError(Exception):
    """Base class of all exceptions of atrous."""


class ArgumentError(AtrousError, TypeError):
    """An argument of a public function has the wrong type.

    Attributes:
        argument: its name.
    """

    def __init__(self, message: str, *, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


class ShapeError(AtrousError, ValueError):
    """An array has the wrong shape, dtype or values.

    Attributes:
        expected: description of a valid value; empty if not applicable.
        actual: description of the given value; empty if not applicable.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ImageError(AtrousError, ValueError):
    """An image is unreadable.

    Attributes:
        path: the file, or None if the image is in memory.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class CheckpointError(AtrousError):
    """A checkpoint is not plain weights, or does not match the model.

    Attributes:
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model lacks.
        misshapen: key → (shape in the model, shape in the checkpoint).
    """

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.misshapen = misshapen or {}


class ExportError(AtrousError):
    """A model cannot be exported, or its export differs from it.

    Attributes:
        log: everything that torch logged and printed meanwhile; empty if nothing.
    """

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class CalibrationError(AtrousError):
    """Calibration data, or activations on it, are invalid."""


class EvaluationError(AtrousError):
    """Images and masks do not match, or an evaluation cannot be resumed.

    Attributes:
        path: the file in question, or None.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class EngineError(AtrousError):
    """An inference engine cannot be built, loaded or run."""


class BundleError(AtrousError):
    """A bundle is missing, damaged, of an unknown version, or unsafe to open.

    Attributes:
        path: the bundle, or the file in it, in question.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class CRFError(AtrousError, ValueError):
    """CRF parameters or state are invalid."""


class DeviceError(AtrousError):
    """A GPU is missing, or an operation on it failed."""


class ServeError(AtrousError):
    """A server cannot start with these bundles and options."""


#: Notes on extras for the message: what pip needs for them, and alternatives.
_EXTRAS = {
    "gpu": "pip compiles PyCUDA, which needs a C++ compiler, Python's headers and the CUDA toolkit; "
    "pip install 'atrous[gpu-wheels]' is equivalent and needs none of them",
    "tensorrt-rtx": "which builds engines; running them also needs 'atrous[gpu-wheels]' or 'atrous[gpu]'",
}


class MissingDependencyError(AtrousError, ImportError):
    """An optional package is not installed.

    Attributes:
        package: the missing distribution.
        extra: the extra of atrous that installs it.
        purpose: what needs it, in words.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        about = f" ({_EXTRAS[extra]})" if extra in _EXTRAS else ""
        super().__init__(
            f"{purpose} needs {package!r}, which is not installed. Install it: pip install 'atrous[{extra}]'{about}"
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[Callable[..., MissingDependencyError], tuple[()], dict[str, object]]:
        """Pickle with what the message is made of, so that the error of a worker process arrives."""
        make = partial(MissingDependencyError, self.package, extra=self.extra, purpose=self.purpose)
        return make, (), self.__dict__


@contextmanager
def importing(extra: str, *, purpose: str) -> Iterator[None]:
    """Convert a missing optional package in this block to an error that names the extra to install.

    Raises:
        MissingDependencyError: a package other than atrous itself is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in ("", __package__):
            raise
        raise MissingDependencyError(package, extra=extra, purpose=purpose) from exc
