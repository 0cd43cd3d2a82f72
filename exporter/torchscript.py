"""TorchScript from anybody: its program vetted before it runs, and converted to a module that torch.export takes."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch._export.converter import TS2EPConverter
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import CheckpointError, ExportError
from ..manifest import Size
from .exported_program import FILE_OPERATORS
from .foreign import quiet_torch, reason_of
from .sizes import DynamicSize

#: Runs while a file is loaded: a module's own reader, and objects of C++ libraries.
_AT_LOAD: Final = re.compile(r"\b__setstate__\b|__torch__\.torch\.classes\b")
#: Nodes of a program besides operators of ATen: values, containers, control flow and calls within it.
_LANGUAGE: Final = re.compile(
    r"Constant|ListConstruct|ListUnpack|TupleConstruct|TupleUnpack|TupleIndex|TupleSlice|DictConstruct"
    r"|GetAttr|If|Loop|RaiseException|Uninitialized|NumToTensor|ImplicitTensorToNum|unchecked_cast"
    r"|unchecked_unwrap_optional|isinstance|dtype|device|is_cuda|layout|min|max|abs"
)


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Load what `torch.jit.save` wrote, if its program works on tensors and numbers alone.

    Raises:
        CheckpointError: the file is damaged, or its program runs while it is loaded, opens files, or calls operators
            that are not ATen's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sources = [archive.read(name).decode() for name in archive.namelist() if re.search(r"/code/.*\.py$", name)]
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise CheckpointError(f"{path} is truncated or damaged ({reason_of(exc)}); copy or download it again") from exc
    for source in sources:
        found = _AT_LOAD.search(source)
        if found:
            raise _refusal(path, f"runs code of its own while it is loaded ({found[0]})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as exc:
        raise CheckpointError(f"{path} is truncated or damaged ({reason_of(exc)}); copy or download it again") from exc
    for node in _nodes(script.inlined_graph):
        library, _, operator = node.kind().partition("::")
        fine = (
            operator not in FILE_OPERATORS
            if library == "aten"
            else library == "prim" and _LANGUAGE.fullmatch(operator) is not None
        )
        if not fine:
            raise _refusal(path, f"calls {node.kind()}, which is no operator of ATen on tensors and numbers")
    return script


def module_of_script(script: torch.jit.ScriptModule, size: Size | DynamicSize, channels: int = 3) -> nn.Module:
    """Convert TorchScript to a module that torch.export can trace.

    Args:
        script: maps [N, channels, H, W] to logits.
        size: the size or sizes that it is converted for.
        channels: of the input: three, or a number of bands.

    Raises:
        ExportError: it cannot be converted, or not for more than one size.
    """
    height, width = size.opt if isinstance(size, DynamicSize) else size
    # Two images of unequal sides, because torch takes a 1 and equal sides for constants.
    example = torch.zeros(2, channels, height, width + (32 if height == width else 0))
    try:
        with quiet_torch("cannot convert TorchScript"), torch.no_grad():
            return TS2EPConverter(script, (example,)).convert().module()
    except ExportError as exc:
        if isinstance(size, DynamicSize):
            raise ExportError(
                f"torch can follow this TorchScript at one size only, not over a range: export it with "
                f"size=({height}, {width}), --size {height}x{width}; or export the module that it was made of. "
                f"{exc}"
            ) from exc
    # The interpreter runs once, and what it computes is recorded: lengths become constants.
    with quiet_torch("cannot trace TorchScript"), torch.no_grad():
        traced: nn.Module = make_fx(script)(torch.zeros(1, channels, height, width))
        return traced


def _nodes(block: Any) -> Iterator[Any]:  # noqa: ANN401 - torch does not type its graphs
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _refusal(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {reason}. If you trust its author, export it in Python: atrous.export(torch.jit.load(path), …)"
    )
