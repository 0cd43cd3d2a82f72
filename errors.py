"""Every exception that atrous raises on purpose.

AtrousError
├── ShapeError (also ValueError)      an array or image has the wrong shape, dtype or values
├── ImageError (also ValueError)      an image file cannot be read as a picture
├── CheckpointError                   a checkpoint is not weights, or its keys do not fit the model
├── ExportError                       a model cannot be exported, or its export does not compute the same
├── CalibrationError                  quantization data or activations are unusable
├── EvaluationError                   pictures and masks do not fit together, or an evaluation cannot be resumed
├── EngineError                       an engine cannot be built, loaded or run
├── BundleError                       a bundle is missing, damaged, of another version, or unsafe
├── CRFError                          CRF parameters or state are unusable
├── DeviceError                       a GPU is missing, or an operation on it failed
└── MissingDependencyError            an optional package is needed; the message names the extra

A message says what happened, what was expected, what was found and what to do; the values that a program would
want are attributes as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AtrousError(Exception):
    """Base class: catch this to catch everything that atrous raises on purpose."""


class ShapeError(AtrousError, ValueError):
    """An array has the wrong shape, dtype or values.

    Attributes:
        expected: what the call takes, in words; empty when not applicable.
        actual: what it got, in words; empty when not applicable.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ImageError(AtrousError, ValueError):
    """An image file cannot be read as a picture.

    Attributes:
        path: the file, or None when the image came from memory.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class CheckpointError(AtrousError):
    """A checkpoint is not plain weights, or its keys do not fit the model.

    Attributes:
        missing: keys that the model needs and the checkpoint lacks.
        unexpected: keys that the checkpoint has and the model does not know.
        misshapen: key → (shape that the model needs, shape in the checkpoint).
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
    """A model cannot be exported, or what was exported does not compute the same."""


class CalibrationError(AtrousError):
    """Calibration data or the activations seen on it are unusable."""


class EvaluationError(AtrousError):
    """Pictures and masks do not fit together, or an evaluation cannot be resumed.

    Attributes:
        path: the file that the message is about, or None.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class EngineError(AtrousError):
    """An inference engine cannot be built, loaded or run."""


class BundleError(AtrousError):
    """A bundle is missing, damaged, of an unknown version, or unsafe to open.

    Attributes:
        path: the bundle, or the file in it, that the message is about.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(message)
        self.path = path


class CRFError(AtrousError, ValueError):
    """CRF parameters or state are unusable."""


class DeviceError(AtrousError):
    """A GPU is missing, or an operation on it failed."""


#: What an extra installs that has to be known before pip fails, and the way around it.
_EXTRAS = {
    "gpu": "pip compiles PyCUDA, which takes a C++ compiler, Python's headers and the CUDA toolkit; "
    "pip install 'atrous[gpu-wheels]' does the same and takes none of them",
    "tensorrt-rtx": "which builds engines; running them takes 'atrous[gpu-wheels]' or 'atrous[gpu]' besides",
}


class MissingDependencyError(AtrousError, ImportError):
    """An optional package is needed and not installed.

    Attributes:
        package: the distribution that is missing.
        extra: the extra of atrous that installs it.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        about = f" ({_EXTRAS[extra]})" if extra in _EXTRAS else ""
        super().__init__(
            f"{purpose} needs {package!r}, which is not installed. Install it: pip install 'atrous[{extra}]'{about}"
        )
        self.package = package
        self.extra = extra


@contextmanager
def importing(extra: str, *, purpose: str) -> Iterator[None]:
    """Around imports that need an optional package: a missing one is reported with the extra that installs it.

    Raises:
        MissingDependencyError: a package that is not atrous itself is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in ("", __package__):
            raise
        raise MissingDependencyError(package, extra=extra, purpose=purpose) from exc
