"""Where INT8 goes: every rule on a graph that shows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
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
    replace_constant,
)
from onnx import helper

from atrous.calibration.plan import INT8_MAX, MIN_SCALE, MIN_WIDE_SCALE, QuantizationPlan, Residual, plan_quantization
from atrous.errors import CalibrationError
from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes

#: As an exporter for quantization-aware training writes it.
QUANTIZED = """x = Cast <to = 1> (image)  s = Constant <value = float {0.5}> ()  z = Constant <value = int8 {0}> ()
    q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  logits = Conv (d, w)"""


def sources(plan: QuantizationPlan) -> dict[str, str]:
    return {layer.name: layer.source for layer in plan.layers}


def reasons(plan: QuantizationPlan) -> dict[str, str]:
    return {node.name: node.reason for node in plan.kept}


def one_layer(body: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph whose layer `a` stands between the ends."""
    return graph_of(f"{STEM}  {body}  logits = Conv (a, head)", **WEIGHTS, **weights)


class TestLayers:
    def test_read_what_comes_out_of_the_activation(self) -> None:
        assert sources(plan_quantization(RESIDUAL)) == {"a": "r0", "b": "ra"}

    def test_share_what_they_read(self) -> None:
        plan = plan_quantization(ASPP)
        assert sources(plan) == {"a": "r0", "b": "r0", "m": "mean", "p": "cat"}
        assert plan.tensors == ("r0", "mean", "cat")

    def test_per_channel_and_without_an_activation(self) -> None:
        plan = plan_quantization(DEPTHWISE)
        assert sources(plan) == {"a": "r0", "b": "ra", "c": "rb", "d": "c", "e": "sum"}
        assert {layer.axis for layer in plan.layers} == {0}

    def test_keep_the_ends(self) -> None:
        kept = reasons(plan_quantization(PLAIN))
        assert "reads the network's input" in kept["c0"]
        assert "classifier" in kept["logits"]

    def test_with_the_ends(self) -> None:
        plan = plan_quantization(PLAIN, ends=True)
        assert sources(plan) == {"c0": "image", "a": "r0", "logits": "ra"}
        assert plan.kept == ()

    def test_every_scale_has_its_ends(self) -> None:
        plan = plan_quantization(MULTISCALE)
        assert sources(plan) == {"a": "r0", "b": "r1"}
        assert {layer.weight for layer in plan.layers} == {"wa"}
        assert set(reasons(plan)) == {"c0", "c1", "y", "z"}

    def test_summed_classifiers_are_ends(self) -> None:
        graph = graph_of(
            f"{STEM}  a = Conv (r0, wa)  ra = Relu (a)  y = Conv (ra, head)  z = Conv (r0, head)  logits = Add (y, z)",
            **WEIGHTS,
            wa=(8, 8, 1, 1),
        )
        assert set(reasons(plan_quantization(graph))) == {"c0", "y", "z"}

    def test_weights_among_the_inputs(self) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(PLAIN)
        for tensor in PLAIN.graph.initializer:
            graph.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        assert plan_quantization(graph) == plan_quantization(PLAIN)

    def test_nothing_to_do(self) -> None:
        plan = plan_quantization(graph_of("logits = Conv (image, w)", w=(4, 3, 1, 1)))
        assert (plan.layers, plan.tensors, plan.groups, plan.residuals) == ((), (), (), ())

    @pytest.mark.parametrize(
        ("graph", "axis"),
        [
            (one_layer("a = ConvTranspose (r0, wa)", wa=(8, 8, 1, 1)), 1),
            (one_layer("a = ConvTranspose <group = 4> (r0, wa)", wa=(8, 2, 1, 1)), 1),
            (one_layer("t = Transpose <perm = [0, 2, 3, 1]> (r0)  u = MatMul (t, wa)"
                       "  a = Transpose <perm = [0, 3, 1, 2]> (u)", wa=(8, 8)), 1),
        ],
    )  # fmt: skip
    def test_the_axis_of_the_channels(self, graph: onnx.ModelProto, axis: int) -> None:
        (layer,) = plan_quantization(graph).layers
        assert layer.axis == axis

    @pytest.mark.parametrize("transposed", [0, 1])
    def test_the_axis_of_gemm(self, transposed: int) -> None:
        graph = graph_of(
            f"t = Conv (image, w0)  f = Flatten (t)  a = Gemm <transB = {transposed}> (f, wa)  logits = Gemm (a, wb)",
            shape="1, 3, 2, 2",
            w0=(8, 3, 2, 2),
            wa=(8, 8),
            wb=(8, 4),
        )
        (layer,) = plan_quantization(graph).layers
        assert (layer.op, layer.axis) == ("Gemm", 1 - transposed)


