"""The graphs of one network that engines are built from: every precision, fixed and dynamic; and building them."""

from __future__ import annotations

from collections.abc import Iterator

import needs
import onnx

from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.exporter.engine.monitor import BuildWatch
from atrous.exporter.engine.network import SerializedEngine, serialize_engine
from atrous.exporter.engine.target import BuilderOptions, Target, engine_profile
from atrous.exporter.passes import ConvertToHalf, run_passes
from atrous.manifest import EngineProfile, Precision, SizePolicy
from atrous.runtime.backends.tensorrt_library import load_tensorrt


def in_every_precision(graph: onnx.ModelProto) -> Iterator[tuple[Precision, onnx.ModelProto]]:
    """The graph in FP32, FP16 and INT8 with the rest in FP16; every activation is said to reach 1."""
    typed = run_passes(graph, [])
    yield "fp32", typed
    yield "fp16", run_passes(typed, [ConvertToHalf({})])
    plan = plan_quantization(typed)
    assert plan.layers
    int8, _ = halve_rest(quantize_graph(typed, plan, dict.fromkeys(plan.tensors, 1.0)))
    yield "int8", int8


def fixed_to(graph: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The graph, taking inputs of this shape only."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    for dim, length in zip(fixed.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    del fixed.graph.value_info[:]
    for dim in fixed.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    return fixed


def build(
    graph: onnx.ModelProto, sizes: SizePolicy, *, batch: int = 1, sm: tuple[int, int] = (8, 9)
) -> SerializedEngine:
    """Build a plan of the graph without a GPU; for `opt` alone where the graph takes no other size."""
    needs.TENSORRT_RTX.load("tensorrt_rtx")
    profile = engine_profile(sizes, None, batch)
    dims = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    if all(dims):
        shape = (dims[0], dims[1], dims[2], dims[3])
        profile = EngineProfile(shape, shape, shape)
    trt = load_tensorrt("tensorrt-rtx")
    data = graph.SerializeToString()
    return serialize_engine(
        trt, data, Target(sm, driver=None), profile, BuilderOptions(), BuildWatch(None), "the graph"
    )
