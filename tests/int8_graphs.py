"""Small graphs that show one placement rule each, and what INT8 makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from atrous.exporter.activations.ranges import observe_ranges
from atrous.exporter.passes import run_passes
from atrous.runtime.backends.onnxruntime import session_options

FloatArray = NDArray[np.float32]
Shape = tuple[int, ...]


def graph_of(body: str, *, shape: str = "1, 3, 16, 16", opset: int = 20, **weights: Shape) -> onnx.ModelProto:
    """A graph from `image` [shape] to `logits`; weights are random and keep the variance of what they read.

    Nodes have no names, so each is called what its first result is called.
    """
    rank = ", ".join("NCHW"[: len(shape.split(","))])
    text = f"g (float[{shape}] image) => (float[{rank}] logits) {{ {body} }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    rng = np.random.default_rng(0)
    for name, dims in weights.items():
        array = rng.standard_normal(dims) / np.sqrt(np.prod(dims[1:]))
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return model


def constant(model: onnx.ModelProto, name: str) -> NDArray:
    """A constant of the graph."""
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    return numpy_helper.to_array(tensor)


def replace_constant(model: onnx.ModelProto, name: str, array: NDArray) -> None:
    """Give a constant of the graph other values."""
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def run(model: onnx.ModelProto, image: FloatArray) -> FloatArray:
    """Logits in ONNX Runtime, as it optimizes the graph on its own."""
    options = session_options()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: FloatArray = session.run(None, {"image": image})[0]
    return logits


def nodes(model: onnx.ModelProto) -> Mapping[str, onnx.NodeProto]:
    """The nodes by name, or by their first result where they have none."""
    return {node.name or node.output[0]: node for node in model.graph.node}


def makers(model: onnx.ModelProto) -> Mapping[str, onnx.NodeProto]:
    """What makes a value, by the value's name."""
    return {name: node for node in model.graph.node for name in node.output}


def observed(model: onnx.ModelProto, image: FloatArray) -> dict[str, float]:
    """The largest magnitude of every value on one picture."""
    return {name: seen.max_abs for name, seen in observe_ranges(run_passes(model, []), [image]).items()}


#: What every graph below begins and ends with; both layers stay in higher precision.
STEM = "c0 = Conv <pads = [1, 1, 1, 1]> (image, w0)  r0 = Relu (c0)"
WEIGHTS = {"w0": (8, 3, 3, 3), "head": (4, 8, 1, 1)}

#: One layer between the ends.
PLAIN = graph_of(f"{STEM}  a = Conv (r0, wa)  ra = Relu (a)  logits = Conv (ra, head)", **WEIGHTS, wa=(8, 8, 1, 1))

#: A residual block whose identity branch is its input.
RESIDUAL = graph_of(
    f"""{STEM}  a = Conv <pads = [1, 1, 1, 1]> (r0, wa)  ra = Relu (a)  b = Conv (ra, wb)
    sum = Add (b, r0)  r1 = Relu (sum)  logits = Conv (r1, head)""",
    **WEIGHTS,
    wa=(8, 8, 3, 3),
    wb=(8, 8, 1, 1),
)

#: A residual block with a convolution on its identity branch, which comes first in the `Add`.
DOWNSAMPLE = graph_of(
    f"""{STEM}  d = Conv <strides = [2, 2]> (r0, wd)
    a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r0, wa)  ra = Relu (a)  b = Conv (ra, wb)
    sum = Add (d, b)  r1 = Relu (sum)  logits = Conv (r1, head)""",
    **WEIGHTS,
    wd=(8, 8, 1, 1),
    wa=(8, 8, 3, 3),
    wb=(8, 8, 1, 1),
)

#: A skip connection: `r0` is read by a layer, and joined with what comes of it.
CONCAT = graph_of(
    f"""{STEM}  a = Conv (r0, wa)  ra = Relu (a)  cat = Concat <axis = 1> (ra, r0)
    p = Conv (cat, wp)  rp = Relu (p)  logits = Conv (rp, head)""",
    **WEIGHTS,
    wa=(8, 8, 1, 1),
    wp=(8, 16, 1, 1),
)

