"""atrous: DeepLab segmentation in production.

    bundle = atrous.export(model, "street.atrous", classes=names, size=(360, 480))
    segmenter = atrous.load("street.atrous", crf=True)
    segmenter("photo.jpg").overlay().save("overlay.png")

Importing the package loads nothing but this file and the version; every name loads what it needs on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .bands import Bands
    from .bundle import Bundle
    from .calibration.options import QuantizeOptions
    from .calibration.quantize import quantize
    from .calibration.tune.options import TuneOptions
    from .calibration.tune.tune import tune
    from .exporter.bf16 import add_bf16
    from .exporter.engine.build import build_engine
    from .exporter.engine.target import BuilderOptions
    from .exporter.export import export
    from .exporter.fp16 import add_fp16
    from .exporter.model_description import Preprocessing
    from .exporter.optimize.optimize import optimize
    from .exporter.options import ExportOptions, PackOptions
    from .exporter.pack import pack
    from .exporter.sizes import DynamicSize
    from .runtime.result import Result
    from .runtime.segmenter import Segmenter, load

__all__ = [
    "Bands",
    "BuilderOptions",
    "Bundle",
    "DynamicSize",
    "ExportOptions",
    "PackOptions",
    "Preprocessing",
    "QuantizeOptions",
    "Result",
    "Segmenter",
    "TuneOptions",
    "__version__",
    "add_bf16",
    "add_fp16",
    "build_engine",
    "export",
    "load",
    "optimize",
    "pack",
    "quantize",
    "tune",
]

_HOMES = {
    "Bands": ".bands",
    "BuilderOptions": ".exporter.engine.target",
    "Bundle": ".bundle",
    "DynamicSize": ".exporter.sizes",
    "ExportOptions": ".exporter.options",
    "PackOptions": ".exporter.options",
    "Preprocessing": ".exporter.model_description",
    "QuantizeOptions": ".calibration.options",
    "Result": ".runtime.result",
    "Segmenter": ".runtime.segmenter",
    "TuneOptions": ".calibration.tune.options",
    "add_bf16": ".exporter.bf16",
    "add_fp16": ".exporter.fp16",
    "build_engine": ".exporter.engine.build",
    "export": ".exporter.export",
    "load": ".runtime.segmenter",
    "optimize": ".exporter.optimize.optimize",
    "pack": ".exporter.pack",
    "quantize": ".calibration.quantize",
    "tune": ".calibration.tune.tune",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .errors import importing

    with importing("export", purpose=f"atrous.{name}"):
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
