"""Give OpenVINO the form of Q/DQ that it computes right.

It reads a `QuantizeLinear`/`DequantizeLinear` pair as rounding to INT8, two conversions and a product. Behind a
`Concat` its low-precision passes then mistake the values that are joined for INT8 already, and round them to whole
numbers (OpenVINO 2026.4; logits of the demo's network were off by 4.3 % instead of 3.7 %). Written as one
`FakeQuantize` whose result is dequantized, the same pair is computed as it should be, and as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fuse_qdq(ov: Any, model: Any) -> int:  # noqa: ANN401 - openvino has no stubs
    """Replace every pair on activations whose scale and zero point are single constants, in place.

    Args:
        ov: the module `openvino`.
        model: an `openvino.Model`, as `read_model` makes it of ONNX.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for product, zero_point in _dequantized(node):
            scale = _single(product.input_value(1))
            if scale is not None and zero_point is not None:
                _replace(ov, node, product, scale, zero_point)
                replaced += 1
    return replaced


def _dequantized(node: Any) -> Iterator[tuple[Any, NDArray[np.float32] | None]]:  # noqa: ANN401
    """The products in which the codes of a `FakeQuantize` are dequantized, each with the zero point."""
    for codes in _users(node, "Convert"):
        for wide in _users(codes, "Convert"):
            for product in _users(wide, "Multiply"):
                yield product, np.zeros((), np.float32)
            for difference in _users(wide, "Subtract"):
                for product in _users(difference, "Multiply"):
                    yield product, _single(difference.input_value(1))


def _replace(
    ov: Any,  # noqa: ANN401
    node: Any,  # noqa: ANN401
    product: Any,  # noqa: ANN401
    scale: NDArray[np.float32],
    zero_point: NDArray[np.float32],
) -> None:
    ops = ov.opset13
    source, low, high, *codes = (node.input_value(index) for index in range(5))
    ends = [(_single(code) - zero_point) * scale for code in codes]
    fused = ops.fake_quantize(source, low, high, *ends, node.get_attributes()["levels"])
    target = product.output(0).get_element_type()
    if fused.output(0).get_element_type() != target:
        fused = ops.convert(fused, target)
    product.output(0).replace(fused.output(0))


def _users(node: Any, kind: str) -> list[Any]:  # noqa: ANN401
    """The nodes of one kind that read the first output."""
    users = (each.get_node() for each in node.output(0).get_target_inputs())
    return [user for user in users if user.get_type_name() == kind]


def _single(value: Any) -> Any:  # noqa: ANN401
    """The one number of a constant, which may be converted or reshaped, or None."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.size != 1:
        return None
    return node.data.astype(np.float32).reshape(())
