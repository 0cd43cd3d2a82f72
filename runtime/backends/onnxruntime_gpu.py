"""ONNX Runtime on a GPU, with memory that stays there: its CUDA, TensorRT and TensorRT-RTX execution providers."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import math
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from ...bundle import Bundle
from ...errors import DeviceError, EngineError
from ...gpu import Buffer, Device, Stream, ceil_div, find_driver, open_device
from ...manifest import Artifact, Shape
from .base import EngineLayout
from .notices import warn_once
from .on_gpu import GpuBackend, MakeDevice
from .onnxruntime import import_onnxruntime, session_errors, session_options
from .spec import BackendSpec, Package

PACKAGE: Final = Package("onnxruntime", "onnxruntime-gpu", "gpu", "ONNX Runtime on CUDA")
#: Images of one inference, where the graph takes any number.
_MAX_BATCH: Final = 8
#: Leaves both installed, so that no later run of pip brings the CPU's build back to satisfy a dependency.
MEND_ONNXRUNTIME: Final = "pip install --force-reinstall --no-deps onnxruntime-gpu"
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's execution providers.

    Attributes:
        name: by which ONNX Runtime knows it.
        library: the part of ONNX Runtime's file name that it has for itself; empty where it has no file.
        memory: what I/O binding calls the memory that it works on.
        takes_stream: runs on a stream of the caller.
        options: for every session.
    """

    name: str
    library: str
    memory: str = "cuda"
    takes_stream: bool = True
    options: Mapping[str, str] = field(default_factory=dict)


class OnnxRuntimeGpuBackend(GpuBackend):
    """An ONNX artifact in an execution provider of ONNX Runtime that reads and writes GPU memory.

    A provider that does not start is an error with the reason: ONNX Runtime would go on without it, on the CPU. Each
    thread has a session of its own, on its own stream; the engines of a thread share it.

    Args:
        bundle: holds the graph.
        artifact: the graph to open.
        threads: of the operators that the provider leaves to the CPU; 0 for all cores.
        make_device: opens the GPU for the calling thread.

    Raises:
        MissingDependencyError: ONNX Runtime, or both of PyCUDA and cuda-bindings, are not installed.
        DeviceError: there is no driver or no GPU.
        EngineError: the provider is missing, does not start, or rejects the graph.
        BundleError: the file is not the one that was exported.
    """

    provider: ClassVar[Provider]

    def __init__(
        self, bundle: Bundle, artifact: Artifact, *, threads: int = 0, make_device: MakeDevice = open_device
    ) -> None:
        check_available(self.provider)
        device = make_device()
        super().__init__(
            artifact,
            device=device.properties.name,
            max_batch=_MAX_BATCH if bundle.manifest.input.takes_batches else 1,
            make_device=make_device,
        )
        self._graph = bundle.read(artifact)
        self._threads = threads
        self._sessions = threading.local()
        # Here, so that a refusal is known before anybody counts on this backend; kept for who comes first.
        self._first: _Session | None = self._open(device)

    def open_engine(self, device: Device) -> OnnxRuntimeEngine:
        """An engine for one input shape on the session of the calling thread."""
        session = self._open(device)
        self._first = None
        return OnnxRuntimeEngine(session, device, self.artifact.file)

    def _open(self, device: Device) -> _Session:
        """The calling thread's session; kept by its engines."""
        reference: weakref.ref[_Session] | None = getattr(self._sessions, "reference", None)
        session = reference() if reference else None
        if session is None:
            session = _Session(self._graph, self.artifact.file, self.provider, device, threads=self._threads)
            self._sessions.reference = weakref.ref(session)
        return session


class OnnxRuntimeCuda(OnnxRuntimeGpuBackend):
    """The CUDA execution provider. FP32 is computed in FP32; the provider itself would take TF32."""

    name: ClassVar[str] = "onnxruntime-cuda"
    provider = Provider("CUDAExecutionProvider", "cuda", options={"use_tf32": "0"})


class OnnxRuntimeTensorRt(OnnxRuntimeGpuBackend):
    """The TensorRT execution provider, which builds an engine for each shape when it first meets it."""

    name: ClassVar[str] = "onnxruntime-tensorrt"
    provider = Provider("TensorrtExecutionProvider", "tensorrt")


