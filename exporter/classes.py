"""Names and colours of a model's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..arguments import check_arguments
from ..arrays import MAX_CLASSES
from ..errors import ExportError
from ..manifest import ClassInfo

_EXPECTED: Final = '[{"name": "road", "color": [128, 64, 128]}, …], ["road", …] or {"id2label": {"0": "road", …}}'
#: Formats of class lists that are refused by name: their first column may be an id, a name or a colour.
_OTHER_FORMATS: Final = {
    ".csv": "a CSV table",
    ".tsv": "a table",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".toml": "TOML",
    ".xml": "XML",
}


def describe_classes(classes: Sequence[str | ClassInfo]) -> tuple[ClassInfo, ...]:
    """Convert class names, in the order of the logits, to manifest entries; default colours are PASCAL VOC's.

    Raises:
        ExportError: there are no classes, or more than labels of 16 bits can hold.
    """
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise ExportError(f"a bundle has 1 to {MAX_CLASSES} classes; got {len(classes)}")
    return tuple(
        _plain(entry) if isinstance(entry, ClassInfo) else ClassInfo(index, entry, voc_color(index))
        for index, entry in enumerate(classes)
    )


def _plain(entry: ClassInfo) -> ClassInfo:
    """The same with numbers of Python in place of NumPy's, which JSON does not take."""
    red, green, blue = map(int, entry.color)
    return ClassInfo(int(entry.id), entry.name, (red, green, blue))


@check_arguments
def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read classes from a file: JSON, or text with one name a line.

    JSON is `[{"name": …, "color": [r, g, b]}, …]`, a list of names, or an object with Hugging Face's `id2label`, which
    a model's config.json has. In text, lines that begin with `#` are comments.

    Raises:
        ExportError: the file is missing, or of another format.
    """
    suffix = path.suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise ExportError(
            f"{path} is {_OTHER_FORMATS[suffix]}, which has no agreed columns or keys. Write the names of "
            f"the classes into a text file, one a line in the order of their ids, or as JSON: {_EXPECTED}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ExportError(f"cannot read classes from {path}: {exc}") from exc
    if suffix != ".json":
        lines = (line.strip() for line in text.splitlines())
        return describe_classes([line for line in lines if line and not line.startswith("#")])
    try:
        return describe_classes([_class_from_json(index, entry) for index, entry in enumerate(_entries(text))])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ExportError(f"{path} does not list classes: {exc!r}. Expected {_EXPECTED}") from exc


def voc_color(index: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour of class `index`: its bits are spread over the high bits of red, green and blue."""
    red, green, blue = (
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _entries(text: str) -> list[Any]:
    """Entries of the classes in JSON, in the order of their ids."""
    value = json.loads(text)
    if isinstance(value, dict) and "id2label" in value:
        names = {int(key): name for key, name in value["id2label"].items()}
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"the ids of id2label are {sorted(names)}, not 0 to {len(names) - 1}")
        value = [names[index] for index in range(len(names))]
    if not isinstance(value, list):
        raise TypeError("it is no list, and has no id2label")
    return value


def _class_from_json(index: int, entry: Any) -> ClassInfo:  # noqa: ANN401 - JSON
    if isinstance(entry, str):
        return ClassInfo(index, entry, voc_color(index))
    red, green, blue = entry.get("color", voc_color(index))
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"color {entry['color']} is not three whole numbers from 0 to 255")
    return ClassInfo(index, str(entry["name"]), (red, green, blue))
