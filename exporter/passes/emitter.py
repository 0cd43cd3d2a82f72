"""Emitter of the nodes that replace one node of a graph, for static and dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Int64Array = npt.NDArray[np.int64]
#: int64 vector: a static value, or a value computed by the graph at run time.
Sizes = Int64Array | ir.Value
Attribute = ir.Attr | int | Sequence[int]

_ARITHMETIC: Final = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.floor_divide}


def dims(size: Sizes) -> list[int | None]:
    """Size [h, w] as dimensions; None for dynamic ones."""
    return [int(each) for each in size] if isinstance(size, np.ndarray) else [None, None]


class Emitter:
    """Collects the nodes that replace one node; integer arithmetic on static sizes is folded.

    Args:
        prefix: prefix of every name, unique in the graph, e.g. the name of the replaced value.
        dtype: element type of the feature maps, or None if unknown.
    """

    def __init__(self, prefix: str, dtype: ir.DataType | None) -> None:
        self._tape = ir.tape.Tape()
        self._prefix = prefix
        self._type = None if dtype is None else ir.TensorType(dtype)

    @property
    def nodes(self) -> Sequence[ir.Node]:
        """Emitted nodes, in order."""
        return self._tape.nodes

    @property
    def initializers(self) -> Sequence[ir.Value]:
        """Constants that the nodes read."""
        return self._tape.initializers

    def map(
        self,
        label: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        name: str | None = None,
        metadata: dict[str, str] | None = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Add a node whose output is a feature map; None in `shape` is a dynamic size, `dtype` another element type."""
        type_ = self._type if dtype is None else ir.TensorType(dtype)
        output = ir.Value(name=f"{self._prefix}/{label}", shape=ir.Shape(shape), type=type_)
        return self._tape.op(
            op_type,
            inputs,
            attributes,
            output=output,
            name=name or f"{self._prefix}/{label}",
            metadata_props=metadata,
        )

    def spatial_size(self, source: ir.Value) -> Sizes:
        """[H, W] of a map [N, C, H, W]."""
        if source.shape is not None:
            sizes = source.shape.dims[2:]
            if all(isinstance(size, int) for size in sizes):
                return np.array(sizes, np.int64)
        return self._vector("size", "Shape", [source], {"start": 2, "end": 4})

    def arithmetic(self, label: str, op_type: str, left: Sizes, right: Sizes) -> Sizes:
        """Elementwise arithmetic; operands of `Div` must not be negative, because ONNX rounds towards zero."""
        if op_type == "Add" and isinstance(right, np.ndarray) and not right.any():
            return left
        if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
            folded: Int64Array = _ARITHMETIC[op_type](left, right)
            return folded
        operands = [self.value(f"{label}_left", left), self.value(f"{label}_right", right)]
        return self._vector(label, op_type, operands)

    def concat(self, label: str, *parts: Sizes) -> Sizes:
        """Concatenate vectors."""
        known = [part for part in parts if isinstance(part, np.ndarray)]
        if len(known) == len(parts):
            return np.concatenate(known)
        values = [self.value(f"{label}_{index}", part) for index, part in enumerate(parts)]
        return self._vector(label, "Concat", values, {"axis": 0})

    def gather(self, label: str, vector: Sizes, indices: Sequence[int]) -> Sizes:
        """Gather elements of a vector."""
        order = np.array(indices, np.int64)
        if isinstance(vector, np.ndarray):
            return vector[order]
        return self._vector(label, "Gather", [vector, self.value(f"{label}_order", order)])

    def value(self, label: str, sizes: Sizes) -> ir.Value:
        """Convert sizes to a graph value: static ones become an initializer."""
        if isinstance(sizes, ir.Value):
            return sizes
        return self.constant(label, sizes, ir.DataType.INT64)

    def constant(self, label: str, values: npt.NDArray[Any], dtype: ir.DataType) -> ir.Value:
        """Add an initializer."""
        return self._tape.initializer(ir.tensor(values, dtype=dtype, name=f"{self._prefix}/{label}"))

    def _vector(
        self, label: str, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Attribute] | None = None
    ) -> ir.Value:
        name = f"{self._prefix}/{label}"
        output = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64))
        return self._tape.op(op_type, inputs, attributes, output=output, name=name)
