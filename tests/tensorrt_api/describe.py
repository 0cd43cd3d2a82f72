"""Prints what the bindings of TensorRT offer, as JSON: run in a process of its own, with the module's name.

python describe.py tensorrt_rtx
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any

_RETURNS = re.compile(r"-> (?:Optional\[)?tensorrt\w*\.tensorrt\w*\.(\w+)")


def describe(module: Any) -> dict[str, Any]:
    """Names of the module, and of each of its classes: member → name of the class that it gives, or an empty text."""
    classes = {name: value for name, value in vars(module).items() if inspect.isclass(value) and _is_own(value)}
    return {
        "version": module.__version__,
        "names": sorted(name for name in vars(module) if not name.startswith("_")),
        "classes": {name: _members(value) for name, value in sorted(classes.items())},
    }


def _is_own(value: type) -> bool:
    # Networks come from ONNX here, not layer by layer, and have no plugins.
    is_unused = "Plugin" in value.__name__ or value.__name__.endswith("Layer")
    return value.__module__.startswith("tensorrt") and not is_unused


def _members(cls: type) -> dict[str, str]:
    found = {}
    for name in sorted(name for name in dir(cls) if not name.startswith("_")):
        member = inspect.getattr_static(cls, name)
        documented = member.fget if isinstance(member, property) else getattr(cls, name)
        match = _RETURNS.search(getattr(documented, "__doc__", None) or "")
        found[name] = match[1] if match else ""
    return found


if __name__ == "__main__":
    print(json.dumps(describe(importlib.import_module(sys.argv[1]))))
