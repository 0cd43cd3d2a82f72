"""Finds the functions of C++ and CUDA sources that have a body: enough of a reader for clang-formatted code.

Bodies of macros are not read, nor lambdas: those count as lines of the function that they stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: What looks like a call or a declaration and is none.
_KEYWORDS = frozenset(
    {
        "alignas",
        "catch",
        "constexpr",
        "decltype",
        "defined",
        "for",
        "if",
        "noexcept",
        "return",
        "sizeof",
        "static_assert",
        "switch",
    }
    | {"while"}
)
_COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_RAW_STRINGS = re.compile(r'R"(\w*)\(.*?\)\1"', re.DOTALL)
_STRINGS = re.compile(r'"(?:\\.|[^"\\\n])*"')
_CHARACTERS = re.compile(r"(?<!\d)'(?:\\.|[^'\\\n])+'")  # not the separator in 1'000
_DIRECTIVES = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
_NAMES = re.compile(r"(~?[A-Za-z_][\w:~]*)\s*\(")
_MEMBER = r"[\w:<>]+\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\{[^{}]*\})"
#: From the closing parenthesis of the arguments to the brace that opens the body.
_TO_BODY = re.compile(
    r"\s*(?:const\b|noexcept\b|override\b|final\b|mutable\b|&&?|\s)*(?:->\s*[\w:<>,*&\s]+?)?"
    rf"(?::\s*{_MEMBER}(?:\s*,\s*{_MEMBER})*)?\s*\{{"
)


@dataclass(frozen=True)
class Function:
    """A function as it is written.

    Attributes:
        line: of its name.
        arguments: number of them.
        lines: from its name to the end of its body.
    """

    name: str
    line: int
    arguments: int
    lines: int


def functions(text: str) -> Iterator[Function]:
    """Every function with a body."""
    code = _blanked(text)
    opened = 0  # members that a constructor sets are none: they stand between its arguments and its body
    for match in _NAMES.finditer(code):
        if match[1] in _KEYWORDS or match.start() < opened:
            continue
        end, arguments = _read_arguments(code, match.end())
        body = _TO_BODY.match(code, end)
        if body is None:
            continue
        opened = body.end()
        first = code.count("\n", 0, match.start())
        last = code.count("\n", 0, _end_of_block(code, body.end()))
        yield Function(match[1], first + 1, arguments, last - first + 1)


def _blanked(text: str) -> str:
    """Without comments, strings and directives, and with every line where it was."""
    for pattern in (_RAW_STRINGS, _COMMENTS, _STRINGS, _CHARACTERS, _DIRECTIVES):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    return text


def _read_arguments(code: str, start: int) -> tuple[int, int]:
    """Where the parenthesis that was opened before `start` ends, and how many arguments are in it."""
    depth, angles, position, commas = 1, 0, start, 0
    while position < len(code) and depth:
        character = code[position]
        depth += (character in "([{") - (character in ")]}")
        if depth == 1:
            angles += (character == "<") - (character == ">")
            commas += character == "," and angles == 0
        position += 1
    inside = code[start : position - 1].strip()
    return position, 0 if inside in ("", "void") else commas + 1


def _end_of_block(code: str, start: int) -> int:
    depth, position = 1, start
    while position < len(code) and depth:
        depth += (code[position] == "{") - (code[position] == "}")
        position += 1
    return position
