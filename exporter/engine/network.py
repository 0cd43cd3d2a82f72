"""Builds a serialized TensorRT engine from an ONNX graph, strongly typed in all versions: parse, configure, build.

Types are those of the graph: nothing here chooses a precision. TensorFloat-32 is disabled, because it would round the
inputs of FP32 convolutions to 10 bits; use FP16 for speed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import EngineError
from ...files import write_whole
from ...manifest import EngineProfile
from ...runtime.backends.tensorrt_library import LogCapture, TensorRT
from ...runtime.backends.tensorrt_types import (
    Builder,
    IBuilderConfig,
    ICudaEngine,
    INetworkDefinition,
    OnnxParser,
    ParserError,
    RtxBuilderConfig,
    RtxModule,
    Runtime,
)
from .monitor import BuildWatch, make_monitor
from .report import EngineReport, report_from_inspector, report_from_log
from .target import BuilderOptions, Target

#: Builds take turns, because TensorRT has one logger per process.
_building = threading.Lock()

#: Manifest value → name in TensorRT.
HARDWARE_LEVELS: Final = {"same-compute-capability": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


@dataclass(frozen=True)
class SerializedEngine:
    """Serialized engine (TensorRT's plan), and the report of its build."""

    data: bytes
    report: EngineReport


def serialize_engine(
    trt: TensorRT,
    graph: bytes,
    target: Target,
    profile: EngineProfile,
    options: BuilderOptions,
    watch: BuildWatch,
    name: str,
) -> SerializedEngine:
    """Build one engine.

    Args:
        graph: the ONNX model.
        watch: reports progress and cancels the build.
        name: name of the graph in messages.

    Raises:
        EngineError: TensorRT rejects the graph (the message names the nodes) or the shapes, or the build fails.
        KeyboardInterrupt: Ctrl-C.
    """
    with _building, trt.log.capture() as log, watch.stopping_on_ctrl_c():
        with trt.starting(log):
            builder: Builder = trt.module.Builder(trt.logger)
        network = _parse(trt, builder, graph, name)
        _check_shapes(network, profile, name)
        config = _configure(trt, builder, network, profile, options)
        if trt.facts.builds_without_gpu:
            _aim(trt.module, config, target)
        cache = _read_timing_cache(config, options, trt)
        config.progress_monitor = make_monitor(trt.module, watch)
        serialized = builder.build_serialized_network(network, config)
        watch.reraise()
        if serialized is None:
            raise EngineError(
                f"{trt.flavor} {trt.version} cannot build {name} for SM {target.sm}. Its log ends:\n{log.tail()}"
            )
        data = bytes(serialized)
        if cache is not None:
            _write_timing_cache(config, cache)
        return SerializedEngine(data, _inspect(trt, data, target, log))


def _parse(trt: TensorRT, builder: Builder, graph: bytes, name: str) -> INetworkDefinition:
    # TensorRT 10 must request strong typing; TensorRT 11 and TensorRT-RTX always use it.
    must_request = trt.flavor == "tensorrt" and trt.major == 10
    flags = 1 << int(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if must_request else 0
    network: INetworkDefinition = builder.create_network(flags)
    parser: OnnxParser = trt.module.OnnxParser(network, trt.logger)
    if not parser.parse(graph):
        raise EngineError(f"{trt.flavor} {trt.version} rejects {name}:\n{_parser_errors(parser)}")
    return network


def _parser_errors(parser: OnnxParser) -> str:
    lines = []
    for index in range(parser.num_errors):
        error: ParserError = parser.get_error(index)
        where = f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): " if error.node() >= 0 else ""
        lines.append(f"  {where}{error.desc()}")
    return "\n".join(lines)


def _check_shapes(network: INetworkDefinition, profile: EngineProfile, name: str) -> None:
    """Check the graph's fixed axes against the profile; TensorRT's own message names neither."""
    shape = tuple(network.get_input(0).shape)
    for wanted in (profile.min, profile.opt, profile.max):
        if any(fixed not in (-1, length) for fixed, length in zip(shape, wanted, strict=True)):
            takes = ["any" if length == -1 else length for length in shape]
            raise EngineError(
                f"{name} takes inputs of {takes}; got {list(wanted)}. "
                "Export with a range of sizes to use batches or other sizes"
            )


def _configure(
    trt: TensorRT, builder: Builder, network: INetworkDefinition, profile: EngineProfile, options: BuilderOptions
) -> IBuilderConfig:
    module = trt.module
    config: IBuilderConfig = builder.create_builder_config()
    config.clear_flag(module.BuilderFlag.TF32)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # for the report; costs neither speed nor size
    config.max_aux_streams = 0  # only the given stream, so that a CUDA graph can capture it
    image = network.get_input(0)
    if -1 in tuple(image.shape):
        shapes = builder.create_optimization_profile()
        shapes.set_shape(image.name, profile.min, profile.opt, profile.max)
        config.add_optimization_profile(shapes)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatibility != "none":
        levels = module.HardwareCompatibilityLevel.__members__
        config.hardware_compatibility_level = levels[HARDWARE_LEVELS[options.hardware_compatibility]]
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    return config


def _aim(module: RtxModule, config: RtxBuilderConfig, target: Target) -> None:
    """Set the target GPU, so that the build needs none."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(module.ComputeCapability.__members__[f"SM{target.sm}"], 0)


def _read_timing_cache(config: IBuilderConfig, options: BuilderOptions, trt: TensorRT) -> Path | None:
    if options.timing_cache is None:
        return None
    path = Path(options.timing_cache)
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as exc:
        raise EngineError(f"cannot read the timing cache {path}: {exc.strerror}") from exc
    cache = config.create_timing_cache(data)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise EngineError(
            f"the timing cache {path} belongs to another TensorRT than {trt.flavor} {trt.version}, or to another GPU. "
            "Use another file, or delete it"
        )
    return path


def _write_timing_cache(config: IBuilderConfig, path: Path) -> None:
    try:
        with write_whole(path) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except OSError as exc:
        raise EngineError(f"cannot write the timing cache {path}: {exc.strerror}") from exc


def _inspect(trt: TensorRT, plan: bytes, target: Target, log: LogCapture) -> EngineReport:
    """Read the report from the build log or, with a GPU, from the deserialized engine, which proves that it loads."""
    if target.driver is None:
        return report_from_log(log.texts())
    with trt.starting(log):
        runtime: Runtime = trt.module.Runtime(trt.logger)
    runtime.engine_host_code_allowed = True  # version-compatible engines contain code; this one was just built here
    engine: ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{trt.flavor} {trt.version} built an engine that it cannot deserialize. Its log ends:\n{log.tail()}"
        )
    inspector = engine.create_engine_inspector()
    description = inspector.get_engine_information(trt.module.LayerInformationFormat.ONELINE)
    return report_from_inspector(description, activation_bytes=engine.device_memory_size_v2)
