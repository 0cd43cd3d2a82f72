"""What a backend is: something that turns a batch of prepared images into coarse logits."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle import Bundle
from ...errors import EngineError
from ...manifest import Artifact, Precision

FloatArray = NDArray[np.float32]

#: What `auto` tries, in this order; a graph that was packed quantized has no FP32.
_BY_PRECISION: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")


class Backend(Protocol):
    """An opened artifact, ready to run; safe to call from many threads.

    Attributes:
        name: the name it is chosen by, e.g. `openvino`.
        device: where it computes, e.g. `CPU`.
        artifact: the file of the bundle that it runs.
    """

    name: ClassVar[str]
    device: str
    artifact: Artifact

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        ...


def find_onnx(bundle: Bundle, precision: str, *, backend: str) -> Artifact:
    """The ONNX artifact of that precision (`auto`: the most precise), or an error that lists what is there."""
    available = {artifact.precision: artifact for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"}
    for wanted in _BY_PRECISION if precision == "auto" else (precision,):
        if wanted in available:
            return available[wanted]
    asked = "" if precision == "auto" else f"{precision} "
    have = ", ".join(available) or "none"
    raise EngineError(f"{bundle.path} has no {asked}ONNX graph for the {backend} backend; it has: {have}")


def check_logits(logits: Any, artifact: Artifact) -> FloatArray:  # noqa: ANN401 - whatever the engine gave
    """Engines answer float32 [N, C, h, w]; anything else is a foreign graph that slipped through."""
    if not isinstance(logits, np.ndarray) or logits.ndim != 4 or logits.dtype != np.float32:
        raise EngineError(
            f"{artifact.file} answered {getattr(logits, 'dtype', type(logits))} {getattr(logits, 'shape', '')}; "
            "expected float32 logits [N, C, h, w]. Pack or export the model again."
        )
    return logits
