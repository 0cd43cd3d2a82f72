from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_graphs import Conv, local_layers, save_graph

import atrous
from atrous.bundle import Bundle
from atrous.errors import BundleError, EngineError, ExportError
from atrous.exporter.options import PackOptions
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import Size

CLASSES = ("sky", "road", "car", "tree", "person")
RANGE = DynamicSize((32, 32), (64, 48), (96, 96), multiple=8)
Axes = Sequence["int | str"]


@pytest.fixture
def graph(folder: Path) -> Path:
    """A graph of 5 classes at stride 8, for any size and batch."""
    return save_graph(folder.parent / "model.onnx", local_layers(5))


@pytest.fixture
def fixed_graph(folder: Path) -> Path:
    """The same for 1×3×64×96 only."""
    return save_graph(folder.parent / "model.onnx", local_layers(5), size=(64, 96))


def redeclared(path: Path, image: Axes | None = None, logits: Axes | None = None) -> Path:
    """Rewrite what a graph says of its input and output, not what it computes."""
    model = onnx.load(path)
    for value, axes in ((model.graph.input[0], image), (model.graph.output[0], logits)):
        if axes is not None:
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, axes))
    onnx.save(model, path)
    return path


class TestBundle:
    def test_dynamic(self, graph: Path, folder: Path) -> None:
        bundle = pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        manifest = bundle.manifest
        assert (manifest.output.stride, manifest.input.size.opt) == (8, (64, 48))
        (artifact,) = manifest.artifacts
        assert (artifact.kind, artifact.precision, artifact.file) == ("onnx", "fp32", "model.fp32.onnx")
        assert artifact.provenance["source"] == "model.onnx"
        assert len(manifest.verification) == 2  # in ONNX Runtime and OpenVINO
        for check in manifest.verification:
            assert check.passed
            assert {shape[0] for shape in check.inputs} == {1, 2, 3, 8}
            assert {RANGE.min, RANGE.opt, RANGE.max} <= {shape[2:] for shape in check.inputs}

    @pytest.mark.parametrize("size", [None, (64, 96)])
    def test_a_fixed_size_is_read_from_the_graph(self, fixed_graph: Path, folder: Path, size: Size | None) -> None:
        bundle = pack(fixed_graph, folder / "street.atrous", classes=CLASSES, size=size)
        assert bundle.manifest.input.size.is_fixed
        assert bundle.manifest.input.size.opt == (64, 96)

    def test_a_dynamic_graph_used_at_one_size(self, graph: Path, folder: Path) -> None:
        bundle = pack(graph, folder / "street.atrous", classes=CLASSES, size=(64, 96))
        assert bundle.manifest.input.size.is_fixed

    def test_the_graph_computes_the_same(self, graph: Path, folder: Path) -> None:
        bundle = pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert onnx.load(bundle.path / "model.fp32.onnx") == onnx.load(graph)

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
    def test_runs(self, graph: Path, folder: Path, backend: str, rng: np.random.Generator) -> None:
        pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        image = rng.integers(0, 256, (50, 70, 3), np.uint8)
        assert atrous.load(folder / "street.atrous", backend=backend)(image).labels.shape == (50, 70)

    def test_axes_of_minus_one_are_dynamic(self, graph: Path, folder: Path) -> None:
        bundle = pack(redeclared(graph, [-1, 3, -1, -1]), folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert not bundle.manifest.input.size.is_fixed

    def test_weights_among_the_inputs_are_no_inputs(self, fixed_graph: Path, folder: Path) -> None:
        model = onnx.load(fixed_graph)
        weight = model.graph.initializer[0]
        model.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims))
        onnx.save(model, fixed_graph)
        pack(fixed_graph, folder / "street.atrous", classes=CLASSES)

    def test_an_existing_bundle_is_kept_unless_asked(self, fixed_graph: Path, folder: Path) -> None:
        path = pack(fixed_graph, folder / "street.atrous", classes=CLASSES, options=PackOptions(license="mine")).path
        with pytest.raises(BundleError, match="exists already"):
            pack(fixed_graph, path, classes=CLASSES, options=PackOptions(license="other"))
        assert Bundle.open(path).manifest.license == "mine"
        assert (
            pack(
                fixed_graph, path, classes=CLASSES, options=PackOptions(license="other"), overwrite=True
            ).manifest.license
            == "other"
        )


