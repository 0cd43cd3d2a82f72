"""A pickle module that runs nothing of a file: for `torch.load(..., pickle_module=inert_pickle)`.

A pickle names functions and calls them. Here a name stands for a function only if it is one of the few in `_KNOWN`,
which rebuild tensors and arrays; every other name stands for a class of our own that does nothing and keeps what it is
given. So the weights of a training script's file can be read beside its `argparse.Namespace` or a whole module.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

_DTYPES: Final = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}


class Inert:
    """Stands for an object of a class or function that is not known; keeps its content, and does nothing.

    Attributes:
        kind: name of the class or function in the file.
        state: attributes of the object.
        entries: items, if it is a mapping.
    """

    kind = "object"
    state: dict[object, object]
    entries: dict[object, object]

    def __new__(cls, *_args: object, **_kwargs: object) -> Inert:  # noqa: PYI034 - typing.Self is of Python 3.11
        """Make an object without content, whatever the arguments."""
        made = super().__new__(cls)
        made.state, made.entries = {}, {}
        return made

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        """Take the arguments, and leave them."""

    def __setstate__(self, state: object) -> None:
        attributes = state[0] if isinstance(state, tuple) and len(state) == 2 else state  # with slots: two mappings
        if isinstance(attributes, dict):
            self.state = attributes

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __call__(self, *_args: object, **_kwargs: object) -> Inert:
        """Stand for the result of a function that is not called."""
        return self

    def append(self, _item: object) -> None:
        """Take an item of a list's subclass."""

    def extend(self, _items: object) -> None:
        """Take the items of a list's subclass."""

    def add(self, _item: object) -> None:
        """Take an item of a set's subclass."""


class _Call:
    """A function that a pickle may call; without attributes, so that a pickle cannot set any."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: object) -> object:
        """Call the function."""
        return self._function(*args)

    def __setattr__(self, name: str, _value: object) -> None:
        raise pickle.UnpicklingError(f"the file sets the attribute {name!r} of a function")


def _tensor(
    storage: torch.TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_others: object
) -> Tensor:
    """View of a storage; refused where it reaches beyond it, for which torch would make the storage larger."""
    memory = storage._untyped_storage  # noqa: SLF001 - the public name warns
    made = torch.empty(0, dtype=storage.dtype)
    held = memory.nbytes() // made.element_size()
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    # A view with strides of 0 may be larger than its storage; `float()` would then make it as large.
    if min((offset, *size, *stride)) < 0 or (0 not in size and (last >= held or torch.Size(size).numel() > held)):
        raise pickle.UnpicklingError(f"a tensor of {list(size)} does not fit in its {held} values")
    return made.set_(memory, offset, size, stride)


def _parameter(data: Tensor, *_others: object) -> Tensor:
    return data


def _subclass(function: Callable[..., Any], _type: object, args: tuple[object, ...], _state: object) -> object:
    """The plain tensor that a subclass of `Tensor`, or one with attributes of its own, is made of."""
    return function(*args)


def _nested(content: bytes) -> object:
    """A storage that a plain `pickle.dump` wrote: a whole file of torch, in the form before zip, in bytes."""
    if content.startswith(b"PK"):  # torch would take TorchScript in it, which is code
        raise pickle.UnpicklingError("a zip archive where a storage is expected")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False, pickle_module=sys.modules[__name__])


class _Dtype(Inert):
    """A NumPy dtype in the file: its code, and in its state the byte order."""

    def __init__(self, code: object = "", *_others: object) -> None:
        self.code = code
        self.order: object = "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]

    def numbers(self) -> np.dtype[Any] | None:
        """The dtype, if it is one of plain numbers."""
        code, order = self.code, self.order
        if not (isinstance(code, str) and order in ("<", ">", "=", "|") and re.fullmatch(r"[biuf]\d", code)):
            return None
        return np.dtype(f"{order}{code}")


class Array(Inert):
    """A NumPy array in the file."""

    array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, columns_first, content = state
            self.fill(content, dtype, shape, "F" if columns_first else "C")

    def fill(self, content: object, dtype: object, shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
        """Take the numbers; of an array of objects none."""
        numbers = dtype.numbers() if isinstance(dtype, _Dtype) else None
        if numbers is not None and isinstance(content, bytes | bytearray):
            self.array = np.frombuffer(content, numbers).reshape(shape, order=order)


def _from_buffer(content: object, dtype: object, shape: tuple[int, ...], order: Literal["C", "F"]) -> Array:
    made = Array()
    made.fill(content, dtype, shape, order)
    return made


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Call(_subclass),
    ("torch.storage", "_load_from_bytes"): _Call(_nested),
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("_codecs", "encode"): _Call(lambda text, encoding: text.encode("latin1" if encoding == "latin1" else "utf-8")),
}


class Unpickler(pickle.Unpickler):
    """An unpickler that finds `_KNOWN` names, and makes `Inert` ones of all others.

    Raises:
        UnpicklingError: the pickle numbers an object far beyond those that it has, for which Python would make a table.
    """

    def __init__(self, file: IO[bytes], *, encoding: str = "ASCII", **_others: object) -> None:
        _check_numbers(file)
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> object:
        """Find what a name in the file stands for."""
        if module == "torch" and name in _DTYPES:
            return getattr(torch, name)
        known = _KNOWN.get((module, name))
        return type("Inert", (Inert,), {"kind": f"{module}.{name}"}) if known is None else known


def _check_numbers(file: IO[bytes]) -> None:
    """Refuse numbers of objects that are larger than the pickle in bytes; twelve bytes could take all memory."""
    start = file.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged name
            for operation, number, position in pickletools.genops(file):
                if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > (position or 0) - start:
                    raise pickle.UnpicklingError(f"object {number} is numbered where there are not as many")
    except (ValueError, OverflowError):
        pass  # the unpickler says what is wrong
    finally:
        file.seek(start)


def load(file: IO[bytes], *, encoding: str = "ASCII") -> object:
    """Read one pickle; `encoding` is that of the strings of Python 2."""
    return Unpickler(file, encoding=encoding).load()
