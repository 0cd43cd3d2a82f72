"""Atrous convolution by taps: one 1×1 convolution per tap of the kernel, on shifted views of the input.

The output of a k × k convolution of rate r is a sum over its taps (a, b), each a matrix product of the weights
W[:, :, a, b] with the part of the input that the tap sees:

    y[p] = bias + Σ_{a,b} W[:, :, a, b] · x[p·stride + r·(a, b) − padding]

As an algorithm this is kn2row (Vasudevan, Anderson & Gregg 2017); as a graph it needs no kernel of ours: `Slice`, 1×1
`Conv`, `Pad`, `Add`. Libraries compute 1×1 convolutions at their best, and dilated ones of large rates often at their
worst.

Where H and W are static, a tap computes only the outputs for which it lies inside the image, and `Pad` fills the rest:
at rate 36 on a 65 × 65 map 40 % of the products remain. Where they are dynamic, the input is padded once, and every tap
is a slice of it of the output's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .atrous import AxisGeometry, RewriteAtrousConvs, axis_geometry
from .emitter import Emitter
from .nodes import node_name

_TO_THE_END: Final = np.iinfo(np.int64).max


class SplitAtrousConvIntoTaps(RewriteAtrousConvs):
    """Rewrites every 2-D atrous `Conv` as a sum of 1×1 `Conv`s on slices of its input.

    Exact up to the order of summation. Kernels of any size, any group count and stride, and rates that differ per axis
    are covered; N, H and W may be dynamic. Weights must be constants, and are cut into taps. In a quantized graph the
    input is sliced as integers, in front of its `DequantizeLinear`, and the taps share the scales of the weights; run
    the pass after quantization.
    """

    purpose = "splitting into taps"

    def rewrite(self, conv: ir.Node) -> str | None:
        """Split a convolution, or return the reason why it stays."""
        geometry = _geometry(conv)
        if isinstance(geometry, str):
            return geometry
        _split(conv, geometry)
        return None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites `model` in place, and removes the whole weights."""
        result = super().call(model)
        if result.modified:
            RemoveUnusedNodesPass()(model)
        return result


@dataclass(frozen=True)
class _Window:
    """Part of one axis of the input that a tap reads, and where its products lie in the output.

    Attributes:
        start: first input pixel.
        end: end of the input pixels, exclusive; negative ones count from the end.
        step: the stride.
        before: output pixels in front that the tap does not reach.
        after: output pixels behind that it does not reach.
        count: output pixels that it reaches, or None if that depends on a dynamic size.
    """

    start: int
    end: int
    step: int
    before: int
    after: int
    count: int | None

    @property
    def fills(self) -> bool:
        """True if the tap reaches every output pixel."""
        return self.before == self.after == 0

    def is_all_of(self, length: int | None) -> bool:
        """True if the window is the whole input of this length."""
        return self.step == 1 and self.start == 0 and self.end in (length, _TO_THE_END)


@dataclass(frozen=True)
class _Geometry:
    """Static facts of an atrous convolution; a dynamic size is None."""

    source: ir.Value
    weight: ir.Value
    axes: tuple[AxisGeometry, AxisGeometry]
    strides: tuple[int, int]
    size: tuple[int | None, int | None]
    batch: int | None
    in_channels: int
    out_channels: int

    @property
    def is_static(self) -> bool:
        return None not in self.size

    def windows(self, axis: int) -> list[_Window | None]:
        """The window of each tap along an axis; None where it lies outside of the image everywhere."""
        rule, stride, length = self.axes[axis], self.strides[axis], self.size[axis]
        if not self.is_static or length is None:
            return [_slice_of_padded(rule, stride, tap) for tap in range(rule.kernel)]
        return [_inside(rule, stride, tap, length) for tap in range(rule.kernel)]


def _slice_of_padded(rule: AxisGeometry, stride: int, tap: int) -> _Window:
    """A tap's slice of the padded input, as long as the output."""
    behind = rule.reach - rule.rate * tap
    return _Window(rule.rate * tap, -behind if behind else _TO_THE_END, stride, 0, 0, None)


