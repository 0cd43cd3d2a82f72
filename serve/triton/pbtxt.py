"""Text of protocol buffers, as far as a model's configuration needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union

Value: TypeAlias = Union[bool, int, str, "Word", "Message", Sequence["Value"]]
#: Fields of a message by name; a sequence is a repeated field.
Message: TypeAlias = Mapping[str, Value]


class Word(str):
    """A value of an enumeration, which stands without quotes."""

    __slots__ = ()


def pbtxt(message: Message) -> str:
    """Text of a message, a line a field, with nested messages indented."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value)
        elif isinstance(value, str) or not isinstance(value, Sequence):
            yield f"{name}: {_scalar(value)}"
        elif any(isinstance(each, Mapping) for each in value):
            for each in value:
                yield from _lines({name: each})
        else:
            yield f"{name}: [{', '.join(map(_scalar, value))}]"


def _block(name: str, message: Message) -> Iterator[str]:
    yield f"{name} {{"
    for line in _lines(message):
        yield f"  {line}"
    yield "}"


def _scalar(value: object) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # Strings of JSON are strings here: their escapes mean the same, with what is not ASCII written as it is.
    return json.dumps(value, ensure_ascii=False)