class OnnxRuntimeTensorRtRtx(OnnxRuntimeGpuBackend):
    """The TensorRT-RTX execution provider, likewise."""

    name: ClassVar[str] = "onnxruntime-tensorrt-rtx"
    provider = Provider("NvTensorRTRTXExecutionProvider", "nv_tensorrt_rtx")


class OnnxRuntimeEngine:
    """One input shape, bound once to its buffers. ONNX Runtime allocates as it runs, so no graph can be recorded."""

    capturable = False

    def __init__(self, session: _Session, device: Device, file: str) -> None:
        self._session = session
        self._device = device
        self._file = file
        self._thread = threading.get_ident()
        self._before = device.event()
        self._after = device.event()
        self._shape: Shape | None = None
        self._layout: EngineLayout | None = None
        self._binding: Any = None
        self._addresses: tuple[int, int] | None = None

    def prepare(self, shape: Shape) -> EngineLayout:
        """Fixes the input shape [N, 3, H, W] and runs it once on zeros; raises as the protocol says."""
        self._check_thread()
        session, device = self._session, self._device
        dtype = _DTYPES[session.input_type]
        source = device.allocate(4 * ceil_div(math.prod(shape) * dtype.itemsize, 4))  # what fill() takes
        device.fill(source, 0, session.stream)
        binding = session.binding(source, shape, dtype)
        binding.bind_output(session.output, session.provider.memory, 0)
        session.run(binding, shape)
        session.stream.synchronize()
        output = binding.get_outputs()[0]
        sizes = tuple(output.shape())
        if len(sizes) != 4:
            raise EngineError(f"{self._file} answers {list(sizes)}; expected float32 logits [N, C, h, w]")
        if session.output_type not in _DTYPES:
            raise EngineError(f"{self._file} answers {session.output_type}; expected float32 logits [N, C, h, w]")
        self._shape = shape
        self._layout = EngineLayout(dtype, (sizes[0], sizes[1], sizes[2], sizes[3]), _DTYPES[session.output_type])
        return self._layout

    def queue(self, source: Buffer, result: Buffer, stream: Stream) -> None:
        """Queues one inference on the session's stream, between what was and what will be queued on `stream`."""
        self._check_thread()
        session = self._session
        if self._shape is None or self._layout is None:
            raise EngineError(f"{self._file}: prepare() comes before queue()")
        if self._addresses != (source.address, result.address):
            layout = self._layout
            self._binding = session.binding(source, self._shape, layout.input_dtype)
            self._binding.bind_output(
                session.output, session.provider.memory, 0, layout.output_dtype, layout.output_shape, result.address
            )
            self._addresses = (source.address, result.address)
        self._before.record(stream)
        session.stream.wait_for(self._before)
        session.run(self._binding, self._shape)
        self._after.record(session.stream)
        stream.wait_for(self._after)

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise EngineError(
                f"a session of {self._file} was used from another thread than opened it: open an engine in each thread"
            )


