"""`DeinterlaceAtrousConv` against ONNX Runtime's own dilated convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tolerances import DEINTERLACE_RELATIVE

from atrous.errors import ExportError
from atrous.exporter.passes import DeinterlaceAtrousConv, SkippedConv, run_passes

Float32Array = npt.NDArray[np.float32]

RATES_IN_USE = (2, 4, 6, 8, 12, 18, 24, 36)
#: All that TensorRT's ONNX parser is asked to take in the place of a dilated convolution.
EMITTED_OPS = {"Add", "Concat", "Conv", "Div", "Gather", "Mul", "Pad", "Reshape", "Shape", "Slice", "Sub", "Transpose"}


@dataclass(frozen=True)
class Case:
    """One convolution: x [N, C, H, W] → [N, M, ·, ·]; `pads` are (top, left, bottom, right) or an `auto_pad`."""

    size: tuple[int, int]
    rates: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] | str = "SAME_UPPER"
    batch: int = 1
    groups: int = 1
    group_channels: tuple[int, int] = (2, 3)
    strides: tuple[int, int] = (1, 1)
    bias: bool = True
    dynamic: bool = False

    def model(self, *, opset: int = 18) -> onnx.ModelProto:
        """The convolution alone in a graph, as a foreign exporter may write it: no shape but the input's."""
        rng = np.random.default_rng(1)
        c, m = self.groups * self.group_channels[0], self.groups * self.group_channels[1]
        constants = [rng.standard_normal((m, self.group_channels[0], *self.kernel), np.float32)]
        constants += [rng.standard_normal(m, np.float32)] * self.bias
        names = ["weight", "bias"][: len(constants)]
        padding = {"auto_pad": self.pads} if isinstance(self.pads, str) else {"pads": self.pads}
        conv = helper.make_node(
            "Conv",
            ["x", *names],
            ["y"],
            name="conv",
            dilations=self.rates,
            strides=self.strides,
            group=self.groups,
            **padding,
        )
        shape = ["n", c, "h", "w"] if self.dynamic else [self.batch, c, *self.size]
        graph = helper.make_graph(
            [conv],
            "one_convolution",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
            [numpy_helper.from_array(*pair) for pair in zip(constants, names, strict=True)],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def explicit(self) -> Case:
        """The same convolution with `auto_pad` written out as the ONNX specification defines it for stride 1."""
        if not isinstance(self.pads, str):
            return self
        totals = [0 if self.pads == "VALID" else r * (k - 1) for r, k in zip(self.rates, self.kernel, strict=True)]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return replace(self, pads=(*less, *more) if self.pads == "SAME_UPPER" else (*more, *less))

    def image(self, rng: np.random.Generator) -> Float32Array:
        return rng.standard_normal((self.batch, self.groups * self.group_channels[0], *self.size), np.float32)


def run(model: onnx.ModelProto, x: Float32Array) -> Float32Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    return output


def assert_same(actual: Float32Array, expected: Float32Array) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= DEINTERLACE_RELATIVE * np.abs(expected).max()


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


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


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2).filter(lambda shape: shape != (1, 1)))
    rates = draw(st.tuples(*[st.integers(1, 6)] * 2).filter(lambda pair: max(pair) > 1))
    automatic = st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])
    pads = draw(automatic | st.tuples(*[st.integers(0, 9)] * 4))
    before, after = ((0, 0), (0, 0)) if isinstance(pads, str) else (pads[:2], pads[2:])
    # The smallest image on which the atrous convolution still has an output, and up to 12 pixels more.
    least = [max(1, rates[i] * (kernel[i] - 1) + 1 - before[i] - after[i]) for i in range(2)]
    size = tuple(side + draw(st.integers(0, 12)) for side in least)
    groups = draw(st.integers(1, 3))
    return Case(
        size,
        rates,
        kernel,
        pads,
        batch=draw(st.integers(1, 3)),
        groups=groups,
        group_channels=draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 2)])),
        bias=draw(st.booleans()),
        dynamic=draw(st.booleans()),
    )


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


def _model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')


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
    assert op_types(run_passes(_model(text), [deinterlace])) == ["Conv"]
    assert [skipped.reason for skipped in deinterlace.skipped] == [reason]


def test_convolution_in_a_subgraph(rng: np.random.Generator) -> None:
    model = _model(
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
