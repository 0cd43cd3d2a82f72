"""Modules that return more than one tensor: which of them are the logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..manifest import Size

#: Names under which torchvision and transformers return the logits of the main head.
_LOGITS: Final = ("out", "logits")

Key = str | int


class OneOutput(nn.Module):
    """A module that returns one of the tensors that another returns: [N, 3, H, W] → [N, C, h, w]."""

    def __init__(self, model: nn.Module, key: Key) -> None:
        super().__init__()
        self.model = model
        self.key = key

    def forward(self, image: Tensor) -> object:
        """The tensor under the key."""
        return named_outputs(self.model(image))[self.key]


def with_one_output(model: nn.Module, size: Size, output: Key | None, *, channels: int = 3) -> nn.Module:
    """Make a module return its logits alone.

    Args:
        model: returns a tensor, or a mapping, dataclass, tuple or list with tensors.
        size: height and width of an input that it should take; a module that fails is returned as it is.
        output: key, field or position of the logits; None for `out` or `logits`, or for the only map [N, C, h, w].

    Raises:
        ExportError: the module has no such output, or has several and none is named.
    """
    try:
        with torch.inference_mode():
            returned = model(torch.zeros(1, channels, *size))
    except (Exception, SystemExit):
        return model  # who looks for its sizes runs it again, and knows which ones it takes
    name = type(model).__name__
    if isinstance(returned, Tensor):
        if output not in (None, 0):
            raise ExportError(f"{name} returns one tensor; there is no output {output!r}. Leave the output out.")
        return model
    found = named_outputs(returned)
    listed = ", ".join(f"{key!r} {_shape(value)}" for key, value in found.items()) or type(returned).__name__
    if output is not None:
        if output not in found:
            raise ExportError(f"{name} has no output {output!r}; it returns {listed}")
        return OneOutput(model, output)
    known = [key for key in _LOGITS if key in found]
    maps = [key for key, value in found.items() if isinstance(value, Tensor) and value.ndim == 4]
    if known or len(maps) == 1:
        return OneOutput(model, (known or maps)[0])
    raise ExportError(
        f"{name} returns {listed}; expected one float32 tensor [N, C, h, w]. Name the logits: "
        "ExportOptions(output=KEY), or return them alone."
    )


def named_outputs(returned: object) -> dict[Key, object]:
    """Name what a module returns by key, field or position; empty for what has none."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    return dict(enumerate(returned)) if isinstance(returned, tuple | list) else {}


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
