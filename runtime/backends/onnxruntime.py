"""ONNX Runtime on the CPU: the reference that everything is verified against."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

from ...arrays import FloatArray
from ...bundle import Bundle
from ...errors import EngineError, MissingDependencyError
from ...manifest import Artifact
from .base import check_logits, find_onnx


class OnnxSession:
    """A graph with one input and one output, opened in ONNX Runtime.

    Args:
        graph: the serialized model.
        name: what messages call it.
        threads: of one inference on the CPU; 0 for all cores.
        optimize: apply ONNX Runtime's graph optimizations.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """

    def __init__(self, graph: bytes, *, name: str, threads: int = 0, optimize: bool = True) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: they come back as exceptions
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.name = name
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime refuses {name}: {exc}") from exc
        self._input: str = self._session.get_inputs()[0].name

    def run(self, images: FloatArray) -> NDArray[Any]:
        """The output for images [N, 3, H, W] float32; raises `EngineError` when ONNX Runtime fails on them."""
        try:
            output: NDArray[Any] = self._session.run(None, {self._input: images})[0]
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime failed in {self.name} on an input {list(images.shape)}: {exc}") from exc
        return output


class OnnxRuntimeBackend:
    """An ONNX artifact in ONNX Runtime on the CPU; on a GPU: `onnxruntime_gpu`.

    Args:
        precision: `fp32`, `fp16`, `int8`, or `auto` for the most precise that is there.
        threads: of one inference on the CPU; 0 for all cores.

    Raises:
        EngineError: no such artifact, or ONNX Runtime refuses the graph.
        BundleError: the file is not the one that was exported.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int = 0) -> None:
        self.artifact: Artifact = find_onnx(bundle, precision, backend=self.name)
        self.device = "CPU"
        self._session = OnnxSession(
            bundle.read(self.artifact), name=str(bundle.path / self.artifact.file), threads=threads
        )

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        return check_logits(self._session.run(images), self.artifact)


def import_onnxruntime() -> Any:  # noqa: ANN401 - the module has no stubs
    """ONNX Runtime; raises `MissingDependencyError` where it is not installed."""
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependencyError("onnxruntime", extra="gpu", purpose="the onnxruntime backend") from exc
    return onnxruntime
