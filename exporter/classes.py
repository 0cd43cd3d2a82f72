"""Names and colours of a model's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arrays import MAX_CLASSES
from ..errors import ExportError
from ..manifest import ClassInfo


def describe_classes(classes: Sequence[str | ClassInfo]) -> tuple[ClassInfo, ...]:
    """Convert class names, in the order of the logits, to manifest entries; default colours are PASCAL VOC's.

    Raises:
        ExportError: there are no classes, or more than uint8 labels can hold.
    """
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise ExportError(f"a bundle has 1 to {MAX_CLASSES} classes; got {len(classes)}")
    return tuple(
        entry if isinstance(entry, ClassInfo) else ClassInfo(index, entry, voc_color(index))
        for index, entry in enumerate(classes)
    )


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read classes from a file: JSON `[{"name": …, "color": [r, g, b]}, …]`, or text with one name a line.

    Raises:
        ExportError: the file is missing, or has neither format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ExportError(f"cannot read classes from {path}: {exc}") from exc
    if path.suffix.lower() != ".json":
        return describe_classes([line.strip() for line in text.splitlines() if line.strip()])
    try:
        return describe_classes([_class_from_json(index, entry) for index, entry in enumerate(json.loads(text))])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ExportError(
            f'{path} does not list classes: {exc!r}. Expected [{{"name": "road", "color": [128, 64, 128]}}, …]'
        ) from exc


def voc_color(index: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour of class `index`: its bits are spread over the high bits of red, green and blue."""
    red, green, blue = (
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _class_from_json(index: int, entry: Any) -> ClassInfo:  # noqa: ANN401 - JSON
    red, green, blue = entry.get("color", voc_color(index))
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"color {entry['color']} is not three whole numbers from 0 to 255")
    return ClassInfo(index, str(entry["name"]), (red, green, blue))
