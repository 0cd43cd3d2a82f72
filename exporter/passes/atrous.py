"""Atrous convolutions of a graph: finding them, reading their geometry, and the frame of passes that rewrite them."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from .nodes import node_name

_MIN_OPSET: Final = 18  # first opset with the current form of all operators that the passes emit

_logger = logging.getLogger(__name__)


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


class RewriteAtrousConvs(ir.passes.InPlacePass):
    """Rewrites the atrous `Conv` nodes of a model one by one, and records those that stay.

    Args:
        only: names of the nodes to rewrite, the others are left as they are; None for all.

    Attributes:
        rewritten: names of the convolutions that the last call rewrote.
        skipped: convolutions that stay dilated, with the reasons.
    """

    #: Name of the rewriting, as in "`purpose` needs ONNX opset >= 18".
    purpose: str

    def __init__(self, only: Collection[str] | None = None) -> None:
        self._only = only
        self.rewritten: tuple[str, ...] = ()
        self.skipped: tuple[SkippedConv, ...] = ()

    @abstractmethod
    def rewrite(self, conv: ir.Node) -> str | None:
        """Replace a convolution in its graph, or return the reason why it stays."""

    def requires(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PreconditionError` below opset 18."""
        version = model.opset_imports.get("")
        if version is None or version < _MIN_OPSET:
            raise ir.passes.PreconditionError(
                f"{self.purpose} needs ONNX opset >= {_MIN_OPSET}, the model has {version}. Export it again."
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites `model` in place."""
        rewritten: list[str] = []
        skipped: list[SkippedConv] = []
        for conv in self._wanted(model):
            name = node_name(conv)
            reason = self.rewrite(conv)
            if reason is None:
                rewritten.append(name)
            else:
                skipped.append(SkippedConv(name, reason))
                _logger.info("Convolution %s stays dilated: %s", name, reason)
        self.rewritten, self.skipped = tuple(rewritten), tuple(skipped)
        return ir.passes.PassResult(model, modified=bool(rewritten))

    def ensures(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PostconditionError` if a dilated `Conv` is left that `skipped` does not explain."""
        left = len(self._wanted(model))
        if left != len(self.skipped):
            raise ir.passes.PostconditionError(f"{left} convolutions are dilated, expected {len(self.skipped)}")

    def _wanted(self, model: ir.Model) -> list[ir.Node]:
        return [conv for conv in atrous_convs(model) if self._only is None or node_name(conv) in self._only]
