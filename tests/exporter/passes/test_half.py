"""`ConvertToHalf`: which nodes become FP16, and that the graph still computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tolerances import HALF_RELATIVE

from atrous.errors import ExportError
from atrous.exporter.passes import ConvertToHalf, RoundToHalf, run_passes
from atrous.exporter.passes.magnitudes import HALF_MAX, HALF_TINY, Magnitudes

FloatArray = NDArray[np.float32]

CONV = "g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) <float[2, 2, 1, 1] w = {1, 2, 3, -4}, float[2] b = {5, 6}>"


def parse(text: str, *, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')


def run(model: onnx.ModelProto, **feeds: NDArray) -> FloatArray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, feeds)
    return output


def picture(rng: np.random.Generator) -> FloatArray:
    return rng.uniform(-2, 2, (2, 2, 5, 6)).astype(np.float32)


def convert(model: onnx.ModelProto, keep: dict[str, str] | None = None) -> tuple[onnx.ModelProto, ConvertToHalf]:
    """Converted; its inputs and outputs must be declared as before."""
    each = ConvertToHalf(keep)
    half = run_passes(model, [each])
    inferred = run_passes(model, [])
    initializers = {tensor.name for tensor in model.graph.initializer}
    assert [value for value in inferred.graph.input if value.name not in initializers] == list(half.graph.input)
    assert [(value.name, value.type.tensor_type.elem_type) for value in inferred.graph.output] == [
        (value.name, value.type.tensor_type.elem_type) for value in half.graph.output
    ]
    return half, each


def check(text: str, *, kept: dict[str, str] | None = None, **feeds: NDArray) -> onnx.ModelProto:
    """Convert, compare with FP32 (also rounded after every node) and with what must stay FP32: op → part of why."""
    model = parse(text)
    half, each = convert(model)
    expected = run(model, **feeds)
    for candidate in (half, run_passes(half, [RoundToHalf()])):
        actual = run(candidate, **feeds)
        assert actual.dtype == expected.dtype
        assert np.abs(actual - expected).max() <= HALF_RELATIVE * np.abs(expected).max()
    assert {node.op for node in each.kept} == set(kept or {})
    for node in each.kept:
        assert (kept or {})[node.op] in node.reason
    return half


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def constants(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_casts_at_the_border_and_nowhere_else(rng: np.random.Generator) -> None:
    half = check(f"{CONV} {{ c = Conv(x, w, b) y = Relu(c) }}", x=picture(rng))
    assert op_types(half) == ["Cast", "Conv", "Relu", "Cast"]
    assert constants(half) == {"w": TensorProto.FLOAT16, "b": TensorProto.FLOAT16}
    assert types(half)["c"] == TensorProto.FLOAT16


def test_clip_and_a_constant_that_two_nodes_share(rng: np.random.Generator) -> None:
    half = check(
        f"{CONV} {{ c = Conv(x, w, b) low = Constant<value_float=0.0>() high = Constant<value = float {{6}}>() "
        "s = Softmax(c) k = Clip(s, low, high) d = Clip(c, low, high) y = Add(k, d) }",
        kept={"Softmax": "too coarse"},
        x=picture(rng),
    )
    assert "Constant" not in op_types(half)
    assert constants(half)["high"] == TensorProto.FLOAT16


def test_one_cast_serves_all_users(rng: np.random.Generator) -> None:
    text = f"{CONV} {{ c = Conv(x, w, b) s = Softmax<axis=1>(c) t = Softmax<axis=2>(c) y = Add(s, t) }}"
    half = check(text, kept={"Softmax": "too coarse"}, x=picture(rng))
    # x and c once each, s and t for the Add, y for the output
    assert op_types(half).count("Cast") == 5


def test_a_constant_of_both_types(rng: np.random.Generator) -> None:
    model = parse(f"{CONV} {{ [one] c = Conv(x, w, b) [two] y = Conv(c, w, b) }}")
    half, each = convert(model, {"two": "because"})
    assert constants(half) == {
        "w": TensorProto.FLOAT, "b": TensorProto.FLOAT, "w/fp16": TensorProto.FLOAT16, "b/fp16": TensorProto.FLOAT16,
    }  # fmt: skip
    assert [(node.name, node.op, node.reason) for node in each.kept] == [("two", "Conv", "because")]
    assert each.halved == ("one",)
    x = picture(rng)
    assert np.abs(run(half, x=x) - run(model, x=x)).max() <= HALF_RELATIVE * np.abs(run(model, x=x)).max()


def test_an_output_that_is_read_inside_too(rng: np.random.Generator) -> None:
    model = parse(f"{CONV} {{ y = Conv(x, w, b) z = Relu(y) }}".replace("W] y)", "W] y, float[N, 2, H, W] z)"))
    half, _ = convert(model)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": picture(rng)})
    np.testing.assert_array_equal(np.maximum(y, 0), z)


def test_an_input_that_is_an_output_stays(rng: np.random.Generator) -> None:
    half = check("g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { y = Identity(x) }", x=picture(rng))
    assert op_types(half) == ["Cast", "Identity", "Cast"]


class TestSizes:
    """Coordinates in FP16 would move pixels: 1/3 has an error of 8e-5, and 2049 does not exist."""

    def test_scales_of_resize(self, rng: np.random.Generator) -> None:
        half = check(
            "g (float[N, 2, H, W] x) => (float[N, 2, h, w] y) <float[4] s = {1, 1, 3.3, 3.3}> "
            '{ y = Resize<mode="linear">(x, , s) }',
            x=picture(rng),
        )
        assert constants(half) == {"s": TensorProto.FLOAT}
        assert op_types(half) == ["Cast", "Resize", "Cast"]

    def test_computed_scales(self, rng: np.random.Generator) -> None:
        half = check(
            """g (float[N, 2, H, W] x) => (float[N, 2, h, w] y) <float[2] nc = {1, 1}, float[2] f = {20.5, 30.5}> {
            i = Shape<start=2>(x) hw = Cast<to=1>(i) q = Div(f, hw) s = Concat<axis=0>(nc, q)
            y = Resize<mode="linear">(x, , s) }""",
            kept={"Div": "sizes", "Concat": "sizes"},
            x=picture(rng),
        )
        assert set(constants(half).values()) == {TensorProto.FLOAT}
        assert op_types(half).count("Cast") == 3

    def test_integer_arithmetic_is_untouched(self, rng: np.random.Generator) -> None:
        model = """g (float[N, 2, H, W] x) => (float[N, 2, h, w] y) <int64[1] two = {2}, int64[2] order = {2, 3}> {
            r = Relu(x) all = Shape(r) hw = Gather(all, order) d = Mul(hw, two) n = Shape<end=2>(r)
            s = Concat<axis=0>(n, d) y = Resize<mode="linear">(r, , , s) }"""
        half = check(model, x=picture(rng))
        assert op_types(half) == ["Cast", "Relu", "Shape", "Gather", "Mul", "Shape", "Concat", "Resize", "Cast"]


class TestConstants:
    @pytest.mark.parametrize(
        ("text", "op", "reason"),
        [
            (
                "<float c = {70000}> { y = Min(x, c) }",
                "Min",
                "its constant 'c' reaches 7e+04; the FP16 maximum is 65504",
            ),
            ("<float c = {0.000001}> { y = Max(x, c) }", "Max", "its constant 'c' has 100% of its non-zero values"),
        ],
    )
    def test_what_fp16_cannot_hold(self, text: str, op: str, reason: str, rng: np.random.Generator) -> None:
        half = check(f"g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) {text}", kept={op: reason}, x=picture(rng))
        assert op_types(half) == [op]

    def test_small_values_beside_large_ones_do_not_count(self, rng: np.random.Generator) -> None:
        text = "<float[2, 2, 1, 1] w = {1, 0.00001, 0.00001, 1}, float[2] b = {0.00001, 0.00002}> { y = Conv(x, w, b) }"
        check(f"g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) {text}", x=picture(rng))

    def test_weights_among_the_inputs(self) -> None:
        model = parse(f"{CONV} {{ y = Conv(x, w, b) }}")
        model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2, 1, 1]))
        half, each = convert(model)
        assert constants(half)["w"] == TensorProto.FLOAT16
        assert each.kept == ()


class TestOtherOperators:
    def test_labels(self, rng: np.random.Generator) -> None:
        model = parse("g (float[N, 2, H, W] x) => (int64[N, 1, H, W] y) { r = Relu(x) y = ArgMax<axis=1>(r) }")
        half, each = convert(model)
        assert op_types(half) == ["Cast", "Relu", "ArgMax"]
        assert each.kept == ()
        x = picture(rng).round(1)
        np.testing.assert_array_equal(run(half, x=x), run(model, x=x))

    def test_floats_of_its_own_type(self, rng: np.random.Generator) -> None:
        half = check(
            "g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) <float zero = {0}> {"
            " p = Greater(x, zero) m = Cast<to=1>(p) y = Mul(m, x) }",
            x=picture(rng),
        )
        assert types(half)["m"] == TensorProto.FLOAT

    def test_a_subgraph_reads_what_it_read(self, rng: np.random.Generator) -> None:
        half = check(
            """g (float[N, 2, H, W] x, bool b) => (float[N, 2, H, W] y) <float two = {2}> {
            r = Relu(x) d = Mul(r, two)
            i = If (b) <
                then_branch = t () => (float[N, 2, H, W] u) { u = Mul(r, two) },
                else_branch = e () => (float[N, 2, H, W] v) { v = Identity(d) }>
            y = Add(i, x) }""",
            kept={"If": "subgraph"},
            x=picture(rng),
            b=np.array(True),
        )
        assert constants(half) == {"two": TensorProto.FLOAT, "two/fp16": TensorProto.FLOAT16}

    def test_another_domain(self) -> None:
        model = parse(
            "g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) <float[N, 2, H, W] z> { z = Relu(x) y = Relu(z) }"
        )
        model.opset_import.append(helper.make_opsetid("com.example", 1))
        model.graph.node[1].domain = "com.example"
        half, each = convert(model)
        assert op_types(half) == ["Cast", "Relu", "Cast", "Relu"]
        assert [node.reason for node in each.kept] == ["it belongs to the domain com.example"]

    def test_an_unknown_type_is_refused(self) -> None:
        model = parse("g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) { z = Relu(x) y = Relu(z) }")
        model.opset_import.append(helper.make_opsetid("com.example", 1))
        model.graph.node[0].domain = "com.example"
        with pytest.raises(ExportError, match=r"element type of 'z', an output of Relu 'z', is unknown"):
            run_passes(model, [ConvertToHalf()])


class TestRoundToHalf:
    """ONNX Runtime computes 0.99 here, as if every node were FP32: this is why the pass exists."""

    TEXT = (
        "g (float[1] x) => (float[1] y) <float[1] three = {3}, float[1] much = {MUCH}> "
        "{ p = Mul(x, three) q = Add(p, much) y = Sub(q, much) }"
    )

    def test_rounds_as_numpy_does(self) -> None:
        half, _ = convert(parse(self.TEXT.replace("MUCH", "1024")))
        x = np.array([0.33], np.float32)
        by_hand = (x.astype(np.float16) * np.float16(3) + np.float16(1024)) - np.float16(1024)
        assert run(half, x=x) != by_hand
        assert run(run_passes(half, [RoundToHalf()]), x=x) == by_hand == 1

    def test_overflows(self) -> None:
        half, _ = convert(parse(self.TEXT.replace("MUCH", "60000")))
        x = np.array([9000], np.float32)
        assert np.isfinite(run(half, x=x))
        assert np.isinf(run(run_passes(half, [RoundToHalf()]), x=x))

    def test_leaves_an_fp32_graph_alone(self) -> None:
        model = run_passes(parse(self.TEXT.replace("MUCH", "1")), [])
        assert run_passes(model, [RoundToHalf()]).graph == model.graph


class TestMagnitudes:
    def test_counts_over_tensors(self) -> None:
        seen = Magnitudes()
        for values in ([0.0, -3.0, 1e-5], [2.0, -1e-6, HALF_TINY, 0.0], []):
            seen.add(np.array(values, np.float32))
        assert seen.max_abs == 3
        assert seen.min_nonzero == pytest.approx(1e-6)
        assert (seen.nonzero, seen.tiny, seen.elements) == (5, 2, 4)
        assert seen.tiny_share == 0.4
        assert seen.misfit() is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_fits_nowhere(self, value: float) -> None:
        seen = Magnitudes()
        seen.add(np.array([1, value], np.float32))
        seen.add(np.array([2], np.float32))
        assert seen.misfit() is not None

    @pytest.mark.parametrize("values", [[], [0.0, 0.0], [HALF_MAX], [HALF_TINY]])
    def test_the_ends_fit(self, values: list[float]) -> None:
        seen = Magnitudes()
        seen.add(np.array(values, np.float32))
        assert seen.misfit() is None
        assert seen.min_nonzero > 0

    def test_a_limit_below_the_end(self) -> None:
        seen = Magnitudes()
        seen.add(np.array([9000], np.float32))
        assert seen.misfit(limit=8188) == "reaches 9000; the FP16 maximum is 65504"


def test_weights_are_rounded_to_nearest(rng: np.random.Generator) -> None:
    model = parse(f"{CONV} {{ y = Conv(x, w, b) }}")
    weight = rng.standard_normal((2, 2, 1, 1)).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    half, _ = convert(model)
    (converted,) = [numpy_helper.to_array(tensor) for tensor in half.graph.initializer if tensor.name == "w"]
    np.testing.assert_array_equal(converted, weight.astype(np.float16))


def test_weights_stored_as_int8_stay_beside_their_layer(rng: np.random.Generator) -> None:
    # Powers of two and integers: FP16 computes them exactly.
    model = parse(
        """g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) <float t = {0.03125}, int8 z = {0}, float[2] s = {0.5, 2},
            int8[2, 2, 1, 1] w = {1, 2, 3, -127}> {
            q = QuantizeLinear (x, t, z)  d = DequantizeLinear (q, t, z)
            v = DequantizeLinear <axis = 0> (w, s)  y = Conv (d, v)
        }""",
        opset=20,
    )
    half, each = convert(model)
    assert op_types(half) == ["Cast", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv", "Cast"]
    assert each.kept == ()
    x = rng.integers(-7, 8, (2, 2, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(half, x=x), run(model, x=x))