def _inside(rule: AxisGeometry, stride: int, tap: int, length: int) -> _Window | None:
    """The part of the input that a tap sees, or None."""
    outputs = (length + rule.pad_begin + rule.pad_end - rule.reach - 1) // stride + 1
    offset = rule.rate * tap - rule.pad_begin
    first = max(0, -(offset // stride))
    last = min(outputs - 1, (length - 1 - offset) // stride)
    if last < first:
        return None
    start, end = first * stride + offset, last * stride + offset + 1
    return _Window(start, end, stride, first, outputs - 1 - last, last - first + 1)


def _geometry(conv: ir.Node) -> _Geometry | str:
    """Geometry of `conv`, or the reason why it cannot be split."""
    source, weight, *_ = conv.inputs
    if len(conv.attributes.get_ints("dilations", ())) != 2:
        return "it is not 2-D"
    constant = None if weight is None else _constant(weight)
    if source is None or weight is None or constant is None:
        return "its weight is not a constant"
    strides = tuple(conv.attributes.get_ints("strides", (1, 1)))
    if max(strides) > 1 and conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding depends on the size of the input"
    out_channels, group_channels, *kernel_shape = constant.shape.numpy()
    if max(kernel_shape) == 1:
        return "a 1x1 kernel has no holes"
    shape = source.shape if source.shape is not None else ir.Shape([None] * 4)
    batch, _, height, width = (size if isinstance(size, int) else None for size in shape.dims)
    geometry = _Geometry(
        source=source,
        weight=weight,
        axes=axis_geometry(conv, kernel_shape),
        strides=(strides[0], strides[1]),
        size=(height, width),
        batch=batch,
        in_channels=group_channels * conv.attributes.get_int("group", 1),
        out_channels=out_channels,
    )
    if not all(any(geometry.windows(axis)) for axis in (0, 1)):
        return "no tap lies inside of its input"
    return geometry


def _constant(weight: ir.Value) -> ir.TensorProtocol | None:
    """The weight, or the integers of a quantized one, if they are constants."""
    integers = _quantized(weight)
    return ir.convenience.get_const_tensor(weight if integers is None else integers)


def _quantized(value: ir.Value) -> ir.Value | None:
    """The integers of a value that comes out of `DequantizeLinear`, or None."""
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "DequantizeLinear" else None


class _Taps:
    """The taps of one convolution: emits what each reads, multiplies by, and adds to the output."""

    def __init__(self, conv: ir.Node, geometry: _Geometry) -> None:
        self._conv = conv
        self._geometry = geometry
        self.emit = Emitter(f"{conv.outputs[0].name}", conv.outputs[0].dtype or geometry.source.dtype)
        self._source = self._padded(_quantized(geometry.source) or geometry.source)

    def product(self, row: int, column: int, high: _Window, wide: _Window, bias: ir.Value | None) -> ir.Value:
        """The product of one tap [N, M, H', W'], zero where the tap lies outside of the image."""
        geometry, label = self._geometry, f"{row}_{column}"
        operands = [self._view(label, high, wide), self._weight(row, column), *([] if bias is None else [bias])]
        kept = {"group": self._conv.attributes["group"]} if "group" in self._conv.attributes else {}
        product = self.emit.map(
            f"tap_{label}",
            "Conv",
            operands,
            [geometry.batch, geometry.out_channels, high.count, wide.count],
            kept,
            name=f"{node_name(self._conv)}/tap_{label}",
            metadata=dict(self._conv.metadata_props),
        )
        pads = np.array([0, 0, high.before, wide.before, 0, 0, high.after, wide.after], np.int64)
        if not pads.any():
            return product
        return self.emit.map(
            f"placed_{label}",
            "Pad",
            [product, self.emit.value(f"pads_{label}", pads)],
            [geometry.batch, geometry.out_channels, _length(high), _length(wide)],
        )

    def _padded(self, source: ir.Value) -> ir.Value:
        """The input, padded once where its size is dynamic: integers with their zero point."""
        geometry = self._geometry
        (top, bottom), (left, right) = ((axis.pad_begin, axis.pad_end) for axis in geometry.axes)
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        if geometry.is_static or not pads.any():
            return source
        operands: list[ir.Value | None] = [source, self.emit.value("pads", pads)]
        producer = geometry.source.producer()
        if producer is not None and source is not geometry.source and len(producer.inputs) > 2:
            operands.append(producer.inputs[2])
        return self.emit.map(
            "padded", "Pad", operands, [geometry.batch, geometry.in_channels, None, None], dtype=source.dtype
        )

    def _view(self, label: str, high: _Window, wide: _Window) -> ir.Value:
        """The part of the input that a tap reads, dequantized where the input is."""
        geometry, view = self._geometry, self._source
        shape = [geometry.batch, geometry.in_channels, high.count, wide.count]
        if not (high.is_all_of(geometry.size[0]) and wide.is_all_of(geometry.size[1])):
            window = [
                self.emit.value(f"{name}_{label}", np.array(pair, np.int64))
                for name, pair in {
                    "starts": (high.start, wide.start),
                    "ends": (high.end, wide.end),
                    "axes": (2, 3),
                    "steps": (high.step, wide.step),
                }.items()
            ]
            view = self.emit.map(f"view_{label}", "Slice", [view, *window], shape, dtype=view.dtype)
        return self._dequantized(f"input_{label}", view, geometry.source, shape)

    def _weight(self, row: int, column: int) -> ir.Value:
        """W[:, :, row, column] as [M, C / groups, 1, 1], dequantized as the whole weight is."""
        weight = self._geometry.weight
        whole = _constant(weight)
        assert whole is not None, "a convolution with another weight is skipped"  # noqa: S101
        one = np.ascontiguousarray(whole.numpy()[:, :, row : row + 1, column : column + 1])
        tap = self.emit.constant(f"weight_{row}_{column}", one, whole.dtype)
        return self._dequantized(f"dequantized_{row}_{column}", tap, weight, list(one.shape))

    def _dequantized(self, label: str, part: ir.Value, whole: ir.Value, shape: Sequence[int | None]) -> ir.Value:
        """A part of a value, dequantized as the whole value is, if it is."""
        producer = whole.producer()
        if _quantized(whole) is None or producer is None:
            return part
        return self.emit.map(label, "DequantizeLinear", [part, *producer.inputs[1:]], shape, dict(producer.attributes))


def _length(window: _Window) -> int | None:
    """Output pixels along the whole axis."""
    return None if window.count is None else window.before + window.count + window.after


def _split(conv: ir.Node, geometry: _Geometry) -> None:
    """Replace `conv` by the sum of its taps."""
    graph, whole = conv.graph, conv.outputs[0]
    if not isinstance(graph, ir.Graph):
        raise ir.passes.PassError(f"{conv.name} is not in a graph")  # functions are not entered
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    taps = [
        (row, column, high, wide)
        for row, high in enumerate(geometry.windows(0))
        for column, wide in enumerate(geometry.windows(1))
        if high is not None and wide is not None
    ]
    # The tap that reaches every output, if there is one, adds the bias in its convolution.
    carrier = next(((row, column) for row, column, high, wide in taps if high.fills and wide.fills), None)
    split = _Taps(conv, geometry)
    products = [
        split.product(row, column, high, wide, bias if (row, column) == carrier else None)
        for row, column, high, wide in taps
    ]
    high, wide = taps[0][2:]
    shape = [geometry.batch, geometry.out_channels, _length(high), _length(wide)]
    total = products[0]
    for index, product in enumerate(products[1:]):
        total = split.emit.map(f"sum_{index}", "Add", [total, product], shape)
    if bias is not None and carrier is None:
        upright = split.emit.value("upright", np.array([1, -1, 1, 1], np.int64))
        column_bias = split.emit.map("bias", "Reshape", [bias, upright], [1, geometry.out_channels, 1, 1])
        total = split.emit.map("biased", "Add", [total, column_bias], shape)
    for constant in split.emit.initializers:
        graph.register_initializer(constant)
    ir.convenience.replace_nodes_and_values(graph, conv, [conv], split.emit.nodes, [whole], [total])