class _Session:
    """A session on a stream of its own."""

    def __init__(self, graph: bytes, file: str, provider: Provider, device: Device, *, threads: int) -> None:
        self.provider = provider
        self.stream = device.stream()
        self._file = file
        self._device = device
        settings = dict(provider.options)
        self._run_options = import_onnxruntime().RunOptions()
        if provider.takes_stream:
            settings["user_compute_stream"] = str(self.stream.handle)
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        with device.active(f"loading {file}"):
            self._session = _start(graph, file, provider, settings, session_options(threads=threads))
        self.input: str = self._session.get_inputs()[0].name
        self.input_type: str = self._session.get_inputs()[0].type
        self.output: str = self._session.get_outputs()[0].name
        self.output_type: str = self._session.get_outputs()[0].type

    def binding(self, source: Buffer, shape: Shape, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - no stubs
        """A binding that reads its input from `source`."""
        binding = self._session.io_binding()
        binding.bind_input(self.input, self.provider.memory, 0, dtype, shape, source.address)
        return binding

    def run(self, binding: Any, shape: Shape) -> None:  # noqa: ANN401 - no stubs
        """Queues what is bound; raises EngineError."""
        with (
            session_errors(f"failed in {self._file} on an input {list(shape)}"),
            self._device.active(f"running {self._file}"),
        ):
            self._session.run_with_iobinding(binding, self._run_options)


def _start(graph: bytes, file: str, provider: Provider, settings: Mapping[str, str], options: Any) -> Any:  # noqa: ANN401
    ort = import_onnxruntime()
    _find_cuda_wheels()
    providers = [(provider.name, dict(settings))]
    if provider.name != "CPUExecutionProvider":
        providers.append(("CPUExecutionProvider", {}))
    try:
        # Without enable_fallback=0 it prints to stdout and goes on with the CPU.
        session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except Exception as exc:  # its exceptions share no base class
        reason = _why_refused(provider)
        raise EngineError(f"ONNX Runtime refuses {file} in its {provider.name}: {reason or exc}") from exc
    if session.get_providers()[0] != provider.name:
        reason = _why_refused(provider) or "it gives no reason; its log may"
        raise EngineError(f"ONNX Runtime cannot start its {provider.name}: {reason}")
    return session


def _find_cuda_wheels() -> None:
    """CUDA and cuDNN that were installed by pip are found only if ONNX Runtime is told to look there (1.21 on)."""
    preload = getattr(import_onnxruntime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; a session says it better
            preload()


def check_available(provider: Provider) -> None:
    """Raise EngineError where this build of ONNX Runtime lacks a provider; whether it starts, a session says."""
    ort = import_onnxruntime()
    available = ort.get_available_providers()
    if provider.name not in available:
        advice = overwritten() or ("Install a build with it; for CUDA: pip install onnxruntime-gpu")
        raise EngineError(
            f"this ONNX Runtime {ort.__version__} has no {provider.name}; it has: {', '.join(available)}. {advice}"
        )


def overwritten() -> str | None:
    """Advice if onnxruntime-gpu is installed and the CPU's build lies in its place, or None.

    Both packages install the folder `onnxruntime`, so the one that pip installs last is the one that is imported, and
    pip reports both as installed.
    """
    try:
        version = importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return None
    ort = import_onnxruntime()
    if OnnxRuntimeCuda.provider.name in ort.get_available_providers():
        return None
    return (
        f"onnxruntime-gpu {version} is installed, but the files of onnxruntime {ort.__version__}, for the CPU, lie in "
        f"its place: both install the same folder, and the last one wins. Put it back: {MEND_ONNXRUNTIME}"
    )


def _why_refused(provider: Provider) -> str | None:
    """The library that a provider lacks, in the loader's words, or None. ONNX Runtime tells only its log.

    To be asked after ONNX Runtime has tried: a provider that is loaded before it would not find its host.
    """
    if not provider.library:
        return None
    prefix, suffix = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    folder = Path(import_onnxruntime().__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / f"{prefix}onnxruntime_providers_shared{suffix}"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"{prefix}onnxruntime_providers_{provider.library}{suffix}"))
    except OSError as exc:
        cuda = getattr(import_onnxruntime(), "cuda_version", "") or "of the version that it was built for"
        return f"{exc}. It needs CUDA {cuda} and its cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return None


def _spec(backend: type[OnnxRuntimeGpuBackend], is_expected: Callable[[], bool]) -> BackendSpec:
    def describe() -> str:
        check_available(backend.provider)
        return f"{import_onnxruntime().__version__} with {backend.provider.name}"

    return BackendSpec(
        name=backend.name,
        reads="onnx",
        device="gpu",
        packages=(PACKAGE,),
        open=backend,
        describe=describe,
        is_expected=is_expected,
    )


def _has_cuda() -> bool:
    """True if ONNX Runtime has its CUDA provider; warns if there is a GPU and the provider was overwritten."""
    if OnnxRuntimeCuda.provider.name in import_onnxruntime().get_available_providers():
        return True
    problem = overwritten()
    if problem is not None and _has_gpu():
        warn_once(f"a GPU is here and ONNX Runtime does not use it: {problem}")
    return False


def _has_gpu() -> bool:
    try:
        find_driver()
    except DeviceError:
        return False
    return True


SPECS: Final = (
    _spec(OnnxRuntimeCuda, _has_cuda),
    # They build an engine for each new shape, which takes seconds to minutes: nothing to happen unasked.
    _spec(OnnxRuntimeTensorRt, lambda: False),
    _spec(OnnxRuntimeTensorRtRtx, lambda: False),
)
