"""ONNX Runtime: the reference that everything is verified against; CUDA where its GPU build finds a device."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

from ...bundle import Bundle
from ...errors import EngineError, MissingDependencyError
from ...manifest import Artifact
from .base import FloatArray, check_logits, find_onnx


class OnnxSession:
    """A graph with one input and one output, opened in ONNX Runtime.

    Args:
        graph: the serialized model.
        name: what messages call it.
        threads: of one inference on the CPU; 0 for all cores.
        cuda: try the CUDA execution provider; `device` says what it became.
        optimize: apply ONNX Runtime's graph optimizations.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """

    def __init__(self, graph: bytes, *, name: str, threads: int = 0, cuda: bool = False, optimize: bool = True) -> None:
        ort = _import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: they come back as exceptions
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        self.name = name
        try:
            self._session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime refuses {name}: {exc}") from exc
        # ONNX Runtime falls back to the CPU on its own; what is shown must be what runs.
        self.device = "CUDA" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "CPU"
        self._input: str = self._session.get_inputs()[0].name

    def run(self, images: FloatArray) -> NDArray[Any]:
        """The output for images [N, 3, H, W] float32; raises `EngineError` when ONNX Runtime fails on them."""
        try:
            output: NDArray[Any] = self._session.run(None, {self._input: images})[0]
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime failed in {self.name} on an input {list(images.shape)}: {exc}") from exc
        return output


class OnnxRuntimeBackend:
    """An ONNX artifact in ONNX Runtime.

    Args:
        precision: `fp32`, `fp16`, `int8`, or `auto` for the most precise that is there.
        threads: of one inference on the CPU; 0 for all cores.
        cuda: None uses CUDA where it starts, True insists, False stays on the CPU.

    Raises:
        EngineError: no such artifact, or ONNX Runtime refuses the graph or the device.
        BundleError: the file is not the one that was exported.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int = 0, cuda: bool | None = None) -> None:
        self.artifact: Artifact = find_onnx(bundle, precision, backend=self.name)
        self._session = OnnxSession(
            bundle.read(self.artifact),
            name=str(bundle.path / self.artifact.file),
            threads=threads,
            cuda=cuda_is_available() if cuda is None else cuda,
        )
        self.device = self._session.device
        if cuda and self.device != "CUDA":
            raise EngineError("the CUDA execution provider could not start; `atrous doctor` says what is missing")

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        return check_logits(self._session.run(images), self.artifact)


def cuda_is_available() -> bool:
    """Whether this ONNX Runtime has the CUDA execution provider; that it starts is known only in a session."""
    return "CUDAExecutionProvider" in _import_onnxruntime().get_available_providers()


def _import_onnxruntime() -> Any:  # noqa: ANN401 - the module has no stubs
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependencyError("onnxruntime", extra="gpu", purpose="the onnxruntime backend") from exc
    return onnxruntime
