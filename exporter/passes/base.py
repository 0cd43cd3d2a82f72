"""Runs graph passes on an ONNX model.

A pass is an `onnx_ir.passes.PassBase`: `requires` checks its preconditions, `call` rewrites the graph, `ensures`
checks its postconditions. Each pass has its own file; this file holds only the runner.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...errors import ExportError


def run_passes(
    model: onnx.ModelProto | str | os.PathLike[str], passes: Sequence[ir.passes.PassBase]
) -> onnx.ModelProto:
    """Apply `passes` in order and check the result.

    Shape inference runs first, so that passes see every static size that the graph implies.

    Args:
        model: a model, which is not modified, or the path of one.
        passes: passes to apply; an empty sequence only infers shapes.

    Returns:
        The rewritten model; it passes `onnx.checker.check_model(full_check=True)`.

    Raises:
        ExportError: the model cannot be read or violates a precondition, or the result is not valid ONNX.
    """
    proto = model if isinstance(model, onnx.ModelProto) else _read(Path(model))
    names = ", ".join(type(each).__name__ for each in passes) or "shape inference"
    # The pass manager wraps the exception of a pass, so the reason is its cause.
    pipeline = ir.passes.Sequential(ShapeInferencePass(strict_mode=False), *passes)
    try:
        rewritten = ir.to_proto(pipeline(ir.from_proto(proto)).model)
    except (ir.passes.PassError, ir.passes.InvariantError) as exc:
        raise ExportError(f"Cannot apply {names}: {exc.__cause__ or exc}") from exc
    try:
        onnx.checker.check_model(rewritten, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(
            f"The graph is not valid ONNX after {names}: {exc}. Check that the model itself is valid with "
            "onnx.checker.check_model(model, full_check=True); if it is, this is a bug in the pass."
        ) from exc
    return rewritten


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as exc:
        raise ExportError(f"Cannot read the ONNX model {path}: {exc.strerror or exc}. Check the path.") from exc
    except Exception as exc:  # protobuf's DecodeError has no base but Exception, and its module moves with releases
        raise ExportError(f"{path} is not a readable ONNX model: {exc}. Export it again.") from exc