#: Two rates and the mean of the whole map, joined and projected.
ASPP = graph_of(
    f"""{STEM}
    a = Conv <dilations = [2, 2], pads = [2, 2, 2, 2]> (r0, wa)  ra = Relu (a)
    b = Conv <dilations = [5, 5], pads = [5, 5, 5, 5]> (r0, wb)  rb = Relu (b)
    mean = GlobalAveragePool (r0)  m = Conv (mean, wm)  rm = Relu (m)
    form = Shape (r0)  wide = Expand (rm, form)
    cat = Concat <axis = 1> (ra, rb, wide)  p = Conv (cat, wp)  rp = Relu (p)  logits = Conv (rp, head)""",
    shape='"N", 3, "H", "W"',
    **WEIGHTS,
    wa=(8, 8, 3, 3),
    wb=(8, 8, 3, 3),
    wm=(8, 8, 1, 1),
    wp=(8, 24, 1, 1),
)

#: An inverted residual block as in MobileNetV2: expanded, filtered per channel, projected without an activation.
DEPTHWISE = graph_of(
    f"""{STEM}  low = Constant <value = float {{0}}> ()  six = Constant <value = float {{6}}> ()
    a = Conv (r0, wa)  ra = Clip (a, low, six)
    b = Conv <group = 16, pads = [1, 1, 1, 1]> (ra, wb)  rb = Clip (b, low, six)
    c = Conv (rb, wc)  d = Conv (c, wd)  sum = Add (c, d)  e = Conv (sum, we)  re = HardSwish (e)
    logits = Conv (re, head)""",
    **WEIGHTS,
    wa=(16, 8, 1, 1),
    wb=(16, 1, 3, 3),
    wc=(8, 16, 1, 1),
    wd=(8, 8, 1, 1),
    we=(8, 8, 1, 1),
)

#: What the layers read was moved: pooled, padded with zeros, deinterlaced.
MOVED = graph_of(
    f"""{STEM}  a = Conv (r0, wa)  ra = Relu (a)
    pool = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r0)
    eight = Constant <value = int64[6] {{1, 8, 4, 2, 4, 2}}> ()  phases = Reshape (pool, eight)
    turned = Transpose <perm = [3, 5, 0, 1, 2, 4]> (phases)
    four = Constant <value = int64[4] {{4, 8, 4, 4}}> ()  dense = Reshape (turned, four)
    b = Conv (dense, wb)  rb = Relu (b)  mb = ReduceMean <keepdims = 1> (rb)
    sum = Add (ra, mb)  logits = Conv (sum, head)""",
    **WEIGHTS,
    wa=(8, 8, 1, 1),
    wb=(8, 8, 1, 1),
)

#: One network at two scales, fused by the maximum; every weight is used twice.
MULTISCALE = graph_of(
    """factors = Constant <value = float[4] {1, 1, 0.5, 0.5}> ()  small = Resize <mode = "linear"> (image, "", factors)
    c0 = Conv (image, w0)  r0 = Relu (c0)  a = Conv (r0, wa)  ra = Relu (a)  y = Conv (ra, head)
    c1 = Conv (small, w0)  r1 = Relu (c1)  b = Conv (r1, wa)  rb = Relu (b)  z = Conv (rb, head)
    back = Constant <value = float[4] {1, 1, 2, 2}> ()  up = Resize <mode = "linear"> (z, "", back)
    logits = Max (y, up)""",
    w0=(8, 3, 1, 1),
    wa=(8, 8, 1, 1),
    head=(4, 8, 1, 1),
)

GRAPHS = {
    "plain": PLAIN,
    "residual": RESIDUAL,
    "downsample": DOWNSAMPLE,
    "concat": CONCAT,
    "aspp": ASPP,
    "depthwise": DEPTHWISE,
    "moved": MOVED,
    "multiscale": MULTISCALE,
}
