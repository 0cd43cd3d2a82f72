"""Programs of torch.export (`.pt2`) from anybody: read as data, refused where torch would run what is in the file.

`torch.export.load` unpickles tensors and objects that the file calls pickled, evaluates its expressions of sizes and
guards as Python, imports what its tree specifications name, and calls the functions that its nodes name. Here a program
is first reduced to raw tensors and a graph of ATen operators, and everything else in it is refused.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ..errors import CheckpointError
from .foreign import quiet_torch, reason_of

_GRAPH: Final = "models/model.json"
#: Files of an archive that hold payloads, and those that say which.
_PAYLOADS: Final = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
_CONFIGS: Final = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PLAIN: Final = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_SAMPLE: Final = "data/sample_inputs/model.pt"
_ATEN: Final = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
#: Operators of ATen that open the file of a name.
FILE_OPERATORS: Final = frozenset(("save", "from_file"))
_ARITHMETIC: Final = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(max|min|not|int|float|ite|sum)"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
)
#: Functions of expressions: sympy's, and torch's own of `torch.utils._sympy.functions`.
_FUNCTIONS: Final = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|Max|Min|Abs|And|Or|Not|Equality|Unequality"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Eq|Ne|Lt|Le|Gt|Ge|FloorDiv|CeilDiv|CleanDiv"
    r"|PythonMod|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|ToFloat|FloorToInt|CeilToInt|RoundToInt"
    r"|TruncToInt|TruncToFloat|PowByNatural|FloatPow|LShift|RShift|Identity"
)
#: Kinds of nodes of an expression that need no further look.
_HARMLESS: Final = (
    *(ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Load, ast.keyword, ast.boolop),
    *(ast.operator, ast.unaryop, ast.cmpop),
)
_NAME: Final = re.compile(r"[\w.:+-]*")
_CONTAINERS: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_IN_PYTHON: Final = (
    "Reading it would run what is in it. If you trust its author, export it in Python: "
    "atrous.export(torch.export.load(path).module(), …)"
)


def load_exported_program(path: Path) -> nn.Module:
    """Load what `torch.export.save` wrote, without running anything that it holds.

    Returns:
        The program as a module, which takes the sizes that it was traced for.

    Raises:
        CheckpointError: the file is damaged, of an older format of torch, or holds more than raw tensors and a graph of
            ATen operators: pickles, compiled code, other operators, or expressions that are no arithmetic.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _without_code(archive, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as exc:
        raise CheckpointError(f"{path} is truncated or damaged ({reason_of(exc)}); copy or download it again") from exc
    with quiet_torch(f"cannot load the program {path}"):
        return torch.export.load(io.BytesIO(content)).module()


def _without_code(archive: zipfile.ZipFile, path: Path) -> bytes:
    """The archive with nothing but vetted parts."""
    vetted = io.BytesIO()
    with zipfile.ZipFile(vetted, "w") as out:
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            if name == _GRAPH:
                out.writestr(entry.filename, json.dumps(_vetted_graph(json.loads(archive.read(entry)), path)))
            elif name in _CONFIGS:
                out.writestr(entry.filename, json.dumps(_vetted_payloads(json.loads(archive.read(entry)), path)))
            elif name == _SAMPLE:
                out.writestr(entry.filename, _saved_again(archive.read(entry), path))
            elif name in _PLAIN or _PAYLOADS.fullmatch(name):
                out.writestr(entry.filename, archive.read(entry))
            elif not name.startswith("extra/"):
                raise _refusal(path, f"holds {name!r}: compiled code, or the format of an older torch")
    return vetted.getvalue()


def _saved_again(content: bytes, path: Path) -> bytes:
    """The inputs that a program was traced with, which torch reads with an unsafe pickle if a safe one fails."""
    again = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(content), weights_only=True), again)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as exc:
        raise _refusal(path, "holds example inputs that are not tensors alone") from exc
    return again.getvalue()


def _vetted_payloads(config: dict[str, Any], path: Path) -> dict[str, Any]:
    for key, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise _refusal(path, f"holds {key!r} as a pickled object")
    return config


def _vetted_graph(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    for holder, key, value in _pairs(stored):
        if key == "target" and "inputs" in holder:
            _check_operator(value, path)
        elif key == "expr_str":
            _check_expression(value, path)
        elif key == "guards_code":
            for text in value:
                _check_expression(text, path)
        elif key in ("in_spec", "out_spec"):
            _check_tree(json.loads(value), path)
        elif key == "custom_obj_values" and value:
            raise _refusal(path, "holds custom objects")
        elif key == "metadata" and isinstance(value, dict):
            # Names of modules are kept; the rest is for debugging.
            holder[key] = {kept: value[kept] for kept in ("nn_module_stack",) if kept in value}
        elif key not in ("as_string", "nn_module_stack"):
            _check_names([key, *(value if isinstance(value, list) else [value])], path)
    return stored


def _check_names(values: list[object], path: Path) -> None:
    """Refuse texts that are no names: torch writes the names of nodes and arguments into Python code."""
    for value in values:
        if isinstance(value, str) and not _NAME.fullmatch(value):
            raise _refusal(path, f"has the name {value!r}")


def _pairs(value: object) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """(mapping, key, value) of all mappings at any depth."""
    if isinstance(value, dict):
        for key in list(value):
            yield value, key, value[key]
            yield from _pairs(value[key])  # which the caller may have replaced
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item)


def _check_operator(target: object, path: Path) -> None:
    text = str(target)
    if _ARITHMETIC.fullmatch(text):
        return
    named = _ATEN.fullmatch(text)
    overload = getattr(getattr(torch.ops.aten, named[1], None), named[2], None) if named else None
    if named is None or overload is None or named[1] in FILE_OPERATORS:
        raise _refusal(path, f"calls {text}, which is no operator of ATen on tensors and numbers")


def _check_expression(text: str, path: Path) -> None:
    """Refuse all but arithmetic over sizes: torch evaluates these texts as Python."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, TypeError, ValueError) as exc:
        raise _refusal(path, f"has the expression {text!r}, which cannot be read") from exc
    names = {node.func for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Call):
            known = isinstance(node.func, ast.Name) and _FUNCTIONS.fullmatch(node.func.id) is not None
            fine = known or (not node.args and not node.keywords and _is_size(node.func))
        elif isinstance(node, ast.Name):
            fine = node in names or re.fullmatch(r"L|[a-z]+\d*", node.id) is not None
        elif isinstance(node, ast.Attribute):
            fine = _is_size(node)
        elif isinstance(node, ast.Subscript):
            fine = isinstance(node.slice, ast.Constant | ast.UnaryOp)
        elif isinstance(node, ast.Constant):
            fine = isinstance(node.value, int | float) or (
                isinstance(node.value, str) and re.fullmatch(r"\w+", node.value) is not None
            )
        else:
            fine = isinstance(node, _HARMLESS)
        if not fine:
            raise _refusal(path, f"has the expression {text!r}, which is no arithmetic of sizes")


def _is_size(node: ast.expr) -> bool:
    """True for `L['x'].size`, which guards on sizes call."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "size"
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.value.value, ast.Name)
    )


def _check_tree(spec: object, path: Path) -> None:
    """Refuse all but tuples, lists and dicts: for other types torch imports what the specification names."""
    for holder, key, value in _pairs(spec):
        if key == "type" and value not in _CONTAINERS:
            raise _refusal(path, f"takes or returns a {value}")
        if key == "context" and isinstance(value, str) and "{" in value:
            raise _refusal(path, f"takes or returns a {holder.get('type')} with the context {value!r}")


def _refusal(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} {reason}. {_IN_PYTHON}")
