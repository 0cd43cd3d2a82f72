"""Tensors of the Open Inference Protocol: their types, and their values in JSON or in bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .refusals import bad_request

#: Types of the protocol that a request may have, by NumPy's names.
DATATYPES: Final = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}
BYTES: Final = "BYTES"
_DTYPES: Final = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}
_LENGTH_BYTES: Final = 4
#: Values that are turned into JSON without a pause for other threads.
_JSON_RUN: Final = 1 << 15


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a request.

    Attributes:
        values: an array of the shape, or of BYTES the one string.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | bytes


@dataclass(frozen=True)
class TensorHeader:
    """A tensor of a request without its values."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def from_bytes(self, data: memoryview) -> Tensor:
        """The tensor whose values are in `data`, little-endian in row-major order.

        Raises:
            RefusedError: the data has another size than the shape says.
        """
        if self.datatype == BYTES:
            return self._tensor(self._string(data))
        expected = math.prod(self.shape) * self._dtype.itemsize
        if len(data) != expected:
            raise bad_request(
                f"input {self.name!r} of {self.datatype} {list(self.shape)} has {expected} bytes; its "
                f"binary_data_size is {len(data)}"
            )
        return self._tensor(np.frombuffer(data, self._dtype).reshape(self.shape))

    def from_json(self, data: object) -> Tensor:
        """The tensor whose values are a list in JSON, nested as the shape or flat.

        Raises:
            RefusedError: it is no such list, or its values are not of the type.
        """
        if self.datatype == BYTES:
            raise bad_request(f"input {self.name!r}: bytes are no text; send them as binary data")
        values = _numbers(self.name, data)
        if values.size != math.prod(self.shape) or values.shape not in ((values.size,), self.shape):
            raise bad_request(
                f"input {self.name!r} has data of shape {list(values.shape)}; expected {list(self.shape)}, or flat"
            )
        if self._dtype.kind == "u":
            maximum = np.iinfo(self._dtype).max
            if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() <= maximum):
                raise bad_request(f"input {self.name!r} of {self.datatype} takes whole numbers from 0 to {maximum}")
        return self._tensor(values.astype(self._dtype).reshape(self.shape))

    @property
    def _dtype(self) -> np.dtype[Any]:
        if self.datatype not in _DTYPES:
            raise bad_request(
                f"input {self.name!r} has datatype {self.datatype!r}; expected one of {', '.join([*_DTYPES, BYTES])}"
            )
        dtype: np.dtype[Any] = _DTYPES[self.datatype]
        return dtype

    def _tensor(self, values: NDArray[Any] | bytes) -> Tensor:
        return Tensor(self.name, self.datatype, self.shape, values)

    def _string(self, data: memoryview) -> bytes:
        """The one element of a BYTES tensor: its length in 4 bytes, and so many bytes."""
        if math.prod(self.shape) != 1:
            raise bad_request(f"input {self.name!r} of BYTES has shape {list(self.shape)}; expected [1]")
        length = struct.unpack_from("<I", data)[0] if len(data) >= _LENGTH_BYTES else -1
        if length != len(data) - _LENGTH_BYTES:
            raise bad_request(
                f"input {self.name!r} of BYTES has {len(data)} bytes; expected 4 that say how many follow, and those"
            )
        return bytes(data[_LENGTH_BYTES:])


def _numbers(name: str, data: object) -> NDArray[Any]:
    """An array of a list in JSON."""
    if not isinstance(data, list):
        raise bad_request(f"input {name!r} has no data: expected a list of numbers, or binary_data_size")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as exc:
        raise bad_request(f"input {name!r} has data that is no tensor: {exc}") from exc
    if values.size and values.dtype.kind not in "iuf":
        raise bad_request(f"input {name!r} has data that is not all numbers, or rows of different lengths")
    return values


def json_list(values: NDArray[Any]) -> bytes:
    """The values as a flat list in JSON, in runs between which other threads get their turn."""
    flat = values.reshape(-1)
    runs = (json.dumps(flat[start : start + _JSON_RUN].tolist())[1:-1] for start in range(0, flat.size, _JSON_RUN))
    return f"[{', '.join(runs)}]".encode()


def raw_bytes(values: NDArray[Any]) -> memoryview:
    """The values as the protocol has them in bytes: little-endian, in row-major order."""
    ordered = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return ordered.data.cast("B")


def shape_of(value: object, name: str) -> tuple[int, ...]:
    """A shape in JSON; raises `RefusedError` where it is none."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and 1 <= len(value) <= 8
    if not is_list or not all(type(each) is int and 0 <= each < 1 << 31 for each in value):  # type: ignore[attr-defined]
        raise bad_request(f"input {name!r} has no shape: expected a list of sizes such as [368, 480, 3]")
    return tuple(value)  # type: ignore[arg-type]
