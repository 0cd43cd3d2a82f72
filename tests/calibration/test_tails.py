"""Tails give what the whole graph gives, wherever it is cut."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from int8_graphs import CONCAT, DOWNSAMPLE, PLAIN, RESIDUAL, graph_of, run

from atrous.calibration.plan import plan_quantization
from atrous.calibration.sensitivity import _is_unsettled
from atrous.calibration.tails import TailSession, cut_in_front_of, tail_of
from atrous.exporter.activations.session import ActivationSession
from atrous.exporter.passes import run_passes

#: Upsamples to the size of an inner map, which is computed when the graph runs.
SIZED = graph_of(
    """c0 = Conv <strides = [2, 2]> (image, w0)  r0 = Relu (c0)  a = Conv <strides = [2, 2]> (r0, wa)
       whole = Shape (r0)  b = Conv (a, wb)
       up = Resize <mode = "linear"> (b, , , whole)  joined = Add (r0, up)  logits = Conv (joined, head)""",
    shape="1, 3, H, W",
    w0=(8, 3, 1, 1),
    wa=(8, 8, 1, 1),
    wb=(8, 8, 1, 1),
    head=(4, 8, 1, 1),
)


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize(
    "graph", [PLAIN, RESIDUAL, DOWNSAMPLE, CONCAT, SIZED], ids=["plain", "residual", "down", "concat", "sized"]
)
def test_every_tail_ends_as_the_graph(graph: onnx.ModelProto, count: int, rng: np.random.Generator) -> None:
    graph = run_passes(graph, [])
    image = rng.standard_normal((1, 3, 16, 16), np.float32)
    layers = [layer.name for layer in plan_quantization(graph).layers]
    cuts = cut_in_front_of(ir.from_proto(graph), layers, count)
    assert list(cuts) == layers
    assert len(set(cuts.values())) <= count
    expected = run(graph, image)
    for values in dict.fromkeys(cuts.values()):
        tail = tail_of(ir.from_proto(graph), values)
        assert {value.name for value in tail.graph.input} <= set(values)
        known = ActivationSession(graph, values).run(image)
        np.testing.assert_allclose(TailSession(tail).run(known), expected, rtol=1e-5, atol=1e-5)
    assert len(tail.graph.node) < len(graph.graph.node) or count == 1


def test_images_that_rank_alike_settle_the_ranking() -> None:
    rng = np.random.default_rng(0)
    layer = rng.uniform(0, 1, (40, 1))
    alike = layer + rng.normal(0, 0.01, (40, 2))
    assert not _is_unsettled(alike, 4)
    assert _is_unsettled(rng.uniform(0, 1, (40, 2)), 4)
    assert _is_unsettled(alike[:, :1], 2)
    assert not _is_unsettled(rng.uniform(0, 1, (40, 4)), 4)
