from __future__ import annotations

from atrous.exporter.engine.report import EngineLayer, report_from_inspector, report_from_log

#: As TensorRT-RTX 1.7 writes it, shortened by some formats.
DESCRIPTION = """Layers:
Name: __myl_Cast_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,3,8,8], Datatype: Float, Format: \
(Linear) Row major linear format }], Constants: [ { Name: c, Dimensions: [1], Datatype: Half, Format: (NHWC) }], \
Outputs: [ { Name: relu, Dimensions: [1,4,8,8], Datatype: Half, Format: (NHWC) }], TacticName: t_0x10, StreamId: 0, \
Metadata: [ONNX Layer: image/fp16][ONNX Layer: node_Conv_1]
Name: __mye4060_myl0_1, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 4, Metadata: \

Name: add, LayerType: kgen, Inputs: [ { Name: a, Dimensions: [1,4], Datatype: Half, Format: (NHWC) }, { Name: b, \
Dimensions: [1,4], Datatype: Int8, Format: (NHWC) }], Constants: [], Outputs: [ { Name: y, Dimensions: [1,4], \
Datatype: Int8, Format: (NHWC) }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: node_add]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [1,3,8,8], Location: Device
"""

LAYERS = (
    EngineLayer("__myl_Cast_myl0_0", "kgen", ("Float",), ("Half",), ("image/fp16", "node_Conv_1")),
    EngineLayer("__mye4060_myl0_1", "wait", (), (), ()),
    EngineLayer("add", "kgen", ("Half", "Int8"), ("Int8",), ("node_add",)),
)


def test_reads_a_log() -> None:
    log = [
        "Layers:\nName: of an earlier engine, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: ",
        "Total Activation Memory: 8847360 bytes",
        "Total Host Persistent Memory: 80 bytes",
        "Layer: conv Host Persistent: 80 bytes Device Persistent: 0 bytes Scratch Memory: 8847360 bytes",
        DESCRIPTION,
        "Engine generation completed in 0.1 seconds.",
    ]
    report = report_from_log(log)
    assert report.layers == LAYERS
    assert report.memory_bytes == {"activation": 8847360, "host_persistent": 80}
    assert report.summary() == {
        "layers": 2,  # what only waits does not count
        "reading": {"Float": 1, "Half": 1},
        "memory_bytes": report.memory_bytes,
    }


def test_reads_an_inspector() -> None:
    report = report_from_inspector(DESCRIPTION, activation_bytes=7)
    assert (report.layers, report.memory_bytes) == (LAYERS, {"activation": 7})


def test_a_log_that_tells_nothing_is_no_error() -> None:
    assert report_from_log(["Engine generation completed"]).summary() == {
        "layers": 0, "reading": {}, "memory_bytes": {},
    }  # fmt: skip
