"""`run_passes`: what it reads, checks and refuses."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from atrous.errors import ExportError
from atrous.exporter.passes import run_passes

MODEL = '<ir_version: 10, opset_import: ["": 18]> g (float[2, 3] x) => (float[a, b] y) { h = Relu(x) y = Neg(h) }'


class BreakGraph(ir.passes.InPlacePass):
    """A pass with a bug: it renames an op to one that does not exist."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.graph[0].op_type = "NoSuchOp"
        return ir.passes.PassResult(model, modified=True)


class Refuse(ir.passes.InPlacePass):
    """A pass whose precondition never holds."""

    def requires(self, model: ir.Model) -> None:
        del model
        raise ir.passes.PreconditionError("needs another graph")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise NotImplementedError


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(MODEL)


def test_shapes_are_inferred_and_the_input_is_kept(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    (inferred,) = run_passes(model, []).graph.value_info
    assert [dim.dim_value for dim in inferred.type.tensor_type.shape.dim] == [2, 3]
    assert model.SerializeToString(deterministic=True) == before


def test_reads_a_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert [node.op_type for node in run_passes(path, []).graph.node] == ["Relu", "Neg"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Cannot read the ONNX model .*none\.onnx"):
        run_passes(tmp_path / "none.onnx", [])


def test_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xffnot a protobuf")
    with pytest.raises(ExportError, match="is not a readable ONNX model"):
        run_passes(path, [])


def test_precondition_is_reported(model: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="Cannot apply Refuse: needs another graph"):
        run_passes(model, [Refuse()])


def test_invalid_result_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="not valid ONNX after BreakGraph"):
        run_passes(model, [BreakGraph()])
