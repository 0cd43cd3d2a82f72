"""Graphs of one atrous convolution, for the passes that rewrite it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Float32Array = npt.NDArray[np.float32]

RATES_IN_USE = (2, 4, 6, 8, 12, 18, 24, 36)


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


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


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


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
