"""Requests and answers of an inference in the Open Inference Protocol v2, with the extension of binary tensor data.

Specification: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`; Triton Inference Server,
`docs/protocol/extension_binary_data.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from .refusals import RefusedError, bad_request
from .tensors import DATATYPES, Tensor, TensorHeader, json_list, raw_bytes, shape_of

#: Says where in a body the JSON ends and the bytes begin.
HEADER_LENGTH: Final = "Inference-Header-Content-Length"

_BINARY_SIZE: Final = "binary_data_size"
_MOST_TENSORS: Final = 16
_MOST_ID: Final = 256
_DIGITS: Final = re.compile(r"\d{1,15}")


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a client asks for, in bytes or in JSON."""

    name: str
    binary: bool


@dataclass(frozen=True, eq=False)
class InferRequest:
    """A request to infer.

    Attributes:
        id: the client's own name for it; empty where there is none.
        inputs: by their names.
        outputs: those that are asked for; empty where the request leaves that to the server.
        binary: whether outputs are to be bytes where none are asked for.
        parameters: of the request.
    """

    id: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[RequestedOutput, ...]
    binary: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class InferAnswer:
    """An answer: `outputs` have names, arrays, and whether these go as bytes."""

    model: str
    version: str
    id: str
    outputs: Sequence[tuple[str, NDArray[Any], bool]]


def json_length(header: str | None, body_length: int, most: int) -> int:
    """Length of the JSON in a body, by the header `Inference-Header-Content-Length` where there is one.

    Raises:
        RefusedError: the header is no number or more than the body has, or the JSON is too long.
    """
    length = body_length
    if header is not None:
        if not _DIGITS.fullmatch(header) or int(header) > body_length:
            raise bad_request(f"{HEADER_LENGTH} is {header[:40]!r}; expected 0 to {body_length}, the bytes of the body")
        length = int(header)
    if length > most:
        raise RefusedError(
            413, f"the request has {length} bytes of JSON, of at most {most}; send tensors as binary data"
        )
    return length


def parse_request(body: bytes, length: int) -> InferRequest:
    """Parse a body whose first `length` bytes are JSON.

    Raises:
        RefusedError: it is not a request of the protocol.
    """
    request = parse_object(body[:length])
    parameters = _mapping(request.get("parameters", {}), "parameters")
    data = memoryview(body)[length:]
    inputs: dict[str, Tensor] = {}
    for entry in _entries(request.get("inputs"), "inputs"):
        tensor, data = _parse_input(entry, data)
        if tensor.name in inputs:
            raise bad_request(f"input {tensor.name!r} is there twice")
        inputs[tensor.name] = tensor
    if len(data):
        raise bad_request(f"the body has {len(data)} bytes that belong to no input")
    return InferRequest(
        id=_text(request.get("id", ""), "id"),
        inputs=inputs,
        outputs=tuple(_parse_output(each, parameters) for each in _entries(request.get("outputs", []), "outputs")),
        binary=_flag(parameters.get("binary_data_output", False), "binary_data_output"),
        parameters=parameters,
    )


def parse_object(text: bytes) -> Mapping[str, Any]:
    """An object in JSON; raises `RefusedError` for anything else."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise bad_request(f"the body is not JSON: {exc}") from exc
    return _mapping(value, "the body")


def encode_answer(answer: InferAnswer) -> tuple[bytes, int | None]:
    """The body, and the length of the JSON in it where bytes follow."""
    outputs, parts = [], []
    for name, values, binary in answer.outputs:
        head = {"name": name, "datatype": DATATYPES[values.dtype.name], "shape": list(values.shape)}
        if binary:
            parts.append(raw_bytes(values))
            outputs.append(json.dumps({**head, "parameters": {_BINARY_SIZE: len(parts[-1])}}).encode())
        else:
            outputs.append(json.dumps(head).encode()[:-1] + b', "data": ' + json_list(values) + b"}")
    about = {"model_name": answer.model, "model_version": answer.version} | ({"id": answer.id} if answer.id else {})
    text = json.dumps(about).encode()[:-1] + b', "outputs": [' + b", ".join(outputs) + b"]}"
    return b"".join([text, *parts]), len(text) if parts else None


def _parse_input(entry: Mapping[str, Any], data: memoryview) -> tuple[Tensor, memoryview]:
    """A tensor, and the bytes behind its own."""
    name = _text(entry.get("name"), "the name of an input")
    parameters = _mapping(entry.get("parameters", {}), f"the parameters of input {name!r}")
    header = TensorHeader(
        name, _text(entry.get("datatype"), f"datatype of {name!r}"), shape_of(entry.get("shape"), name)
    )
    if any(key.startswith("shared_memory") for key in parameters):
        raise bad_request(f"input {name!r} is in shared memory, which this server does not read; send its bytes")
    size = parameters.get(_BINARY_SIZE)
    if size is None:
        return header.from_json(entry.get("data")), data
    if type(size) is not int or not 0 <= size <= len(data):
        raise bad_request(f"input {name!r} has {_BINARY_SIZE} {size!r}; the body has {len(data)} bytes left")
    return header.from_bytes(data[:size]), data[size:]


def _parse_output(entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> RequestedOutput:
    name = _text(entry.get("name"), "the name of an output")
    own = _mapping(entry.get("parameters", {}), f"the parameters of output {name!r}")
    if own.get("classification"):
        raise bad_request(f"output {name!r}: this server has no classification; ask for LABELS")
    if any(key.startswith("shared_memory") for key in own):
        raise bad_request(f"output {name!r} is to go to shared memory, which this server does not write")
    default = parameters.get("binary_data_output", False)
    return RequestedOutput(name, _flag(own.get("binary_data", default), "binary_data"))


def _entries(value: object, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > _MOST_TENSORS:
        raise bad_request(f"{name} must be a list of at most {_MOST_TENSORS} objects")
    return [_mapping(each, f"each of {name}") for each in value]


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{name} must be an object in JSON")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > _MOST_ID:
        raise bad_request(f"{name} must be a string of at most {_MOST_ID} characters")
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false; got {str(value)[:40]!r}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
