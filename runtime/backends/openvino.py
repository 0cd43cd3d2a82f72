"""OpenVINO on the CPU: the fastest backend without a GPU (numbers in docs/benchmarks.md)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, ClassVar, Final

from ..._native import cpu_sums_int8_exactly
from ...arrays import FloatArray
from ...bundle import Bundle
from ...errors import EngineError, importing
from ...manifest import Artifact
from .base import check_logits
from .cpu import bf16_objection
from .openvino_qdq import fuse_qdq
from .spec import BackendSpec, Package

PACKAGE: Final = Package("openvino", "openvino", "cpu", "the fastest CPU backend")

#: Compiled shapes kept; a video has one, a folder of photos a few.
_MAX_COMPILED_SHAPES: Final = 4


class OpenVinoBackend:
    """An ONNX artifact compiled by OpenVINO for this CPU, once for each input shape.

    A graph with fixed sizes is faster than one with dynamic ones, so dynamic graphs are compiled for the shape at
    hand, and the last few shapes are kept. FP32 runs in FP32: OpenVINO would pick bfloat16 on its own where the CPU
    has it, and change the answer. It does so where that was asked for: an artifact of precision `bf16`.

    Args:
        bundle: holds the graph.
        artifact: the graph to open.
        threads: of one inference; 0 for all cores.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        EngineError: OpenVINO rejects the graph, or it is to run in bfloat16 and this CPU has none.
        BundleError: the file is not the one that was exported.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, bundle: Bundle, artifact: Artifact, *, threads: int = 0) -> None:
        self._ov = _import_openvino()
        self.artifact = artifact
        self.device = "CPU"
        hint = "f32"
        if artifact.precision == "bf16":
            hint = "bf16"
            if (objection := bf16_objection()) is not None:
                raise EngineError(f"{artifact.file} cannot run in bf16: {objection}. Use fp32")
        self._config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        self._config |= exact_int8()
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._core = self._ov.Core()
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        data = bundle.read(artifact)
        try:
            self._model = self._core.read_model(model=data)
            fuse_qdq(self._ov, self._model)
        except Exception as exc:  # RuntimeError, and TypeError or ValueError from its bindings
            raise EngineError(f"OpenVINO refuses {bundle.path / artifact.file}: {exc}") from exc

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        try:
            # A request holds the tensors of one inference, so each call has its own and threads never share.
            request = self._compile(images.shape).create_infer_request()
            request.infer([images], share_inputs=True)
            logits = request.get_output_tensor(0).data.copy()
        except Exception as exc:  # as above
            raise EngineError(f"OpenVINO failed on an input of {list(images.shape)}: {exc}") from exc
        return check_logits(logits, self.artifact.file)

    def _compile(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - openvino has no stubs
        with self._lock:
            compiled = self._compiled.get(shape)
            if compiled is None:
                model = self._model.clone()
                model.reshape(list(shape))
                compiled = self._core.compile_model(model, self.device, self._config)
                self._compiled[shape] = compiled
                if len(self._compiled) > _MAX_COMPILED_SHAPES:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(shape)
            return compiled


def exact_int8() -> dict[str, str]:
    """Settings by which INT8 is right on this CPU: where sums of bytes overflow, Q/DQ round in FP32."""
    return {} if cpu_sums_int8_exactly() else {"LP_TRANSFORMS_MODE": "NO"}


def _import_openvino() -> Any:  # noqa: ANN401 - the module has no stubs
    with importing(PACKAGE.extra, purpose="the openvino backend"):
        import openvino
    return openvino


SPEC: Final = BackendSpec(
    name=OpenVinoBackend.name,
    reads="onnx",
    device="cpu",
    packages=(PACKAGE,),
    open=OpenVinoBackend,
    describe=lambda: f"{PACKAGE.version} on the CPU",
    is_expected=lambda: PACKAGE.is_installed,
    bf16_objection=bf16_objection,
)
