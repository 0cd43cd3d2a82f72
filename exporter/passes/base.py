"""Runs graph passes on an ONNX model.

A pass is an `onnx_ir.passes.PassBase`: `requires` checks its preconditions, `call` rewrites the graph, `ensures`
checks its postconditions. Each pass has its own file; this file holds only the runner.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...arguments import check_arguments
from ...errors import AtrousError, ExportError


@check_arguments
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
    pipeline = ir.passes.Sequential(ShapeInferencePass(strict_mode=False), *passes)
    with pass_errors(names):
        rewritten = ir.to_proto(pipeline(ir.from_proto(proto)).model)
    try:
        onnx.checker.check_model(rewritten, full_check=True)
    except Exception as exc:  # a ValidationError or InferenceError, or a ValueError above protobuf's 2 GiB
        raise ExportError(
            f"The graph is not valid ONNX after {names}: {exc}. Check that the model itself is valid with "
            "onnx.checker.check_model(model, full_check=True); if it is, this is a bug in the pass."
        ) from exc
    return rewritten


@contextmanager
def pass_errors(names: str) -> Iterator[None]:
    """Wrap whatever `onnx_ir` raises while it reads, rewrites or writes a graph.

    Args:
        names: the passes, for the message.

    Raises:
        ExportError: the block raised.
    """
    try:
        yield
    except AtrousError:
        raise
    except Exception as exc:  # PassError, InvariantError, and what a graph beyond onnx_ir's ideas causes
        reason = exc.__cause__ or exc  # the pass manager wraps the exception of a pass
        if isinstance(reason, AtrousError):
            raise reason from exc
        raise ExportError(f"Cannot apply {names}: {reason}") from exc


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as exc:
        raise ExportError(f"Cannot read the ONNX model {path}: {exc.strerror or exc}. Check the path.") from exc
    except Exception as exc:  # protobuf's DecodeError has no base but Exception, and its module moves with releases
        raise ExportError(f"{path} is not a readable ONNX model: {exc}. Export it again.") from exc
