"""Stands in for TensorRT where there is no GPU: its plans hold ONNX graphs, and ONNX Runtime computes them for real.

It reads and writes the addresses that it is given, which on an `EmulatedDevice` are memory of the host, and queues on
the device's streams, so that what runs, when, and what a CUDA graph records is as with TensorRT. It refuses what
TensorRT refuses, and some of what TensorRT lets crash. Whatever it offers exists in the real bindings by the same name
(`tests/runtime/backends/test_tensorrt.py`).
"""

from __future__ import annotations

import ctypes
import enum
import json
import threading
import types
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import onnxruntime
from emulator.emulated_device import EmulatedStream

MAGIC = b"stand-in plan\n"
ALIGNMENT = 256

#: How often things happened, for tests to ask.
calls: Counter[str] = Counter()
#: Everything that any runtime was given to deserialize.
seen: list[bytes] = []


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.Enum):
    FLOAT = np.float32
    HALF = np.float16


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class EngineValidity(enum.Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class ILogger:
    """Loggers of users derive from this."""

    Severity = Severity

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


def nptype(trt_type: DataType) -> type:
    return trt_type.value


def make_plan(
    graph: bytes, profile: tuple[tuple[int, ...], ...], *, version: str, dtype: str = "float32", valid: bool = True
) -> bytes:
    """A plan that this module takes: `profile` is (min, opt, max) of [N, 3, H, W]; `dtype` that of its tensors."""
    header = {"profile": profile, "version": version, "dtype": dtype, "valid": valid}
    return MAGIC + json.dumps(header).encode() + b"\n" + graph


class Runtime:
    version = ""

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._logger = logger
        self.engine_host_code_allowed = False

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        header, _ = _split(buffer)
        valid = header is not None and header["valid"]
        return (EngineValidity.VALID, 0) if valid else (EngineValidity.INVALID, 2)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        calls["deserialize"] += 1
        seen.append(serialized_engine)
        header, graph = _split(serialized_engine)
        if header is None or header["version"] != self.version:
            self._logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization")
            return None
        return ICudaEngine(header, graph, self._logger)


def _split(data: bytes) -> tuple[dict[str, Any] | None, bytes]:
    if not data.startswith(MAGIC):
        return None, b""
    header, _, graph = data[len(MAGIC) :].partition(b"\n")
    return json.loads(header), graph


class ICudaEngine:
    def __init__(self, header: dict[str, Any], graph: bytes, logger: ILogger) -> None:
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self._profile = [tuple(shape) for shape in header["profile"]]
        self._dtype = DataType(np.dtype(header["dtype"]).type)
        self._logger = logger
        self._tensors = {
            self._session.get_inputs()[0].name: TensorIOMode.INPUT,
            **{output.name: TensorIOMode.OUTPUT for output in self._session.get_outputs()},
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._tensors[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        assert name in self._tensors
        return self._dtype

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert (self._tensors[name], profile_index) == (TensorIOMode.INPUT, 0)
        return list(self._profile)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy | IRuntimeConfig
    ) -> IExecutionContext:
        calls["context"] += 1
        cache = None
        if isinstance(strategy, IRuntimeConfig):
            assert strategy.dynamic_shapes_kernel_specialization_strategy is not None
            strategy, cache = strategy._strategy, strategy._cache
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self, cache)


class IRuntimeConfig:
    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC
        self._cache: IRuntimeCache | None = None
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy


class IRuntimeCache:
    """The shapes that kernels were compiled for."""

    def __init__(self) -> None:
        self._shapes: set[tuple[int, ...]] = set()

    def serialize(self) -> bytes:
        return json.dumps(sorted(self._shapes)).encode()

    def deserialize(self, blob: bytes) -> bool:
        try:
            self._shapes = {tuple(shape) for shape in json.loads(blob)}
        except ValueError:
            return False
        return True


class IExecutionContext:
    """Two threads in one context crash TensorRT; here they are an assertion."""

    def __init__(self, engine: ICudaEngine, cache: IRuntimeCache | None) -> None:
        self._engine = engine
        self._cache = cache
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        self._busy = threading.Lock()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._engine.get_tensor_mode(name) is TensorIOMode.INPUT
        low, _, high = self._engine._profile
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            self._engine._logger.log(Severity.ERROR, "IExecutionContext::setInputShape: Error Code 3: API Usage Error")
            return False
        self._shape = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._tensors if self._shape is None]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Shapes of outputs as ONNX Runtime finds them, by computing once."""
        assert self._shape is not None
        if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return self._shape
        return self._compute(np.zeros(self._shape, np.float32)).shape

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._shape is not None
        return int(np.prod(self._shape)) * 16

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % ALIGNMENT == 0
        self._memory = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        calls["address"] += 1
        assert memory % ALIGNMENT == 0
        self._addresses[name] = memory
        return name in self._engine._tensors

    def is_stream_capturable(self, stream: int) -> bool:
        return stream in EmulatedStream.of_handle

    def execute_async_v3(self, stream_handle: int) -> bool:
        calls["execute"] += 1
        ready = self._shape is not None and len(self._addresses) == len(self._engine._tensors)
        if not ready or self._memory[1] < self.update_device_memory_size_for_shapes():
            self._engine._logger.log(Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 3: API Usage Error")
            return False
        if self._cache is not None and self._shape not in self._cache._shapes:
            calls["compile"] += 1
            self._cache._shapes.add(self._shape)
        EmulatedStream.of_handle[stream_handle].queue(self._work())
        return True

    def _work(self) -> Callable[[], None]:
        """What a stream or a graph would hold: the addresses as they are now."""
        source, result = (self._addresses[name] for name in self._engine._tensors)
        shape, dtype = self._shape, np.dtype(self._engine._dtype.value)

        def run() -> None:
            assert self._busy.acquire(blocking=False), "two threads in one execution context"
            try:
                images = np.frombuffer(_memory(source, int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
                logits = np.ascontiguousarray(self._compute(images.astype(np.float32)), dtype)
                ctypes.memmove(result, logits.ctypes.data, logits.nbytes)
            finally:
                self._busy.release()

        return run

    def _compute(self, images: np.ndarray) -> np.ndarray:
        session = self._engine._session
        return session.run(None, {session.get_inputs()[0].name: images})[0]


def _memory(address: int, nbytes: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * nbytes).from_address(address)


def as_module(name: str, version: str) -> types.ModuleType:
    """A module like `tensorrt` or `tensorrt_rtx` of that version."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    runtime = type("Runtime", (Runtime,), {"version": version})
    offered = (ILogger, DataType, TensorIOMode, ExecutionContextAllocationStrategy, ICudaEngine, IExecutionContext)
    rtx = (IRuntimeConfig, IRuntimeCache, DynamicShapesKernelSpecializationStrategy, EngineValidity)
    for each in (*offered, *(rtx if name == "tensorrt_rtx" else ())):
        setattr(module, each.__name__, each)
    module.Runtime = runtime
    module.nptype = nptype
    module.__version__ = version
    return module
