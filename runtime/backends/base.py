"""What a backend is: something that turns a batch of prepared images into coarse logits."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle import Bundle
from ...errors import EngineError
from ...manifest import Artifact

FloatArray = NDArray[np.float32]


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
    """The ONNX artifact of that precision (`auto`: FP32, the reference), or an error that lists what is there."""
    wanted = "fp32" if precision == "auto" else precision
    available = [artifact for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"]
    for artifact in available:
        if artifact.precision == wanted:
            return artifact
    have = ", ".join(artifact.precision for artifact in available) or "none"
    raise EngineError(f"{bundle.path} has no {wanted} ONNX graph for the {backend} backend; it has: {have}")


def check_logits(logits: Any, artifact: Artifact) -> FloatArray:  # noqa: ANN401 - whatever the engine gave
    """Engines answer float32 [N, C, h, w]; anything else is a foreign graph that slipped through."""
    if not isinstance(logits, np.ndarray) or logits.ndim != 4 or logits.dtype != np.float32:
        raise EngineError(
            f"{artifact.file} answered {getattr(logits, 'dtype', type(logits))} {getattr(logits, 'shape', '')}; "
            "expected float32 logits [N, C, h, w]. Pack or export the model again."
        )
    return logits
