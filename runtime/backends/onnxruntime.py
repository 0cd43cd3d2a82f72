"""ONNX Runtime on the CPU: the reference that everything is verified against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from numpy.typing import NDArray

from ..._native import cpu_sums_int8_exactly
from ...arrays import FloatArray
from ...bundle import Bundle
from ...errors import EngineError, importing
from ...manifest import Artifact
from .base import check_logits
from .spec import BackendSpec, Package

#: Installed with atrous itself.
PACKAGE: Final = Package("onnxruntime", "onnxruntime", "", "the reference on the CPU")


def import_onnxruntime() -> Any:  # noqa: ANN401 - the module has no stubs
    """ONNX Runtime; raises `MissingDependencyError` where it is not installed."""
    with importing("gpu", purpose="the onnxruntime backend"):
        import onnxruntime
    return onnxruntime


def session_options(*, threads: int = 0) -> Any:  # noqa: ANN401 - the module has no stubs
    """Options of a session: threads of one inference on the CPU (0 for all cores), exact INT8, a log of errors only.

    Errors come back as exceptions, so that nothing is said twice.
    """
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not cpu_sums_int8_exactly():  # then Q/DQ round in FP32: no faster, but right
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


@contextmanager
def session_errors(failed: str) -> Iterator[None]:
    """Wrap what ONNX Runtime raises, whose exceptions share no base class.

    Args:
        failed: what ONNX Runtime did not do, as in "ONNX Runtime `failed`: its reason".

    Raises:
        EngineError: the block raised.
    """
    try:
        yield
    except Exception as exc:
        raise EngineError(f"ONNX Runtime {failed}: {exc}") from exc


class OnnxSession:
    """A graph with one input and one output, opened in ONNX Runtime.

    Args:
        graph: the serialized model.
        name: what messages call it.
        threads: of one inference on the CPU; 0 for all cores.
        optimize: apply ONNX Runtime's graph optimizations.

    Raises:
        EngineError: ONNX Runtime rejects the graph.
    """

    def __init__(self, graph: bytes, *, name: str, threads: int = 0, optimize: bool = True) -> None:
        ort = import_onnxruntime()
        options = session_options(threads=threads)
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.name = name
        with session_errors(f"refuses {name}"):
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name

    def run(self, images: FloatArray) -> NDArray[Any]:
        """The output for images [N, 3, H, W] float32; raises `EngineError` when ONNX Runtime fails on them."""
        with session_errors(f"failed in {self.name} on an input {list(images.shape)}"):
            output: NDArray[Any] = self._session.run(None, {self._input: images})[0]
        return output

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32.

        Raises:
            EngineError: ONNX Runtime fails, or answers something else.
        """
        return check_logits(self.run(images), self.name)


class OnnxRuntimeBackend:
    """An ONNX artifact in ONNX Runtime on the CPU; on a GPU: `onnxruntime_gpu`.

    Args:
        bundle: holds the graph.
        artifact: the graph to open.
        threads: of one inference on the CPU; 0 for all cores.

    Raises:
        EngineError: ONNX Runtime rejects the graph.
        BundleError: the file is not the one that was exported.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, bundle: Bundle, artifact: Artifact, *, threads: int = 0) -> None:
        self.artifact = artifact
        self.device = "CPU"
        self._session = OnnxSession(bundle.read(artifact), name=str(bundle.path / artifact.file), threads=threads)

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        return self._session.infer(images)


SPEC: Final = BackendSpec(
    name=OnnxRuntimeBackend.name,
    reads="onnx",
    device="cpu",
    packages=(PACKAGE,),
    open=OnnxRuntimeBackend,
    describe=lambda: f"{import_onnxruntime().__version__} on the CPU",
    is_expected=lambda: True,
)
