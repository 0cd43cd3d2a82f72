"""`DeinterlaceAtrousConv` against ONNX Runtime's own dilated convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from atrous_convs import RATES_IN_USE, Case, Float32Array, cases, op_types, parse, run
from hypothesis import given, settings
from onnx import TensorProto
from tolerances import DEINTERLACE_RELATIVE

from atrous.errors import ExportError
from atrous.exporter.passes import DeinterlaceAtrousConv, SkippedConv, run_passes

#: All that TensorRT's ONNX parser is asked to take in the place of a dilated convolution.
EMITTED_OPS = {"Add", "Concat", "Conv", "Div", "Gather", "Mul", "Pad", "Reshape", "Shape", "Slice", "Sub", "Transpose"}


def assert_same(actual: Float32Array, expected: Float32Array) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= DEINTERLACE_RELATIVE * np.abs(expected).max()


def check(case: Case, rng: np.random.Generator) -> onnx.ModelProto:
    """Asserts that the pass keeps what the convolution computes; returns the rewritten model."""
    x, deinterlace = case.image(rng), DeinterlaceAtrousConv()
    rewritten = run_passes(case.model(), [deinterlace])
    assert deinterlace.rewritten == ("conv",)
    assert set(op_types(rewritten)) <= EMITTED_OPS
    # ONNX Runtime refuses dilation with automatic "same" padding, so the reference pads explicitly.
    assert_same(run(rewritten, x), run(case.explicit().model(), x))
    return rewritten


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (33, 45), (48, 72)])
@pytest.mark.parametrize("rate", RATES_IN_USE)
def test_rates_in_use(rate: int, size: tuple[int, int], dynamic: bool, rng: np.random.Generator) -> None:
    pads = (rate, rate, rate, rate)
    check(Case(size, (rate, rate), pads=pads, batch=2, dynamic=dynamic), rng)


@given(case=cases())
@settings(max_examples=150)
def test_any_convolution_of_stride_1(case: Case) -> None:
    check(case, np.random.default_rng(2))


def test_one_dynamic_graph_serves_every_size(rng: np.random.Generator) -> None:
    case = Case((1, 1), (3, 4), pads=(3, 4, 3, 4), dynamic=True)
    model = case.model()
    rewritten = run_passes(model, [DeinterlaceAtrousConv()])
    for batch, *size in [(1, 7, 8), (3, 9, 13), (2, 24, 12), (1, 1, 31)]:
        x = replace(case, batch=batch, size=(size[0], size[1])).image(rng)
        assert_same(run(rewritten, x), run(model, x))


def test_static_size_gives_constant_shapes(rng: np.random.Generator) -> None:
    rewritten = check(Case((33, 45), (6, 6), pads=(6, 6, 6, 6)), rng)
    assert op_types(rewritten) == [
        "Pad", "Reshape", "Transpose", "Reshape", "Conv", "Reshape", "Transpose", "Reshape", "Slice",
    ]  # fmt: skip
    constants = {tensor.name for tensor in rewritten.graph.initializer}
    shapes = [node.input[1] for node in rewritten.graph.node if node.op_type == "Reshape"]
    assert constants.issuperset(shapes)


def test_size_divisible_by_the_rate_needs_neither_pad_nor_crop(rng: np.random.Generator) -> None:
    rewritten = check(Case((36, 48), (12, 12), pads=(12, 12, 12, 12)), rng)
    assert op_types(rewritten) == ["Reshape", "Transpose", "Reshape", "Conv", "Reshape", "Transpose", "Reshape"]


def test_weights_are_shared_and_the_name_stays(rng: np.random.Generator) -> None:
    case = Case((9, 9), (2, 2))
    rewritten = check(case, rng)
    (conv,) = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert conv.name == "conv"
    assert list(conv.input[1:]) == ["weight", "bias"]
    floats = [tensor.name for tensor in rewritten.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert floats == ["weight", "bias"]


def test_dense_convolution_is_untouched() -> None:
    model = Case((9, 9), (1, 1)).model()
    deinterlace = DeinterlaceAtrousConv()
    rewritten = run_passes(model, [deinterlace])
    assert rewritten.graph.node == model.graph.node
    assert deinterlace.rewritten == deinterlace.skipped == ()


def test_idempotent() -> None:
    once = run_passes(Case((9, 10), (2, 3), dynamic=True).model(), [DeinterlaceAtrousConv()])
    again = DeinterlaceAtrousConv()
    assert run_passes(once, [again]).graph.node == once.graph.node
    assert again.rewritten == again.skipped == ()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case((9, 9), (2, 2), pads=(2, 2, 2, 2), strides=(2, 2)), "its stride is greater than 1"),
        (Case((9, 9), (2, 2), kernel=(1, 1)), "a 1x1 kernel has no holes"),
    ],
)
def test_left_alone_and_why(case: Case, reason: str) -> None:
    model = case.model()
    deinterlace = DeinterlaceAtrousConv()
    rewritten = run_passes(model, [deinterlace])
    assert rewritten.graph.node == model.graph.node
    assert deinterlace.skipped == (SkippedConv("conv", reason),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[1, 2, 9] x, float[2, 2, 3] k) => (float[1, 2, 5] y) { y = Conv<dilations = [2]>(x, k) }",
            "it is not 2-D",
        ),
        (
            "g (float[1, 2, 9, 9] x, float[m, c, 3, 3] k) => (float[n, m, h, w] y) {y = Conv<dilations=[2, 2]>(x, k)}",
            "the shape of its weight is unknown",
        ),
    ],
)
def test_unsupported_operands_are_left_alone(text: str, reason: str) -> None:
    deinterlace = DeinterlaceAtrousConv()
    assert op_types(run_passes(parse(text), [deinterlace])) == ["Conv"]
    assert [skipped.reason for skipped in deinterlace.skipped] == [reason]


def test_convolution_in_a_subgraph(rng: np.random.Generator) -> None:
    model = parse(
        """g (float[1, 1, h, w] x, bool b) => (float[1, 1, h, w] y)
        <float[1, 1, 3, 3] k = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
            y = If (b) <
                then_branch = t () => (float[1, 1, h, w] u) { u = Conv<dilations=[2,2], pads=[2,2,2,2]>(x, k) },
                else_branch = e () => (float[1, 1, h, w] v) { v = Identity(x) }>
        }"""
    )
    rewritten = run_passes(model, [DeinterlaceAtrousConv()])
    feeds = {"x": rng.standard_normal((1, 1, 7, 8), np.float32), "b": np.array(True)}
    expected, actual = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for each in (model, rewritten)
    )
    assert_same(actual, expected)


def test_old_opset_is_refused() -> None:
    with pytest.raises(ExportError, match=r"opset >= 18, the model has 13"):
        run_passes(Case((9, 9), (2, 2)).model(opset=13), [DeinterlaceAtrousConv()])