class TestResiduals:
    def test_the_input_of_the_block(self) -> None:
        assert plan_quantization(RESIDUAL).residuals == (Residual("sum", layer="b", identity="r0"),)

    def test_the_shorter_branch_where_both_end_in_a_layer(self) -> None:
        plan = plan_quantization(DOWNSAMPLE)
        assert plan.residuals == (Residual("sum", layer="b", identity="d"),)
        assert plan.tensors == ("r0", "ra", "d")

    def test_an_identity_that_a_layer_reads_too(self) -> None:
        assert plan_quantization(DEPTHWISE).residuals == (Residual("sum", layer="d", identity="c"),)

    def test_not_where_the_other_branch_is_no_layer(self) -> None:
        assert plan_quantization(MOVED).residuals == ()

    def test_go_with_their_layer(self) -> None:
        plan = plan_quantization(DOWNSAMPLE)
        assert plan.without({"b": "it is sensitive"}).tensors == ("r0",)
        assert plan_quantization(DOWNSAMPLE, keep={"b": "asked for"}).residuals == (
            Residual("sum", layer="d", identity="b"),
        )


class TestGroups:
    def test_what_a_concat_joins(self) -> None:
        assert plan_quantization(CONCAT).groups == (("r0", "cat"),)

    def test_what_is_moved(self) -> None:
        plan = plan_quantization(MOVED)
        assert plan.groups == (("r0", "dense"),)
        assert plan.layers[1].carriers == ("turned", "phases", "pool", "r0")

    def test_nothing_else(self) -> None:
        assert [name for name, graph in GRAPHS.items() if plan_quantization(graph).groups] == ["concat", "moved"]

    def test_end_where_their_layer_does(self) -> None:
        plan = plan_quantization(CONCAT).without({"p": "it is sensitive"})
        assert (plan.groups, plan.tensors) == ((), ("r0",))

    @pytest.mark.parametrize(("value", "grouped"), [(0.0, True), (1.0, False)])
    def test_padding_with_anything_but_zero_makes_values(self, value: float, grouped: bool) -> None:
        graph = one_layer(
            f"""c = Constant <value = float {{{value}}}> ()  n = Constant <value = int64[8] {{0,0,1,1,0,0,1,1}}> ()
            b = Conv (r0, wa)  p = Pad (r0, n, c)  d = Conv (p, wa)  k = Pad (b, n)  a = Add (k, d)""",
            wa=(8, 8, 1, 1),
        )
        assert bool(plan_quantization(graph).groups) is grouped

    def test_nothing_in_front_of_resize(self) -> None:
        graph = one_layer(
            """b = Conv (r0, wa)  f = Constant <value = float[4] {1, 1, 2, 2}> ()
            up = Resize <mode = "linear"> (r0, "", f)  c = Conv <strides = [2, 2]> (up, wa)  a = Mul (b, c)""",
            wa=(8, 8, 1, 1),
        )
        plan = plan_quantization(graph)
        assert (plan.tensors, plan.groups) == (("r0", "up"), ())

    def test_deinterlaced_branches_share_what_they_read(self) -> None:
        plan = plan_quantization(run_passes(ASPP, [DeinterlaceAtrousConv()]))
        assert [layer.op for layer in plan.layers] == ["Conv"] * 4
        assert plan.groups == ((sources(plan)[plan.layers[0].name], sources(plan)[plan.layers[1].name]),)
        assert all("r0" in layer.carriers for layer in plan.layers[:2])


