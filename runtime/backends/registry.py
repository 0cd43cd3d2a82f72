"""Every backend: a new one is a file of its own, and a line here."""

from __future__ import annotations

from typing import Final

from . import onnxruntime, onnxruntime_gpu, openvino, tensorrt
from .spec import BackendSpec

#: Name → backend, in the order in which `auto` tries those that it expects to work.
BACKENDS: Final[dict[str, BackendSpec]] = {
    spec.name: spec
    for spec in (
        tensorrt.SPEC,
        *onnxruntime_gpu.SPECS,
        openvino.SPEC,
        onnxruntime.SPEC,
    )
}
