"""TensorRT and TensorRT-RTX: engines of the bundle on a GPU, one code path for both."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from ...bundle import Bundle
from ...errors import DeviceError, EngineError
from ...gpu import Buffer, Device, Stream, open_device
from ...gpu.compile import cache_folder
from ...manifest import Artifact, EngineProfile, Shape
from .base import EngineLayout
from .engine_fit import check_fit, why_not
from .on_gpu import GpuBackend, MakeDevice
from .rtx_kernel_cache import RtxKernelCache
from .spec import BackendSpec, Package
from .tensorrt_library import FLAVORS, TensorRT, installed_flavors, load_tensorrt
from .tensorrt_types import (
    ICudaEngine,
    IExecutionContext,
    RtxCudaEngine,
    RtxExecutionContext,
    RtxModule,
    RtxRuntime,
    RtxRuntimeConfig,
    Runtime,
    TensorRTModule,
)

_MIB: Final = 2**20
_MIN_SCRATCH_BYTES: Final = 256


class TensorRtBackend(GpuBackend):
    """An engine of the bundle; the plan is deserialized once a process, each worker has its own execution context.

    A plan is code to TensorRT. It is given to TensorRT only after its flavour, version, compute capability and CUDA
    fit this machine, and its SHA-256 is the manifest's.

    Args:
        bundle: holds the engine.
        artifact: the engine to open.
        threads: accepted for the sake of uniformity; a GPU has no use for it.
        make_device: opens the GPU for the calling thread.

    Raises:
        MissingDependencyError: neither PyCUDA nor cuda-bindings is installed.
        DeviceError: there is no driver or no GPU.
        EngineError: the engine does not fit, or TensorRT refuses it.
        BundleError: the file is not the one that was built.
    """

    name: ClassVar[str] = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        *,
        threads: int = 0,  # noqa: ARG002 - every backend takes it
        make_device: MakeDevice = open_device,
    ) -> None:
        device = make_device()
        check_fit(bundle, artifact, device.properties)
        self._plan = _share(bundle, artifact, device)
        super().__init__(
            artifact, device=device.properties.name, max_batch=self._plan.profile.max[0], make_device=make_device
        )

    @property
    def profile(self) -> EngineProfile:
        """The shapes that the engine takes."""
        return self._plan.profile

    def open_engine(self, device: Device) -> TensorRtEngine:
        """An execution context for one input shape; the engine behind it is shared."""
        return TensorRtEngine(self._plan, device)


class TensorRtEngine:
    """One execution context, for the thread that opens it.

    It owns the memory of its activations, exactly what its shape needs, so that running out of it is an error that
    says how much that is, before anything runs.
    """

    def __init__(self, plan: _Plan, device: Device) -> None:
        self.capturable = True
        self._plan = plan
        self._device = device
        self._thread = threading.get_ident()
        self._context: IExecutionContext = None
        self._scratch: Buffer | None = None
        self._addresses: tuple[int, int] | None = None

    def prepare(self, shape: Shape) -> EngineLayout:
        """Fixes the input shape [N, 3, H, W] and takes the memory for it; raises as the protocol says."""
        self._check_thread()
        plan = self._plan
        if not plan.profile.takes(shape):
            raise EngineError(
                f"{plan.file} failed on an input {_text(shape)}, which is outside of its profile: "
                f"min {_text(plan.profile.min)}, opt {_text(plan.profile.opt)}, max {_text(plan.profile.max)}. Build "
                "an engine for this shape, or resize the picture"
            )
        with self._device.active(f"preparing {plan.file}"), plan.trt.log.capture() as log:
            context: IExecutionContext = plan.new_context()
            if context is None or not context.set_input_shape(plan.input, shape):
                raise EngineError(f"TensorRT cannot prepare {plan.file} for {_text(shape)}: {log.tail()}")
            if context.infer_shapes():
                raise EngineError(f"TensorRT cannot tell the shape of {plan.output} in {plan.file}: {log.tail()}")
            output_shape = _four(plan.file, context.get_tensor_shape(plan.output))
            scratch = self._allocate(shape, context.update_device_memory_size_for_shapes())
            context.set_device_memory(scratch.address, scratch.nbytes)
        self._context, self._scratch, self._addresses = context, scratch, None
        return EngineLayout(plan.input_dtype, output_shape, plan.output_dtype)

    def queue(self, source: Buffer, result: Buffer, stream: Stream) -> None:
        """Queues one inference; raises as the protocol says."""
        self._check_thread()
        context: IExecutionContext = self._context
        plan = self._plan
        if context is None:
            raise EngineError(f"{plan.file}: prepare() comes before queue()")
        with self._device.active(f"running {plan.file}"), plan.trt.log.capture() as log:
            first = self._addresses is None
            if self._addresses != (source.address, result.address):
                context.set_tensor_address(plan.input, source.address)
                context.set_tensor_address(plan.output, result.address)
                self._addresses = (source.address, result.address)
            if not context.execute_async_v3(stream.handle):
                raise EngineError(f"TensorRT failed in {plan.file}: {log.tail()}")
            if first and plan.kernels is not None:  # it knows once it has compiled them
                rtx: RtxExecutionContext = context
                self.capturable = bool(rtx.is_stream_capturable(stream.handle))
                plan.kernels.save()

    def _allocate(self, shape: Shape, nbytes: int) -> Buffer:
        try:
            return self._device.allocate(max(nbytes, _MIN_SCRATCH_BYTES))
        except DeviceError as exc:
            raise DeviceError(
                f"not enough GPU memory to run {self._plan.file} on {_text(shape)}: its activations need "
                f"{nbytes / _MIB:.1f} MiB, free are {self._device.free_bytes() / _MIB:.1f} MiB of "
                f"{self._device.properties.total_bytes / _MIB:.0f} MiB. Use smaller pictures or batches, or fewer "
                "workers"
            ) from exc

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise EngineError(
                f"an execution context of {self._plan.file} was used from another thread than opened it: open an "
                "engine in each thread"
            )


class _Plan:
    """A deserialized engine, with what was asked of it once.

    Args:
        profile: the shapes that it takes as the manifest says, or None to ask it.
        kernels: where TensorRT-RTX keeps what it compiles; None with TensorRT, which compiles when it builds.
    """

    def __init__(
        self,
        file: str,
        trt: TensorRT,
        runtime: Runtime,
        engine: ICudaEngine,
        *,
        profile: EngineProfile | None,
        kernels: RtxKernelCache | None,
    ) -> None:
        self.file = file
        self.kernels = kernels
        self.trt = trt
        self._runtime = runtime  # must outlive the engine
        self._engine = engine
        module: TensorRTModule = trt.module
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        if len(names) != 2 or len(inputs) != 1:
            raise EngineError(f"{file} has the tensors {', '.join(names)}; expected one input and one output")
        (self.input,) = inputs
        (self.output,) = (name for name in names if name != self.input)
        self.input_dtype: np.dtype[Any] = np.dtype(module.nptype(engine.get_tensor_dtype(self.input)))
        self.output_dtype: np.dtype[Any] = np.dtype(module.nptype(engine.get_tensor_dtype(self.output)))
        self.profile = profile or EngineProfile(
            *(_four(file, shape) for shape in engine.get_tensor_profile_shape(self.input, 0))
        )

    def new_context(self) -> IExecutionContext:
        """A context whose activations lie in memory of ours; None where TensorRT fails."""
        if self.kernels is not None:
            return self._new_rtx_context(self.kernels)
        engine: ICudaEngine = self._engine
        module: TensorRTModule = self.trt.module
        return engine.create_execution_context(module.ExecutionContextAllocationStrategy.USER_MANAGED)

    def _new_rtx_context(self, kernels: RtxKernelCache) -> IExecutionContext:
        """A context has one shape, so kernels for that shape are compiled at once, and not while frames run."""
        engine: RtxCudaEngine = self._engine
        module: RtxModule = self.trt.module
        config: RtxRuntimeConfig = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        kernels.attach(config)
        return engine.create_execution_context(config)


_plans: weakref.WeakValueDictionary[tuple[str, str], _Plan] = weakref.WeakValueDictionary()
_loading: Final = threading.Lock()


def _share(bundle: Bundle, artifact: Artifact, device: Device) -> _Plan:
    """The deserialized engine of an artifact that fits; one for the whole process."""
    identity = artifact.engine
    if identity is None:  # check_fit() takes no such artifact
        raise EngineError(f"{artifact.file} has no identity in the manifest")
    data = bundle.read(artifact)  # also where the engine is there already: a changed file is never passed over
    trt = load_tensorrt(identity.flavor)
    key = (trt.flavor, artifact.sha256)
    with _loading:
        plan = _plans.get(key)
        if plan is None:
            with device.active(f"loading {artifact.file}"):
                engine, runtime = _deserialize(artifact.file, data, trt, device, host_code=identity.version_compatible)
            kernels = None
            if trt.flavor == "tensorrt-rtx":
                kernels = RtxKernelCache(cache_folder() / f"rtx-{artifact.sha256[:24]}.cache")
            plan = _plans[key] = _Plan(artifact.file, trt, runtime, engine, profile=identity.profile, kernels=kernels)
        return plan


def _deserialize(
    file: str, data: bytes, trt: TensorRT, device: Device, *, host_code: bool
) -> tuple[ICudaEngine, Runtime]:
    """The engine and what made it; raises EngineError.

    With `host_code`, for a plan that later versions run too, the plan brings code of the host along.
    """
    with trt.log.capture() as log:
        module: TensorRTModule = trt.module
        with trt.starting(log):
            runtime: Runtime = module.Runtime(trt.logger)
        if host_code:
            runtime.engine_host_code_allowed = True
        if trt.flavor == "tensorrt-rtx":
            _check_validity(file, data, trt, runtime)
        engine: ICudaEngine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(
            f"TensorRT refuses {file} ({len(data) / _MIB:.1f} MiB, with {device.free_bytes() / _MIB:.0f} MiB of GPU "
            f"memory free): {log.tail()}"
        )
    return engine, runtime


def _check_validity(file: str, data: bytes, trt: TensorRT, runtime: RtxRuntime) -> None:
    module: RtxModule = trt.module
    validity, diagnostics = runtime.get_engine_validity(data)
    if validity == module.EngineValidity.INVALID:
        raise EngineError(f"TensorRT-RTX says that {file} cannot run here (diagnostics {diagnostics}). Build it again")


def _four(file: str, shape: Any) -> Shape:  # noqa: ANN401 - TensorRT's Dims
    sizes = tuple(int(size) for size in shape)
    if len(sizes) != 4:
        raise EngineError(f"{file} has a tensor of {len(sizes)} axes; expected images [N, 3, H, W] and logits")
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))


def make_spec(make_device: MakeDevice = open_device) -> BackendSpec:
    """The backend on the GPU that `make_device` opens."""
    return BackendSpec(
        name=TensorRtBackend.name,
        reads="engine",
        device="gpu",
        packages=tuple(
            Package(facts.module, facts.distribution, facts.extra, facts.purpose) for facts in FLAVORS.values()
        ),
        open=partial(TensorRtBackend, make_device=make_device),
        describe=lambda: ", ".join(f"{flavor} {load_tensorrt(flavor).version}" for flavor in installed_flavors()),
        is_expected=lambda: True,  # whoever adds engines to a bundle expects them to be used
        misfits=partial(_misfits, make_device=make_device),
    )


def _misfits(artifacts: Sequence[Artifact], *, make_device: MakeDevice) -> list[str | None]:
    gpu = make_device().properties
    return [why_not(artifact, gpu) for artifact in artifacts]


SPEC: Final = make_spec()