class TestExternalData:
    @pytest.fixture
    def graph(self, graph: Path) -> Path:
        model = onnx.load(graph)
        onnx.save(model, graph, save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (graph.parent / "weights.bin").stat().st_size > 1000
        return graph

    def test_is_folded_in(self, graph: Path, folder: Path) -> None:
        bundle = pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert sorted(path.name for path in bundle.path.iterdir()) == ["manifest.json", "model.fp32.onnx"]
        (graph.parent / "weights.bin").unlink()
        assert all(check.passed for check in verify_bundle(bundle).checks)

    def test_is_missing(self, graph: Path, folder: Path) -> None:
        (graph.parent / "weights.bin").unlink()
        with pytest.raises(ExportError, match=r"weights\.bin"):
            pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert list(folder.iterdir()) == []

    def test_is_truncated(self, graph: Path, folder: Path) -> None:
        weights = graph.parent / "weights.bin"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(ExportError, match=r"model\.onnx"):
            pack(graph, folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert list(folder.iterdir()) == []

    def test_lies_elsewhere(self, graph: Path, folder: Path) -> None:
        model = onnx.load(graph, load_external_data=False)
        secret = folder.parent / "secret.bin"
        secret.write_bytes(bytes(10_000))
        for tensor in model.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = f"../{secret.name}"
        (graph.parent / "sub").mkdir()
        onnx.save(model, graph.parent / "sub" / "model.onnx")
        with pytest.raises(ExportError, match=r"invalid ONNX file"):
            pack(graph.parent / "sub" / "model.onnx", folder / "street.atrous", classes=CLASSES, size=RANGE)
        assert list(folder.iterdir()) == []


def _truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _with(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _without_output_shape(path: Path) -> Path:
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def _two_inputs(path: Path) -> Path:
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 64, 96]))
    model.graph.node.append(helper.make_node("Identity", ["mask"], ["unused"]))
    onnx.save(model, path)
    return path


def _two_outputs(path: Path) -> Path:
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, ["N", 8, "h", "w"]))
    onnx.save(model, path)
    return path


