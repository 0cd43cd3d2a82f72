"""Activation ranges as a JSON file: readable, diffable, and bound to one model, image set and method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from ..errors import CalibrationError
from .options import Method

VERSION: Final = 1
_KEYS: Final = frozenset({"version", "model_sha256", "data_sha256", "method", "images", "tensors"})


@dataclass(frozen=True)
class Range:
    """Observed range of one activation.

    Attributes:
        amax: magnitude that maps to 127; 0 if all values are 0.
        max_abs: largest magnitude observed.
    """

    amax: float
    max_abs: float


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration, and hashes of its inputs.

    Attributes:
        model_sha256: hex SHA-256 of the FP32 graph's file.
        data_sha256: hash of the images and their preprocessing, `CalibrationImages.data_sha256`.
        method: method that chose the thresholds.
        images: number of images observed.
        ranges: tensor → its range.
    """

    model_sha256: str
    data_sha256: str
    method: Method
    images: int
    ranges: Mapping[str, Range]

    @property
    def amax(self) -> dict[str, float]:
        """Tensor → threshold."""
        return {name: each.amax for name, each in self.ranges.items()}

    def to_json(self) -> str:
        """One line for each tensor, sorted by name, so that two calibrations can be compared with `diff`."""
        head = {
            "version": VERSION,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "method": self.method,
            "images": self.images,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        tensors = [
            f'    {json.dumps(name)}: {{"amax": {each.amax!r}, "max_abs": {each.max_abs!r}}}'
            for name, each in sorted(self.ranges.items())
        ]
        return "\n".join(["{", *lines, '  "tensors": {', ",\n".join(tensors), "  }", "}", ""])

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Parse the text that `to_json` wrote.

        Raises:
            CalibrationError: not JSON, of another version, or with fields that are missing, unknown or wrong.
        """
        try:
            fields = json.loads(text)
        except ValueError as exc:
            raise CalibrationError(f"not JSON: {exc}") from exc
        if not isinstance(fields, dict) or fields.get("version") != VERSION:
            version = fields.get("version") if isinstance(fields, dict) else None
            raise CalibrationError(f"expected calibration version {VERSION}, got {version!r}")
        if fields.keys() != _KEYS:
            odd = ", ".join(sorted(fields.keys() ^ _KEYS))
            raise CalibrationError(f"expected exactly the fields {', '.join(sorted(_KEYS))}; missing or unknown: {odd}")
        method, images = fields["method"], fields["images"]
        _expect(isinstance(fields["tensors"], dict), "tensors", "an object of tensors", fields["tensors"])
        for key in ("model_sha256", "data_sha256"):
            _expect(_is_sha256(fields[key]), key, "64 lower-case hex digits", fields[key])
        _expect(
            fields["method"] in get_args(Method), "method", f"one of {', '.join(get_args(Method))}", fields["method"]
        )
        _expect(
            type(fields["images"]) is int and fields["images"] > 0, "images", "a positive integer", fields["images"]
        )
        ranges = {name: _range(name, each) for name, each in fields["tensors"].items()}
        return cls(fields["model_sha256"], fields["data_sha256"], method, images, ranges)


def load_calibration(path: Path, *, model_sha256: str, data_sha256: str, method: Method) -> Calibration:
    """Read a calibration file and check that it belongs to this model, these images and this method.

    Raises:
        CalibrationError: the file cannot be read, is malformed, or does not match; the message says what differs.
    """
    try:
        calibration = Calibration.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise CalibrationError(f"cannot read the calibration {path}: {reason}") from exc
    except CalibrationError as exc:
        raise CalibrationError(f"invalid calibration file {path}: {exc}. Delete it to calibrate again.") from exc
    wanted = {
        "model_sha256": (calibration.model_sha256, model_sha256),
        "data_sha256 (images or preprocessing)": (calibration.data_sha256, data_sha256),
        "method": (calibration.method, method),
    }
    differing = [f"{what} is {has}, expected {needs}" for what, (has, needs) in wanted.items() if has != needs]
    if differing:
        raise CalibrationError(
            f"{path} does not match this quantization: {'; '.join(differing)}. Delete it to calibrate again."
        )
    return calibration


def _range(name: str, fields: Any) -> Range:  # noqa: ANN401 - parsed JSON
    _expect(
        isinstance(fields, dict)
        and fields.keys() == {"amax", "max_abs"}
        and all(type(value) in (int, float) for value in fields.values())
        and 0 <= fields["amax"] <= fields["max_abs"]
        and math.isfinite(fields["max_abs"]),
        name,
        "numbers 0 <= amax <= max_abs",
        fields,
    )
    return Range(float(fields["amax"]), float(fields["max_abs"]))


def _is_sha256(value: Any) -> bool:  # noqa: ANN401 - parsed JSON
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _expect(fulfilled: bool, field: str, expected: str, got: Any) -> None:  # noqa: ANN401 - parsed JSON
    if not fulfilled:
        raise CalibrationError(f"{field!r} must be {expected}; got {got!r}")
