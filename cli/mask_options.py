"""Options of the verbs that read masks, and how their text becomes rules."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ..runtime.mask_rules import DEFAULT_PATTERN, MaskKey, MaskRules

_MAPPING = re.compile(r"(?:(\d+)|(\d+),(\d+),(\d+))=(\d+|void)")

IgnoreOption = Annotated[
    list[int] | None,
    typer.Option(min=0, max=65535, metavar="ID", help="An id of masks that is void, besides the bundle's own."),
]
MaskPatternOption = Annotated[
    str,
    typer.Option(
        metavar="PATTERN", help="Names of the masks; * is what mask and picture share, e.g. '*_gtFine_labelIds.png'."
    ),
]
MaskMapOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE=ID",
        help="What a pixel value or a colour R,G,B of masks is: a class id or void, e.g. 255=1; may be repeated.",
    ),
]
OneBasedOption = Annotated[bool, typer.Option("--mask-one-based", help="Masks count classes from 1, and 0 is void.")]


def chosen_rules(pattern: str, mapping: list[str] | None, *, one_based: bool) -> MaskRules:
    """The rules that --mask-pattern, --mask-map and --mask-one-based make.

    Raises:
        EvaluationError: the pattern has no `*`, or a number is too large.
    """
    found: dict[MaskKey, int | None] = {}
    for text in mapping or ():
        match = _MAPPING.fullmatch(text.replace(" ", ""))
        if match is None:
            raise typer.BadParameter(
                f"{text!r} maps nothing; expected VALUE=ID, R,G,B=ID or VALUE=void, e.g. --mask-map 255=1"
            )
        value, red, green, blue, target = match.groups()
        key: MaskKey = int(value) if value else (int(red), int(green), int(blue))
        if key in found:
            raise typer.BadParameter(f"--mask-map maps {text.partition('=')[0]} twice")
        found[key] = None if target == "void" else int(target)
    return MaskRules(pattern=pattern or DEFAULT_PATTERN, mapping=found, one_based=one_based)