def _of(node: onnx.NodeProto, path: Path, image: Axes, logits: Axes, dtype: int = TensorProto.FLOAT) -> Path:
    """A graph of one operator from image to logits."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", dtype, image)],
        [helper.make_tensor_value_info("logits", dtype, logits)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _identity(path: Path, axes: Axes, dtype: int = TensorProto.FLOAT) -> Path:
    return _of(helper.make_node("Identity", ["image"], ["logits"]), path, axes, axes, dtype)


class TestRefusals:
    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda path: path.with_name("missing.onnx"), r"cannot read .*missing\.onnx"),
            (lambda path: path.parent, "invalid ONNX file"),
            (lambda path: _with(path, b""), "invalid ONNX file"),
            (lambda path: _with(path, b"\x89PNG not a graph"), "invalid ONNX file"),
            (_truncated, "invalid ONNX file"),
            (_without_output_shape, "invalid ONNX file .*: Field 'shape'"),
            (_two_inputs, r"has 2 inputs \(image, mask\); expected one image"),
            (_two_outputs, r"has 2 outputs: c4 .*, c0 "),
            (lambda path: _identity(path, [1, 1, 64, 96]), r"'image' is \[1, 1, 64, 96\]; expected \[N, 3, H, W\]"),
            (lambda path: _identity(path, [3, 64, 96]), r"'image' is FLOAT \[3, 64, 96\]; expected .* four axes"),
            (
                lambda path: _identity(path, [1, 3, 8, 8], TensorProto.UINT8),
                r"'image' is UINT8, pixels that the graph",
            ),
            (lambda path: redeclared(path, [0, 3, 0, 0]), r"takes batches of 0 only"),
            (lambda path: redeclared(path, [4, 3, 64, 96]), r"takes batches of 4 only"),
            (lambda path: redeclared(path, logits=[1, 5, 96]), r"'c4' is FLOAT \[1, 5, 96\]"),
            (
                lambda path: _of(
                    helper.make_node("ReduceMean", ["image"], ["logits"], keepdims=1),
                    path,
                    [1, 3, 64, 96],
                    [1, 1, 1, 1],
                ),
                r"expected \[N, 5, h, w\]",
            ),
            (
                lambda path: _of(
                    helper.make_node("Transpose", ["image"], ["logits"], perm=[0, 2, 3, 1]),
                    path,
                    [1, 3, 64, 96],
                    [1, 64, 96, 3],
                ),
                r"returns \[1, 64, 96, 3\]; expected \[N, 5, h, w\]",
            ),
        ],
    )
    def test_graphs(self, fixed_graph: Path, folder: Path, spoil: Callable[[Path], Path], said: str) -> None:
        with pytest.raises(ExportError, match=said):
            pack(spoil(fixed_graph), folder / "street.atrous", classes=CLASSES)
        assert list(folder.iterdir()) == []

    def test_an_operator_that_onnx_runtime_does_not_know(self, fixed_graph: Path, folder: Path) -> None:
        model = onnx.load(fixed_graph)
        model.graph.node[0].domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))
        onnx.save(model, fixed_graph)
        with pytest.raises(EngineError, match="ONNX Runtime refuses"):
            pack(fixed_graph, folder / "street.atrous", classes=CLASSES)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("classes", [CLASSES[:4], (*CLASSES, "more")])
    def test_class_lists_of_another_length(self, fixed_graph: Path, folder: Path, classes: tuple[str, ...]) -> None:
        with pytest.raises(ExportError, match=rf"returns \[1, 5, 8, 12\]; expected \[N, {len(classes)}, h, w\]"):
            pack(fixed_graph, folder / "street.atrous", classes=classes)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("image", "size", "said"),
        [
            (["N", 3, "H", "W"], None, "size is required: size="),
            (["N", 3, "H", "W"], DynamicSize((64, 64), (32, 32), (96, 96)), "min ≤ opt ≤ max"),
            ([1, 3, 64, 96], (64, 64), "takes 64×96 only"),
            ([1, 3, 64, 96], RANGE, "takes 64×96 only"),
            ([1, 3, "H", "W"], RANGE, "needs a dynamic batch, height and width"),
            (["N", 3, 64, "W"], RANGE, "needs a dynamic batch, height and width"),
        ],
    )
    def test_sizes(self, graph: Path, folder: Path, image: Axes, size: Size | DynamicSize | None, said: str) -> None:
        with pytest.raises(ExportError, match=said):
            pack(redeclared(graph, image), folder / "street.atrous", classes=CLASSES, size=size)
        assert list(folder.iterdir()) == []

    def test_a_graph_that_is_not_steady(self, folder: Path) -> None:
        noise = helper.make_node("RandomNormalLike", ["image"], ["logits"])
        path = _of(noise, folder.parent / "noise.onnx", [1, 3, 8, 8], [1, 3, 8, 8])
        with pytest.raises(ExportError, match="does not compute what onnxruntime without graph optimizations"):
            pack(path, folder / "street.atrous", classes=["a", "b", "c"])
        assert list(folder.iterdir()) == []


def _quantized(path: Path) -> Path:
    """One convolution with explicit quantization of its input and weight: symmetric INT8, zero-point 0."""
    weight = np.array([-127, 64, 127, 5, -9, 80, 33, 90, -60], np.int8).reshape(3, 3, 1, 1)
    tensors = [
        numpy_helper.from_array(np.float32(0.02), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(weight, "weight"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["quantized"]),
        helper.make_node("DequantizeLinear", ["quantized", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["logits"], strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, "h", "w"])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _halved(path: Path) -> Path:
    """One convolution in FP16, between FP32 input and output."""
    layer = Conv(np.eye(3, dtype=np.float32)[:, :, None, None])
    model = onnx.load(save_graph(path, [layer]))
    half = numpy_helper.from_array(layer.weight.astype(np.float16), "w0")
    model.graph.initializer[0].CopyFrom(half)
    model.graph.node[0].input[0] = "half"
    model.graph.node[0].output[0] = "half_logits"
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["half_logits"], ["c0"], to=TensorProto.FLOAT))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("make", "precision"), [(_quantized, "int8"), (_halved, "fp16")])
def test_other_precisions_are_recognised_and_run(make: Callable[[Path], Path], precision: str, folder: Path) -> None:
    graph = make(folder.parent / "model.onnx")
    bundle = pack(graph, folder / "street.atrous", classes=["a", "b", "c"], size=RANGE)
    (artifact,) = bundle.manifest.artifacts
    assert (artifact.precision, artifact.file) == (precision, f"model.{precision}.onnx")
    assert atrous.load(bundle.path)(np.zeros((40, 40, 3), np.uint8)).labels.shape == (40, 40)
    for check in verify_bundle(bundle).checks:
        assert check.passed, check