class TestKept:
    def test_what_the_user_wants(self) -> None:
        plan = plan_quantization(RESIDUAL, keep={"a": "requested by 'a*'"})
        assert sources(plan) == {"b": "ra"}
        assert reasons(plan)["a"] == "requested by 'a*'"

    def test_without_and_only(self) -> None:
        plan = plan_quantization(RESIDUAL)
        without = plan.without({"a": "it is sensitive"})
        assert sources(without) == {"b": "ra"}
        assert reasons(without) == {**reasons(plan), "a": "it is sensitive"}
        assert plan.only(["b"]).layers == without.layers

    def test_weights_that_are_computed(self) -> None:
        graph = one_layer("v = Relu (wa)  a = Conv (r0, v)", wa=(8, 8, 1, 1))
        assert reasons(plan_quantization(graph))["a"] == "its weights are computed, not constant"

    @pytest.mark.parametrize(("share", "wide"), [(1.1, False), (0.9, True), (1e-9, True)])
    def test_small_weights_have_wide_scales(self, share: float, wide: bool) -> None:
        graph = graph_of(f"{STEM}  a = Conv (r0, wa)  logits = Conv (a, head)", **WEIGHTS, wa=(8, 8, 1, 1))
        weight = constant(graph, "wa")
        replace_constant(graph, "wa", weight / np.abs(weight).max() * np.float32(INT8_MAX * MIN_SCALE * share))
        (layer,) = plan_quantization(graph).layers
        assert (layer.name, layer.wide) == ("a", wide)

    def test_weights_that_are_too_small(self) -> None:
        graph = graph_of(f"{STEM}  a = Conv (r0, wa)  logits = Conv (a, head)", **WEIGHTS, wa=(8, 8, 1, 1))
        weight = constant(graph, "wa")
        replace_constant(graph, "wa", weight / np.abs(weight).max() * np.float32(INT8_MAX * MIN_WIDE_SCALE * 0.9))
        assert "multiplies by nothing" in reasons(plan_quantization(graph))["a"]

    def test_a_transposed_input(self) -> None:
        graph = graph_of(
            "t = Conv (image, w0)  f = Flatten <axis = 2> (t)  a = Gemm <transA = 1> (f, wa)  logits = Gemm (a, wb)",
            shape="1, 3, 2, 2",
            w0=(8, 3, 2, 2),
            wa=(8, 8),
            wb=(8, 4),
        )
        assert "transposed" in reasons(plan_quantization(graph))["a"]


class TestRefusals:
    def test_a_graph_that_is_quantized_already(self) -> None:
        with pytest.raises(
            CalibrationError, match=r"already quantized: it has a QuantizeLinear node, 'q'.*atrous pack"
        ):
            plan_quantization(graph_of(QUANTIZED, w=(4, 3, 1, 1)))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, value: float) -> None:
        graph = graph_of(f"{STEM}  a = Conv (r0, wa)  logits = Conv (a, head)", **WEIGHTS, wa=(8, 8, 1, 1))
        weight = constant(graph, "wa").copy()
        weight[3, 2] = value
        replace_constant(graph, "wa", weight)
        with pytest.raises(CalibrationError, match="weight 'wa' of 'a' is NaN or infinite"):
            plan_quantization(graph)

    def test_two_layers_of_one_name(self) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(RESIDUAL)
        for node in graph.graph.node:
            node.name = node.op_type
        with pytest.raises(CalibrationError, match="duplicate node name 'Conv'"):
            plan_quantization(graph)


def test_the_graph_stays_as_it_is() -> None:
    before = ASPP.SerializeToString(deterministic=True)
    plan_quantization(ASPP)
    assert ASPP.SerializeToString(deterministic=True) == before
