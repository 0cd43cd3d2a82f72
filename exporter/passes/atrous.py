"""Atrous convolutions of a graph: finding them, and reading their padding and rates. Used by the passes on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class SkippedConv:
    """Atrous convolution that the pass did not rewrite.

    Attributes:
        name: the node's name.
        reason: reason in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class AxisGeometry:
    """One spatial axis of an atrous convolution.

    Attributes:
        kernel: taps of the kernel.
        rate: distance of the taps in input pixels; 1 for one tap, which has no holes.
        pad_begin: zeros in front of the input.
        pad_end: zeros behind the input.
    """

    kernel: int
    rate: int
    pad_begin: int
    pad_end: int

    @property
    def reach(self) -> int:
        """Input pixels from the first tap to the last."""
        return self.rate * (self.kernel - 1)


def atrous_convs(model: ir.Model) -> Iterator[ir.Node]:
    """Dilated `Conv` nodes of a model and its subgraphs; functions are not entered."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "Conv" and node.domain == "" and max(node.attributes.get_ints("dilations", (1,))) > 1:
            yield node


def axis_geometry(conv: ir.Node, kernel_shape: Sequence[int]) -> tuple[AxisGeometry, AxisGeometry]:
    """Geometry of height and width; automatic padding is resolved, which takes a stride of 1."""
    attributes = conv.attributes
    auto_pad = attributes.get_string("auto_pad", "NOTSET")
    pads = attributes.get_ints("pads", (0, 0, 0, 0))
    axes = []
    for index, (kernel, dilation) in enumerate(zip(kernel_shape, attributes.get_ints("dilations"), strict=True)):
        rate = dilation if kernel > 1 else 1  # one tap has no holes
        begin, end = pads[index], pads[index + 2]
        if auto_pad != "NOTSET":
            # At stride 1 "same" padding does not depend on the size of the input.
            total = 0 if auto_pad == "VALID" else rate * (kernel - 1)
            begin = total // 2 if auto_pad != "SAME_LOWER" else total - total // 2
            end = total - begin
        axes.append(AxisGeometry(kernel, rate, begin, end))
    return axes[0], axes[1]
