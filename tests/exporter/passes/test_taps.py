"""`SplitAtrousConvIntoTaps` against ONNX Runtime's own dilated convolution, in FP32 and in INT8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from atrous_convs import RATES_IN_USE, Case, Float32Array, cases, op_types, parse, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tolerances import TAPS_RELATIVE

from atrous.errors import ExportError
from atrous.exporter.passes import DeinterlaceAtrousConv, SkippedConv, SplitAtrousConvIntoTaps, run_passes
from atrous.exporter.passes.atrous import RewriteAtrousConvs

#: All that engines are asked to take in the place of a dilated convolution.
EMITTED_OPS = {"Add", "Conv", "DequantizeLinear", "Pad", "Reshape", "Slice"}


def assert_same(actual: Float32Array, expected: Float32Array) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TAPS_RELATIVE * np.abs(expected).max()


def check(case: Case, rng: np.random.Generator) -> onnx.ModelProto:
    """Asserts that the pass keeps what the convolution computes; returns the rewritten model."""
    x, split = case.image(rng), SplitAtrousConvIntoTaps()
    rewritten = run_passes(case.model(), [split])
    assert split.rewritten == ("conv",)
    assert set(op_types(rewritten)) <= EMITTED_OPS
    assert all(max(dilations(node)) == 1 for node in rewritten.graph.node)
    assert_same(run(rewritten, x), run(case.explicit().model(), x))
    return rewritten


def dilations(node: onnx.NodeProto) -> list[int]:
    return [each for attribute in node.attribute if attribute.name == "dilations" for each in attribute.ints] or [1]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (33, 45), (48, 72)])
@pytest.mark.parametrize("rate", RATES_IN_USE)
def test_rates_in_use(rate: int, size: tuple[int, int], dynamic: bool, rng: np.random.Generator) -> None:
    check(Case(size, (rate, rate), pads=(rate, rate, rate, rate), batch=2, dynamic=dynamic), rng)


@given(case=cases(), strides=st.tuples(*[st.integers(1, 3)] * 2))
@settings(max_examples=200)
def test_any_convolution_and_stride(case: Case, strides: tuple[int, int]) -> None:
    if isinstance(case.pads, str):
        strides = (1, 1)  # other strides make automatic padding depend on the size
    case = replace(case, strides=strides)
    split = SplitAtrousConvIntoTaps()
    run_passes(case.model(), [split])
    if split.rewritten:
        check(case, np.random.default_rng(2))
    else:
        assert [skipped.reason for skipped in split.skipped] == ["no tap lies inside of its input"]


def test_one_dynamic_graph_serves_every_size(rng: np.random.Generator) -> None:
    case = Case((1, 1), (3, 4), pads=(3, 4, 3, 4), dynamic=True)
    model = case.model()
    rewritten = run_passes(model, [SplitAtrousConvIntoTaps()])
    for batch, *size in [(1, 7, 8), (3, 9, 13), (2, 24, 12), (1, 1, 31)]:
        x = replace(case, batch=batch, size=(size[0], size[1])).image(rng)
        assert_same(run(rewritten, x), run(model, x))


def test_taps_outside_of_the_image_cost_nothing(rng: np.random.Generator) -> None:
    rewritten = check(Case((20, 65), (36, 36), pads=(36, 36, 36, 36)), rng)
    convs = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert [conv.name for conv in convs] == ["conv/tap_1_0", "conv/tap_1_1", "conv/tap_1_2"]
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in rewritten.graph.value_info
    }
    assert [shapes[conv.output[0]] for conv in convs] == [[1, 3, 20, 29], [1, 3, 20, 65], [1, 3, 20, 29]]


def test_the_whole_weight_is_gone_and_the_bias_added_once(rng: np.random.Generator) -> None:
    rewritten = check(Case((9, 9), (2, 2)), rng)
    names = [tensor.name for tensor in rewritten.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert "weight" not in names
    assert names.count("bias") == 1
    assert [node.name for node in rewritten.graph.node if "bias" in node.input] == ["conv/tap_1_1"]


def test_a_bias_where_no_tap_reaches_every_output(rng: np.random.Generator) -> None:
    rewritten = check(Case((9, 9), (3, 3), kernel=(2, 2), pads=(2, 2, 2, 2)), rng)
    assert op_types(rewritten).count("Reshape") == 1


def test_a_weight_that_two_convolutions_share(rng: np.random.Generator) -> None:
    model = parse(
        """g (float[1, 1, 9, 9] x) => (float[1, 1, 9, 9] y) <float[1, 1, 3, 3] k = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
            a = Conv<dilations=[2,2], pads=[2,2,2,2]>(x, k)
            y = Conv<dilations=[3,3], pads=[3,3,3,3]>(a, k)
        }"""
    )
    rewritten = run_passes(model, [SplitAtrousConvIntoTaps()])
    x = rng.standard_normal((1, 1, 9, 9), np.float32)
    assert_same(run(rewritten, x), run(model, x))


def test_idempotent_and_dense_convolutions_are_untouched() -> None:
    once = run_passes(Case((9, 10), (2, 3), dynamic=True).model(), [SplitAtrousConvIntoTaps()])
    again = SplitAtrousConvIntoTaps()
    assert run_passes(once, [again]).graph.node == once.graph.node
    assert again.rewritten == again.skipped == ()


def quantized(case: Case, *, zero_point: int = 0) -> onnx.ModelProto:
    """The convolution between Q/DQ, its weight in int8 per output channel."""
    model = case.model()
    (conv,) = model.graph.node
    weight = numpy_helper.to_array(model.graph.initializer[0])
    scales = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    integers = np.rint(weight / scales[:, None, None, None]).astype(np.int8)
    constants = {
        "weight": integers,
        "scales": scales,
        "scale": np.float32(0.02),
        "zero": np.int8(zero_point),
        "zeros": np.zeros(len(scales), np.int8),
    }
    del model.graph.initializer[0]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    )
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantize"),
            helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["w"], axis=0, name="weights"),
        ]
    )
    conv.input[0], conv.input[1] = "d", "w"
    model.graph.node.append(conv)
    return model


@pytest.mark.parametrize("zero_point", [0, -3])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (33, 45)])
def test_int8_is_sliced_as_integers(
    size: tuple[int, int], dynamic: bool, zero_point: int, rng: np.random.Generator
) -> None:
    case = Case(size, (6, 6), pads=(6, 6, 6, 6), dynamic=dynamic)
    model = quantized(case, zero_point=zero_point)
    rewritten = run_passes(model, [SplitAtrousConvIntoTaps()])
    x = case.image(rng)
    assert_same(run(rewritten, x), run(model, x))
    made_by = {output: node for node in rewritten.graph.node for output in node.output}
    assert op_types(rewritten).count("QuantizeLinear") == 1
    for conv in (node for node in rewritten.graph.node if node.op_type == "Conv"):
        dequantize, weights = made_by[conv.input[0]], made_by[conv.input[1]]
        assert (dequantize.op_type, weights.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights.input[1:] == ["scales", "zeros"]
        source = made_by[dequantize.input[0]]
        assert source.op_type in {"Slice", "QuantizeLinear"}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case((9, 9), (2, 2), kernel=(1, 1)), "a 1x1 kernel has no holes"),
        (Case((9, 9), (2, 2), strides=(2, 2)), "its padding depends on the size of the input"),
    ],
)
def test_left_alone_and_why(case: Case, reason: str) -> None:
    model = case.model()
    split = SplitAtrousConvIntoTaps()
    assert run_passes(model, [split]).graph.node == model.graph.node
    assert split.skipped == (SkippedConv("conv", reason),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[1, 1, 9] x) => (float[1, 1, 5] y) <float[1, 1, 3] k = {1, 2, 3}> {y = Conv<dilations=[2]>(x, k)}",
            "it is not 2-D",
        ),
        (
            "g (float[1, 2, 9, 9] x, float[1, 2, 3, 3] k) => (float[1, 1, h, w] y) {y = Conv<dilations=[2, 2]>(x, k)}",
            "its weight is not a constant",
        ),
    ],
)
def test_unsupported_operands_are_left_alone(text: str, reason: str) -> None:
    split = SplitAtrousConvIntoTaps()
    assert op_types(run_passes(parse(text), [split])) == ["Conv"]
    assert [skipped.reason for skipped in split.skipped] == [reason]


def test_old_opset_is_refused() -> None:
    with pytest.raises(ExportError, match=r"opset >= 18, the model has 13"):
        run_passes(Case((9, 9), (2, 2)).model(opset=13), [SplitAtrousConvIntoTaps()])


@pytest.mark.parametrize("rewrite", [SplitAtrousConvIntoTaps, DeinterlaceAtrousConv])
def test_only_the_named_convolutions_are_rewritten(rewrite: type[RewriteAtrousConvs]) -> None:
    weights = ", ".join(["0.1"] * 81)
    model = parse(
        f"""
        g (float[1, 3, 16, 16] x) => (float[1, 3, 16, 16] z)
        <float[3, 3, 3, 3] w = {{{weights}}}>
        {{
            [first] y = Conv<dilations = [2, 2], pads = [2, 2, 2, 2]>(x, w)
            [second] z = Conv<dilations = [4, 4], pads = [4, 4, 4, 4]>(y, w)
        }}
        """
    )
    one = rewrite(only=["second"])
    rewritten = run_passes(model, [one])
    assert (one.rewritten, one.skipped) == (("second",), ())
    assert [max(dilations(node)) for node in rewritten.graph.node if node.name == "first"] == [2]
