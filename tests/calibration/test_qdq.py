"""Q/DQ in the graph: where the plan says, with the scales that the ranges give, and close to FP32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from int8_graphs import (
    ASPP,
    CONCAT,
    DEPTHWISE,
    DOWNSAMPLE,
    GRAPHS,
    MOVED,
    MULTISCALE,
    PLAIN,
    RESIDUAL,
    STEM,
    WEIGHTS,
    constant,
    graph_of,
    makers,
    nodes,
    observed,
    replace_constant,
    run,
)
from numpy.typing import NDArray
from tolerances import INT8_REST_RELATIVE, INT8_STEPS

from atrous.calibration.plan import INT8_MAX, MIN_SCALE, MIN_WIDE_SCALE, plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph, scale_of, shared_amax, usable_plan, wide_layers
from atrous.errors import CalibrationError, ExportError
from atrous.exporter.passes import DeinterlaceAtrousConv, RoundToHalf, run_passes
from atrous.exporter.passes.magnitudes import HALF_MAX

BOTH = pytest.mark.parametrize("graph", [pytest.param(graph, id=name) for name, graph in GRAPHS.items()])


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((1, 3, 16, 16)).astype(np.float32)


def quantized(graph: onnx.ModelProto, image: NDArray[np.float32]) -> onnx.ModelProto:
    return quantize_graph(graph, plan_quantization(graph), observed(graph, image))


def reads(graph: onnx.ModelProto, name: str) -> list[str]:
    """What a node reads, first inputs first, without constants of its own."""
    return [
        value.removesuffix("/dequantized") + ("'" if "/dequantized" in value else "")
        for value in nodes(graph)[name].input
    ]


class TestPlacement:
    """A prime marks what is read dequantized."""

    def test_a_layer_reads_both_its_inputs_quantized_and_its_activation_neither(self, image: NDArray) -> None:
        graph = quantized(PLAIN, image)
        assert reads(graph, "a") == ["r0'", "wa'"]
        assert reads(graph, "ra") == ["a"]
        assert reads(graph, "c0") == ["image", "w0"]
        assert reads(graph, "logits") == ["ra", "head"]

    def test_the_identity_branch_alone(self, image: NDArray) -> None:
        assert reads(quantized(RESIDUAL, image), "sum") == ["b", "r0'"]
        assert reads(quantized(DOWNSAMPLE, image), "sum") == ["d'", "b"]

    def test_one_pair_for_all_readers(self, image: NDArray) -> None:
        graph = quantized(DEPTHWISE, image)
        assert reads(graph, "sum") == ["c'", "d"]
        assert reads(graph, "d") == ["c'", "wd'"]
        assert [node.op_type for node in graph.graph.node].count("QuantizeLinear") == 5

    def test_readers_that_are_not_planned_read_what_they_read(self, image: NDArray) -> None:
        graph = quantized(ASPP, image)
        assert reads(graph, "mean") == ["r0"]
        assert reads(graph, "form") == ["r0"]
        assert reads(graph, "cat") == ["ra", "rb", "wide"]
        assert reads(graph, "p") == ["cat'", "wp'"]

    def test_behind_what_moves(self, image: NDArray) -> None:
        graph = quantized(MOVED, image)
        assert reads(graph, "pool") == ["r0"]
        assert reads(graph, "a")[0] == "r0'"
        assert reads(graph, "b")[0] == "dense'"

    def test_one_weight_for_two_scales(self, image: NDArray) -> None:
        graph = quantized(MULTISCALE, image)
        assert [reads(graph, name) for name in ("a", "b")] == [["r0'", "wa'"], ["r1'", "wa'"]]
        names = [tensor.name for tensor in graph.graph.initializer]
        assert names.count("wa/int8") == 1
        assert "wa" not in names

    def test_a_weight_that_is_also_used_in_fp32_stays(self, image: NDArray) -> None:
        plan = plan_quantization(MULTISCALE).without({"b": "it is sensitive"})
        graph = quantize_graph(MULTISCALE, plan, observed(MULTISCALE, image))
        assert [reads(graph, name) for name in ("a", "b")] == [["r0'", "wa'"], ["r1", "wa"]]

    def test_the_picture(self, image: NDArray) -> None:
        graph = quantize_graph(PLAIN, plan_quantization(PLAIN, ends=True), observed(PLAIN, image))
        assert reads(graph, "c0") == ["image'", "w0'"]
        assert graph.graph.node[0].op_type == "QuantizeLinear" or graph.graph.node[0].input[0] != "image"
        run(graph, image)

    def test_nothing_planned_changes_nothing(self, image: NDArray) -> None:
        graph = quantize_graph(PLAIN, plan_quantization(PLAIN).only([]), {})
        np.testing.assert_array_equal(run(graph, image), run(PLAIN, image))


@BOTH
class TestLaws:
    def test_planned_layers_read_int8_and_no_other(self, graph: onnx.ModelProto, image: NDArray) -> None:
        plan = plan_quantization(graph)
        int8 = quantized(graph, image)
        made = makers(int8)
        by_name = nodes(int8)
        ops = {layer.name: [made[value].op_type for value in by_name[layer.name].input[:2]] for layer in plan.layers}
        assert ops == {layer.name: ["DequantizeLinear"] * 2 for layer in plan.layers}
        readers = {layer.name for layer in plan.layers} | {residual.name for residual in plan.residuals}
        found = {
            node.name or node.output[0]
            for node in int8.graph.node
            if node.op_type != "DequantizeLinear"
            and any(value in made and made[value].op_type == "DequantizeLinear" for value in node.input)
        }
        assert found == readers

    def test_one_pair_a_tensor_and_one_constant_a_weight(self, graph: onnx.ModelProto, image: NDArray) -> None:
        plan = plan_quantization(graph)
        ops = [node.op_type for node in quantized(graph, image).graph.node]
        assert ops.count("QuantizeLinear") == len(plan.tensors)
        assert ops.count("DequantizeLinear") == len(plan.tensors) + len({layer.weight for layer in plan.layers})

    def test_symmetric_and_positive(self, graph: onnx.ModelProto, image: NDArray) -> None:
        int8 = quantized(graph, image)
        for node in int8.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                scale, zero = (constant(int8, name) for name in node.input[1:])
                assert zero.dtype == np.int8
                assert scale.shape == zero.shape
                assert not zero.any()
                assert (scale >= MIN_SCALE).all()
                np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))

    def test_groups_have_one_scale(self, graph: onnx.ModelProto, image: NDArray) -> None:
        plan = plan_quantization(graph)
        int8 = quantized(graph, image)
        for group in plan.groups:
            assert len({float(constant(int8, f"{name}/scale")) for name in group}) == 1

    def test_close_to_fp32(self, graph: onnx.ModelProto, image: NDArray) -> None:
        expected = run(graph, image)
        assert (
            np.abs(run(quantized(graph, image), image) - expected).max()
            <= INT8_STEPS / INT8_MAX * np.abs(expected).max()
        )

    def test_the_rest_in_fp16(self, graph: onnx.ModelProto, image: NDArray) -> None:
        int8 = quantized(graph, image)
        half, kept = halve_rest(int8)
        assert kept == ()
        assert [node.op_type for node in half.graph.node].count("Cast") == 2
        expected = run(int8, image)
        for candidate in (half, run_passes(half, [RoundToHalf()])):
            assert np.abs(run(candidate, image) - expected).max() <= INT8_REST_RELATIVE * np.abs(expected).max()


class TestWeights:
    def test_per_channel(self, image: NDArray) -> None:
        graph = quantized(DEPTHWISE, image)
        for name in ("wa", "wb", "wc"):
            weight, codes, scale = (
                constant(DEPTHWISE, name),
                constant(graph, f"{name}/int8"),
                constant(graph, f"{name}/scale"),
            )
            assert scale.shape == (weight.shape[0],)
            assert (np.abs(codes).max(axis=(1, 2, 3)) == INT8_MAX).all()
            steps = np.abs(codes * scale[:, None, None, None] - weight) / scale[:, None, None, None]
            assert steps.max() <= 0.5 + INT8_MAX * 2.0**-11  # a half, and what the last digit of the scale shifts

    @pytest.mark.parametrize(("groups", "shape"), [(1, (8, 6, 2, 2)), (4, (8, 2, 2, 2))])
    def test_of_a_transposed_convolution(self, groups: int, shape: tuple[int, ...], image: NDArray) -> None:
        out = shape[1] * groups
        graph = graph_of(
            f"{STEM}  a = ConvTranspose <group = {groups}> (r0, wa)  logits = Conv (a, wb)",
            **WEIGHTS,
            wa=shape,
            wb=(4, out, 1, 1),
        )
        int8 = quantized(graph, image)
        assert constant(int8, "wa/scale").shape == (shape[1],)
        expected = run(graph, image)
        assert np.abs(run(int8, image) - expected).max() <= INT8_STEPS / INT8_MAX * np.abs(expected).max()

    def test_of_matrix_products(self, image: NDArray) -> None:
        graph = graph_of(
            f"""{STEM}  t = Transpose <perm = [0, 2, 3, 1]> (r0)  m = MatMul (t, wa)  a = Relu (m)
            f = Constant <value = int64[2] {{256, 6}}> ()  rows = Reshape (a, f)  g = Gemm <transB = 1> (rows, wb)
            n = Constant <value = int64[4] {{1, 16, 16, 8}}> ()  map = Reshape (g, n)
            back = Transpose <perm = [0, 3, 1, 2]> (map)  logits = Conv (back, head)""",
            **WEIGHTS,
            wa=(8, 6),
            wb=(8, 6),
        )
        int8 = quantized(graph, image)
        assert [constant(int8, f"{name}/scale").shape for name in ("wa", "wb")] == [(6,), (8,)]
        expected = run(graph, image)
        assert np.abs(run(int8, image) - expected).max() <= INT8_STEPS / INT8_MAX * np.abs(expected).max()

    def test_in_a_constant_node(self, image: NDArray) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        (weight,) = (tensor for tensor in PLAIN.graph.initializer if tensor.name == "wa")
        graph.graph.initializer.remove(weight)
        graph.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["wa"], value=weight))
        int8 = quantized(graph, image)
        assert reads(int8, "a") == ["r0'", "wa'"]
        assert "wa" not in [tensor.name for tensor in int8.graph.initializer]
        np.testing.assert_array_equal(run(int8, image), run(quantized(PLAIN, image), image))

    def test_a_channel_of_zeros_and_a_tiny_one(self, image: NDArray) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        weight = constant(graph, "wa").copy()
        weight[2] = 0
        weight[5] *= 1e-6
        replace_constant(graph, "wa", weight)
        int8 = quantized(graph, image)
        assert constant(int8, "wa/scale")[2] == constant(int8, "wa/scale")[5] == MIN_SCALE
        assert not constant(int8, "wa/int8")[[2, 5]].any()
        half, _ = halve_rest(int8)
        assert np.isfinite(run(half, image)).all()


class TestRanges:
    def test_a_group_shares_the_largest(self) -> None:
        plan = plan_quantization(CONCAT)
        assert shared_amax(plan, {"r0": 1.0, "cat": 3.0}) == {"r0": 3.0, "cat": 3.0}

    def test_an_input_that_is_always_0(self, image: NDArray) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(RESIDUAL)
        replace_constant(graph, "wa", -np.abs(constant(graph, "wa")))  # behind a Relu, of what a Relu made
        ranges = observed(graph, image)
        assert ranges["ra"] == 0
        plan = usable_plan(plan_quantization(graph), ranges)
        assert {node.name: node.reason for node in plan.kept}["b"] == "its input was always 0, so it has no scale"
        assert [layer.name for layer in plan.layers] == ["a"]
        int8 = quantize_graph(graph, plan_quantization(graph), ranges)
        assert reads(int8, "b") == ["ra", "wb"]
        run(int8, image)

    def test_an_identity_that_is_always_0(self, image: NDArray) -> None:
        ranges = {**observed(DOWNSAMPLE, image), "d": 0.0}
        int8 = quantize_graph(DOWNSAMPLE, plan_quantization(DOWNSAMPLE), ranges)
        assert reads(int8, "sum") == ["d", "b"]

    def test_an_input_too_small_for_a_scale(self, image: NDArray) -> None:
        ranges = {**observed(PLAIN, image), "r0": 1e-20}
        (_, _, kept) = usable_plan(plan_quantization(PLAIN), ranges).kept
        assert kept.name == "a"
        assert "it multiplies nothing" in kept.reason

    @pytest.mark.parametrize("shrunk", ["weights", "input"])
    @pytest.mark.parametrize("factor", [1e-3, 1e-7])
    def test_small_layers_are_int8_with_scales_in_fp32(self, image: NDArray, shrunk: str, factor: float) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        small, large = ("wa", "head") if shrunk == "weights" else ("w0", "wa")
        replace_constant(graph, small, constant(graph, small) * np.float32(factor * 0.1))
        replace_constant(graph, large, constant(graph, large) / np.float32(factor * 0.1))
        ranges = observed(graph, image)
        plan = usable_plan(plan_quantization(graph), ranges)
        assert "a" in [layer.name for layer in plan.layers]
        assert list(wide_layers(plan, ranges)) == ["a"]
        half, kept = halve_rest(quantize_graph(graph, plan, ranges), wide_layers(plan, ranges))
        assert "a" in {node.name for node in kept}
        scale = constant(half, "wa/scale" if shrunk == "weights" else "r0/scale")
        assert scale.dtype == np.float32
        assert 0 < scale.max() < MIN_SCALE
        exact, actual = run(graph, image), run(half, image)
        plain = run(halve_rest(quantized(PLAIN, image))[0], image) - run(PLAIN, image)
        error, usual = (np.abs(each).mean() for each in (actual - exact, plain))
        assert error <= 2 * usual  # as if nothing were small

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
    def test_a_range_that_is_none(self, value: float) -> None:
        with pytest.raises(
            CalibrationError, match=f"invalid range {value} of the activation 'r0'; expected a finite number"
        ):
            quantize_graph(PLAIN, plan_quantization(PLAIN), {"r0": value})

    def test_a_range_that_is_missing(self) -> None:
        with pytest.raises(CalibrationError, match="no range for the activation 'ra'"):
            quantize_graph(RESIDUAL, plan_quantization(RESIDUAL), {"r0": 1.0})


class TestScales:
    @given(st.floats(0, 1e9, width=32))
    def test_normal_in_fp16_and_near_amax(self, amax: float) -> None:
        scale = float(scale_of(amax))
        assert scale >= (MIN_WIDE_SCALE if 0 < amax < INT8_MAX * MIN_SCALE else MIN_SCALE)
        if amax >= INT8_MAX * MIN_WIDE_SCALE:
            assert abs(scale * INT8_MAX - amax) <= amax * 2.0**-11
        if MIN_SCALE <= scale <= HALF_MAX:
            assert float(np.float16(scale)) == scale


class TestFp16:
    def test_pairs_beside_an_fp32_node_are_fp32(self, image: NDArray) -> None:
        half, kept = halve_rest(quantized(RESIDUAL, image), {"b": "it overflows"})
        assert {node.name for node in kept} == {
            "b", "wb/dequantize", "ra/quantize", "ra/dequantize",
        }  # fmt: skip
        assert {node.reason for node in kept} == {"it overflows"}
        made = makers(half)
        assert [made[value].op_type for value in nodes(half)["b"].input] == ["DequantizeLinear"] * 2
        run(half, image)

    @pytest.mark.parametrize(("keep", "split"), [({}, {"d", "a"}), ({"a": "it overflows"}, {"d"})])
    def test_biases_stand_apart_but_before_a_residual_add(self, keep: dict[str, str], split: set[str]) -> None:
        graph = graph_of(
            """r0 = Conv <pads = [1, 1, 1, 1]> (image, stem)  d = Conv (r0, wd, bias)
            a = Conv <pads = [1, 1, 1, 1]> (r0, wa, bias)  ra = Relu (a)  b = Conv (ra, wb, bias)
            sum = Add (d, b)  r1 = Relu (sum)  logits = Conv (r1, head)""",
            stem=(8, 3, 3, 3), wd=(8, 8, 1, 1), wa=(8, 8, 3, 3), wb=(8, 8, 1, 1), bias=(8,), head=(4, 8, 1, 1),
        )  # fmt: skip
        plan = plan_quantization(graph)
        assert [(each.layer, each.identity) for each in plan.residuals] == [("b", "d")]
        half, _ = halve_rest(quantize_graph(graph, plan, dict.fromkeys(plan.tensors, 1.0)), keep)
        assert {name for name in nodes(half) if name.endswith("/add_bias")} == {f"{name}/add_bias" for name in split}

    def test_an_old_opset(self, image: NDArray) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        graph.opset_import[0].version = 18
        int8 = quantized(graph, image)
        run(int8, image)
        with pytest.raises(ExportError, match="FP16 scales need ONNX opset >= 19, the model has 18"):
            halve_rest(int8)


class TestRefusals:
    def test_an_opset_without_channels(self) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        graph.opset_import[0].version = 12
        with pytest.raises(ExportError, match="need ONNX opset >= 13, the model has 12"):
            quantize_graph(graph, plan_quantization(graph), {"r0": 1.0})

    def test_a_plan_of_another_graph(self) -> None:
        plan = plan_quantization(RESIDUAL)
        with pytest.raises(ExportError, match="the plan names 'b', which this graph lacks"):
            quantize_graph(PLAIN, plan, dict.fromkeys(plan.tensors, 1.0))


def test_deinterlaced(rng: np.random.Generator) -> None:
    image = rng.standard_normal((1, 3, 20, 20)).astype(np.float32)
    graph = run_passes(ASPP, [DeinterlaceAtrousConv()])
    expected = run(ASPP, image)
    for candidate in (int8 := quantized(graph, image), halve_rest(int8)[0]):
        assert np.abs(run(candidate, image) - expected).max() <= INT8_STEPS / INT8_MAX * np.abs(expected).max()


def test_other_sizes_and_batches(rng: np.random.Generator) -> None:
    int8 = quantized(ASPP, rng.standard_normal((1, 3, 16, 16)).astype(np.float32))
    for shape in ((2, 3, 16, 16), (1, 3, 9, 24)):
        assert run(int8, rng.standard_normal(shape).astype(np.float32)).shape == (shape[0], 4, *shape[2:])


def test_the_graph_stays_as_it_is(image: NDArray) -> None:
    before = ASPP.SerializeToString(deterministic=True)
    quantized(ASPP, image)
    assert ASPP.SerializeToString(deterministic=True) == before
