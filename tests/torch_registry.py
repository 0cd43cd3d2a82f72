"""The table by which torch translates its operators to ONNX, read once for each test process."""

from __future__ import annotations

import sys
from typing import Any


def keep_registry() -> None:
    """Let torch read the table for the first export only, where torch is loaded at all.

    torch reads it for every export, out of the source of 500 functions: 1.3 s, half of the export of a tiny network.
    Each export still gets a table of its own, so that none sees what another adds.
    """
    if "torch" not in sys.modules:
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = ONNXRegistry.from_torchlib
    kept: dict[tuple[Any, ...], ONNXRegistry] = {}

    def from_torchlib(*opset: int, **named: int) -> ONNXRegistry:
        key = (*opset, *named.items())
        if key not in kept:
            kept[key] = read(*opset, **named)
        registry = ONNXRegistry()
        vars(registry).update(vars(kept[key]))
        registry.functions = {target: list(known) for target, known in kept[key].functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)
