"""Checks of the arguments of public functions against their annotations, before anything is done with them.

NumPy's numbers become Python's, lists become tuples where a tuple is due, and strings become paths. Values, such as a
range that a number must lie in, are for the function itself to check.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar, Union

from .errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

#: More threads than this are a mistake, and too many for some libraries to survive.
MAX_THREADS: Final = 1024


#: The longest name of a file on any common filesystem.
_MAX_NAME_BYTES: Final = 255
#: Iterable, but not lists of something.
_NO_LISTS: Final = (Mapping, Iterator)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_REPR: Final = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 60


class _MismatchError(Exception):
    """A value is not what its annotation says."""


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that an argument of a wrong type raises `ArgumentError`, which names it.

    A string where one of several is due is left to the function, which says more about them.
    """
    return check_arguments_besides()(function)


def check_arguments_besides(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate as `check_arguments`, and leave the arguments `names` to the function."""
    return lambda function: _decorate(function, names)


def _decorate(function: Callable[P, R], besides: Collection[str]) -> Callable[P, R]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing or too much
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints and name not in besides and signature.parameters[name].kind not in _VARIADIC:
                bound.arguments[name] = _checked(value, hints[name], name, _words(function, name))
        return function(*bound.args, **bound.kwargs)

    return checked


def check_fields(instance: Any, **types_by_name: type) -> None:  # noqa: ANN401 - any dataclass
    """Check and convert the fields of a dataclass, frozen or not, in its `__post_init__`.

    Args:
        instance: the dataclass.
        types_by_name: types in its annotations that its module imports for type checkers alone.

    Raises:
        ArgumentError: a field has a wrong type.
    """
    owner: Callable[..., object] = type(instance)
    hints = _hints(owner, **types_by_name)
    for each in dataclasses.fields(instance):
        if not each.init:
            continue
        value = _checked(getattr(instance, each.name), hints[each.name], each.name, str(each.type))
        choices = _choices(hints[each.name])
        if choices and value not in choices:
            raise ArgumentError(
                f"{each.name} must be {' or '.join(map(repr, choices))}; got {describe(value)}", argument=each.name
            )
        object.__setattr__(instance, each.name, value)


def describe(value: object) -> str:
    """Type and beginning of a value, for messages; never fails and never is long."""
    try:
        text = _REPR.repr(value)
    except Exception:  # the value's own
        text = ""
    return f"{type(value).__name__} {text}".strip() if value is not None else "None"


@functools.cache
def _hints(owner: Callable[..., object], **types_by_name: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(owner, localns=types_by_name)
    hints.pop("return", None)
    return hints


def _words(function: Callable[..., object], name: str) -> str:
    return str(function.__annotations__.get(name, ""))


def _checked(value: object, hint: Any, name: str, words: str) -> Any:  # noqa: ANN401 - a type
    try:
        return _convert(value, hint)
    except _MismatchError as exc:
        detail = f" ({exc})" if str(exc) else ""
        choices = _choices(hint)
        is_path = hint in (Path, Path | None)  # the command line has names of its own for them
        expected = " or ".join(map(repr, choices)) if choices else "a path" if is_path else words
        raise ArgumentError(f"{name} must be {expected}; got {describe(value)}{detail}", argument=name) from None


def _choices(hint: Any) -> tuple[object, ...]:  # noqa: ANN401 - a type
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _convert(value: Any, hint: Any) -> Any:  # noqa: ANN401 - any value of any type
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_to_one(value, typing.get_args(hint))
    if origin is Literal:
        if not isinstance(value, str):
            raise _MismatchError
        return value
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(hint))
    if isinstance(origin, type) and issubclass(origin, (Iterable, Collection)) and not issubclass(origin, _NO_LISTS):
        return _convert_collection(value, origin, typing.get_args(hint))
    kind = origin or hint
    if kind is None or kind is type(None):
        if value is not None:
            raise _MismatchError
        return None
    return _convert_single(value, kind)


def _convert_to_one(value: Any, hints: Sequence[Any]) -> Any:  # noqa: ANN401 - any value of any type
    for hint in hints:
        try:
            return _convert(value, hint)
        except _MismatchError:
            continue
    raise _MismatchError


def _convert_single(value: Any, kind: Any) -> Any:  # noqa: ANN401 - any value of any type
    if kind is bool:
        if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):  # NumPy's, by either name
            raise _MismatchError
        return bool(value)
    if kind is int or kind is float:
        number: Any = value  # numbers.Real promises no float(), though every such class has it
        if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
            raise _MismatchError
        try:
            return kind(number)
        except OverflowError as exc:
            raise _MismatchError("too large") from exc
    if kind is Path:
        if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
            raise _MismatchError
        return _convert_path(Path(value))
    # Protocols that are not for isinstance, and arrays of any kind, are the function's to check.
    is_class = isinstance(kind, type) and not getattr(kind, "_is_protocol", False)
    if is_class and not isinstance(value, kind):
        raise _MismatchError
    return value


def _convert_path(path: Path) -> Path:
    try:
        lengths = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError as exc:
        raise _MismatchError("no file can have this name") from exc
    if "\0" in str(path) or max(lengths, default=0) > _MAX_NAME_BYTES:
        raise _MismatchError(f"no file can have this name: {str(path)!r}")
    return path


def _convert_tuple(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ANN401 - any value
    if not isinstance(value, (tuple, list)):
        raise _MismatchError
    each = hints[:1] * len(value) if hints[1:] == (...,) else hints
    if len(value) != len(each):
        raise _MismatchError(f"{len(value)} instead of {len(each)} entries")
    return tuple(_convert(entry, hint) for entry, hint in zip(value, each, strict=True))


def _convert_collection(value: Any, origin: type, hints: tuple[Any, ...]) -> Any:  # noqa: ANN401 - any value
    """Check a sequence or a collection, and its entries where they are names or numbers."""
    # A string is a sequence of its letters, and an image one of its rows.
    axes = getattr(value, "ndim", None)
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or (isinstance(axes, int) and axes < 4):
        raise _MismatchError
    is_sequence = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    if not is_sequence and (origin is Sequence or not isinstance(value, origin)):
        raise _MismatchError
    if origin is Iterable:
        return value  # it may come bit by bit
    if any(typing.get_origin(kind) is not None for kind in _plain(hints)):
        return value  # images and the like are checked when they are read, one at a time
    return tuple(_convert(entry, hints[0]) for entry in value)


def _plain(hints: Sequence[Any]) -> list[Any]:
    """The members of unions."""
    return [part for hint in hints for part in (typing.get_args(hint) or (hint,))]
