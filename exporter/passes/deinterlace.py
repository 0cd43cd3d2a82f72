"""Atrous convolution by deinterlacing: the second of the two forms in DeepLab (arXiv 1606.00915 §3.1).

A convolution with holes of rate r reads, for any one output position, only inputs whose distance is a multiple of r.
So the input falls into r × r phases that never mix. Each is convolved densely, and the results are interlaced back:

    x [N, C, H, W] → pad → [N·r², C, H/r, W/r] → dense convolution → [N·r², M, H/r, W/r] → interlace → crop

Padding is split: what is a multiple of r pads every phase alike and stays in the convolution; only the remainder, and
what fills the last row and column of phases, needs a `Pad`. With the padding r·(k − 1)/2 that DeepLab uses the
remainder is 0, so a size divisible by r needs neither `Pad` nor `Slice`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from .atrous import AxisGeometry, RewriteAtrousConvs, axis_geometry
from .emitter import Emitter, Int64Array, Sizes, dims

#: Attributes of `Conv` that the dense convolution keeps.
_KEPT_ATTRIBUTES: Final = ("group", "kernel_shape")


class DeinterlaceAtrousConv(RewriteAtrousConvs):
    """Rewrites every 2-D atrous `Conv` of stride 1 as deinterlace, dense `Conv`, interlace.

    Exact up to the order of summation. Kernels of any size, any group count, explicit or automatic padding and rates
    that differ per axis are covered; N, H and W may be dynamic. Static H and W give constant shapes. Weights and
    biases are shared, not copied. Run it before quantization: Q/DQ nodes must be adjacent to the dense `Conv`.
    Model-local functions are skipped.
    """

    purpose = "deinterlacing"

    def rewrite(self, conv: ir.Node) -> str | None:
        """Deinterlace a convolution, or return the reason why it stays."""
        geometry = _geometry(conv)
        if isinstance(geometry, str):
            return geometry
        _deinterlace(conv, geometry)
        return None


class _Axis(AxisGeometry):
    """One spatial axis, at stride 1, with what deinterlacing derives from it."""

    @property
    def lead(self) -> int:
        """Zeros to pad in front, so that the rest of `pad_begin` is the same for every phase."""
        return self.pad_begin % self.rate

    @property
    def dense_pads(self) -> tuple[int, int]:
        """Padding of the dense convolution; the end is rounded up, and the excess is cropped."""
        return self.pad_begin // self.rate, -(-self.pad_end // self.rate)

    @property
    def dense_growth(self) -> int:
        """Output size minus input size of the dense convolution."""
        return sum(self.dense_pads) - (self.kernel - 1)

    @property
    def growth(self) -> int:
        """Output size minus input size of the atrous convolution."""
        return self.pad_begin + self.pad_end - self.reach


@dataclass(frozen=True)
class _Geometry:
    """Static geometry of an atrous convolution; `batch` is None if N is dynamic."""

    source: ir.Value
    axes: tuple[_Axis, _Axis]
    batch: int | None
    in_channels: int
    out_channels: int

    @property
    def rates(self) -> Int64Array:
        return self.vector("rate")

    @property
    def phase_batch(self) -> int | None:
        """N·r², the batch of the dense convolution."""
        return None if self.batch is None else self.batch * int(self.rates.prod())

    def vector(self, quantity: str) -> Int64Array:
        """A quantity of `_Axis` for height and width."""
        return np.array([getattr(axis, quantity) for axis in self.axes], np.int64)


def _geometry(conv: ir.Node) -> _Geometry | str:
    """Geometry of `conv`, or the reason why it cannot be deinterlaced."""
    source, weight, *_ = conv.inputs
    if len(conv.attributes.get_ints("dilations", ())) != 2:
        return "it is not 2-D"
    if max(conv.attributes.get_ints("strides", (1, 1))) > 1:
        # Its outputs would alternate between phases; no DeepLab has one, because a rate replaces the stride.
        return "its stride is greater than 1"
    if source is None or weight is None or weight.shape is None or not weight.shape.is_static():
        return "the shape of its weight is unknown"
    out_channels, group_channels, *kernel_shape = weight.shape.numpy()
    if max(kernel_shape) == 1:
        return "a 1x1 kernel has no holes"
    batch = source.shape[0] if source.shape is not None else None
    height, width = axis_geometry(conv, kernel_shape)
    return _Geometry(
        source=source,
        axes=(_Axis(*astuple(height)), _Axis(*astuple(width))),
        batch=batch if isinstance(batch, int) else None,
        in_channels=group_channels * conv.attributes.get_int("group", 1),
        out_channels=out_channels,
    )


def _deinterlace(conv: ir.Node, geometry: _Geometry) -> None:
    """Replace `conv` by deinterlace → dense convolution → interlace → crop."""
    source, atrous, graph = geometry.source, conv.outputs[0], conv.graph
    emit = Emitter(f"{atrous.name}", atrous.dtype or source.dtype)

    size = emit.spatial_size(source)
    phases, phase_size = _split(emit, size, geometry)
    dense_size = emit.arithmetic("dense_size", "Add", phase_size, geometry.vector("dense_growth"))
    (top, bottom), (left, right) = (axis.dense_pads for axis in geometry.axes)
    kept = {name: conv.attributes[name] for name in _KEPT_ATTRIBUTES if name in conv.attributes}
    dense = emit.map(
        "dense",
        "Conv",
        [phases, *conv.inputs[1:]],
        [geometry.phase_batch, geometry.out_channels, *dims(dense_size)],
        {**kept, "pads": (top, left, bottom, right)},
        name=conv.name,
        metadata=dict(conv.metadata_props),
    )
    output_size = emit.arithmetic("output_size", "Add", size, geometry.vector("growth"))
    interlaced = _join(emit, dense, dense_size, output_size, geometry)

    if not isinstance(graph, ir.Graph):
        raise ir.passes.PassError(f"{conv.name} is not in a graph")  # functions are not entered
    for constant in emit.initializers:
        graph.register_initializer(constant)
    ir.convenience.replace_nodes_and_values(graph, conv, [conv], emit.nodes, [atrous], [interlaced])


def _split(emit: Emitter, size: Sizes, geometry: _Geometry) -> tuple[ir.Value, Sizes]:
    """[N, C, H, W] → phases [N·r², C, h, w], and [h, w]."""
    source, rates, lead = geometry.source, geometry.rates, geometry.vector("lead")
    phase_size = emit.arithmetic("phase_size", "Div", emit.arithmetic("lead", "Add", size, lead + rates - 1), rates)
    filled = emit.arithmetic("filled", "Mul", phase_size, rates)
    trail = emit.arithmetic("trail", "Sub", filled, emit.arithmetic("shifted", "Add", size, lead))
    pads = emit.concat("pads", np.array([0, 0, *lead, 0, 0], np.int64), trail)
    if not isinstance(pads, np.ndarray) or pads.any():
        padded_shape = [geometry.batch, geometry.in_channels, *dims(filled)]
        source = emit.map("pad", "Pad", [source, emit.value("pads", pads)], padded_shape)
    # In a Reshape, 0 copies the input's size and -1 is inferred, so N may be unknown.
    listed = emit.concat("listed", np.array([0, geometry.in_channels], np.int64), phase_size, rates)
    blocks = emit.gather("blocks", listed, (0, 1, 2, 4, 3, 5))
    h, w = dims(phase_size)
    rate_h, rate_w = (int(rate) for rate in rates)
    n, c = geometry.batch, geometry.in_channels
    source = emit.map("split", "Reshape", [source, emit.value("blocks", blocks)], [n, c, h, rate_h, w, rate_w])
    source = emit.map("phases", "Transpose", [source], [n, rate_h, rate_w, c, h, w], {"perm": (0, 3, 5, 1, 2, 4)})
    batched = emit.value("batched", emit.concat("batched", np.array([-1, c], np.int64), phase_size))
    return emit.map("batch", "Reshape", [source, batched], [geometry.phase_batch, c, h, w]), phase_size


def _join(emit: Emitter, dense: ir.Value, dense_size: Sizes, output_size: Sizes, geometry: _Geometry) -> ir.Value:
    """Phases [N·r², M, h, w] → [N, M, H, W]."""
    n, c = geometry.batch, geometry.out_channels
    h, w = dims(dense_size)
    rate_h, rate_w = (int(rate) for rate in geometry.rates)
    unbatched = emit.value(
        "unbatched", emit.concat("unbatched", np.array([-1, rate_h, rate_w, c], np.int64), dense_size)
    )
    joined = emit.map("unbatch", "Reshape", [dense, unbatched], [n, rate_h, rate_w, c, h, w])
    joined = emit.map("interlace", "Transpose", [joined], [n, c, h, rate_h, w, rate_w], {"perm": (0, 3, 4, 1, 5, 2)})
    full_size = emit.arithmetic("full_size", "Mul", dense_size, geometry.rates)
    merged = emit.value("merged", emit.concat("merged", np.array([0, c], np.int64), full_size))
    joined = emit.map("merge", "Reshape", [joined, merged], [n, c, *dims(full_size)])
    if isinstance(full_size, np.ndarray) and dims(full_size) == dims(output_size):
        return joined
    start, axes = np.zeros(2, np.int64), np.array([2, 3], np.int64)
    window = [emit.value("crop_start", start), emit.value("crop_end", output_size), emit.value("crop_axes", axes)]
    return emit.map("crop", "Slice", [joined, *window], [n, c, *dims(output_size)])
