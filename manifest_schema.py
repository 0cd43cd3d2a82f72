"""Text of a `manifest.json` that is valid, as JSON, by the JSON Schema beside this file."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from .errors import BundleError

SCHEMA_VERSION: Final = "1.1"


def validated(text: str) -> dict[str, Any]:
    """Parse and validate the text of a `manifest.json`.

    Raises:
        BundleError: not JSON, another major version, or a violation of the schema (with its location).
    """
    try:
        data: dict[str, Any] = json.loads(text, parse_float=_parse_number, parse_constant=_parse_number)
    except (ValueError, RecursionError) as exc:
        raise BundleError(f"manifest.json is not valid JSON: {exc}. The bundle is damaged: export it again.") from exc
    _check_version(data)
    _check_schema(data)
    return data


@functools.cache
def load_schema() -> dict[str, Any]:
    """The JSON Schema of `manifest.json`."""
    schema: dict[str, Any] = json.loads(
        resources.files(__package__).joinpath("manifest.schema.json").read_text(encoding="utf-8")
    )
    return schema


def _parse_number(text: str) -> float:
    # 16.0 is an integer to JSON Schema, so it must be one here; NaN, Infinity and 1e999 are no JSON numbers.
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return int(value) if value.is_integer() else value


def _check_version(data: Any) -> None:  # noqa: ANN401 - JSON
    # Before the schema, so that a future manifest is reported as such and not as unknown fields.
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise BundleError(
            f"manifest.json has no schema_version; expected {SCHEMA_VERSION!r}. Is this an atrous bundle?"
        )
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise BundleError(
            f"manifest.json has schema_version {version!r}; this atrous reads {SCHEMA_VERSION.partition('.')[0]}.x. "
            "Upgrade atrous, or export the model again with this one."
        )


def _check_schema(data: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(load_schema()).iter_errors(data))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise BundleError(
            f"manifest.json (schema {data['schema_version']}, this atrous knows {SCHEMA_VERSION}) does not follow its "
            f"schema at {place}: {error.message}"
        )
