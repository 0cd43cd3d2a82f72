from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.calibration.calibration import Calibration, Range, load_calibration
from atrous.errors import CalibrationError

MODEL, DATA, OTHER = "a" * 64, "b" * 64, "c" * 64
CALIBRATION = Calibration(MODEL, DATA, "entropy", 12, {"relu_2": Range(1.5, 2.25), "relu_1": Range(0.1, 0.1)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "calibration.json"
    file.write_text(CALIBRATION.to_json(), encoding="utf-8")
    return file


def test_a_tensor_is_a_line() -> None:
    assert CALIBRATION.to_json() == (
        "{\n"
        '  "version": 1,\n'
        f'  "model_sha256": "{MODEL}",\n'
        f'  "data_sha256": "{DATA}",\n'
        '  "method": "entropy",\n'
        '  "images": 12,\n'
        '  "tensors": {\n'
        '    "relu_1": {"amax": 0.1, "max_abs": 0.1},\n'
        '    "relu_2": {"amax": 1.5, "max_abs": 2.25}\n'
        "  }\n"
        "}\n"
    )


magnitudes = st.floats(0, 3e38)


@given(
    st.dictionaries(st.text(max_size=5), st.tuples(magnitudes, magnitudes).map(sorted).map(lambda each: Range(*each)))
)
def test_nothing_is_lost(ranges: dict[str, Range]) -> None:
    calibration = dataclasses.replace(CALIBRATION, ranges=ranges)
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert calibration.amax == {name: each.amax for name, each in ranges.items()}


def test_the_same_is_reused(path: Path) -> None:
    assert load_calibration(path, model_sha256=MODEL, data_sha256=DATA, method="entropy") == CALIBRATION


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_sha256": OTHER}, rf"model_sha256 is {MODEL}, expected {OTHER}\. Delete it"),
        ({"data_sha256": OTHER}, rf"data_sha256 .* is {DATA}, expected {OTHER}\. Delete it"),
        ({"method": "mse"}, "method is entropy, expected mse"),
        ({"model_sha256": OTHER, "method": "mse"}, "model_sha256 is .*; method is entropy, expected mse"),
    ],
)
def test_another_is_refused(path: Path, changed: dict[str, Any], said: str) -> None:
    wanted = {"model_sha256": MODEL, "data_sha256": DATA, "method": "entropy", **changed}
    with pytest.raises(CalibrationError, match=said):
        load_calibration(path, **wanted)


def setting(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(fields: dict[str, Any]) -> None:
        for key in keys[:-1]:
            fields = fields[key]
        fields[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (setting("version", value=2), "expected calibration version 1, got 2"),
        (lambda fields: fields.pop("images"), "missing or unknown: images"),
        (setting("extra", value=1), "missing or unknown: extra"),
        (setting("model_sha256", value="A" * 64), "'model_sha256' must be 64 lower-case hex digits; got 'AAA"),
        (setting("data_sha256", value=5), "'data_sha256' must be 64 lower-case hex digits; got 5"),
        (setting("method", value="median"), "'method' must be one of minmax, .*; got 'median'"),
        (setting("images", value=0), "'images' must be a positive integer; got 0"),
        (setting("images", value=True), "'images' must be a positive integer; got True"),
        (setting("tensors", value=[]), "'tensors' must be an object"),
        (setting("tensors", "relu_1", value=3.0), "'relu_1' must be numbers 0 <= amax <= max_abs; got 3.0"),
        (setting("tensors", "relu_1", "amax", value="1"), "'relu_1' must be numbers"),
        (setting("tensors", "relu_1", "amax", value=-1), "'relu_1' must be numbers"),
        (setting("tensors", "relu_1", "amax", value=7), "'relu_1' must be numbers"),
        (setting("tensors", "relu_1", "amax", value=float("nan")), "'relu_1' must be numbers"),
        (setting("tensors", "relu_1", "max_abs", value=float("inf")), "'relu_1' must be numbers"),
    ],
)
def test_what_is_malformed_is_named(path: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(CalibrationError, match=rf"invalid calibration file .*calibration.json: .*{said}"):
        load_calibration(path, model_sha256=MODEL, data_sha256=DATA, method="entropy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b'{"version": 1,', "not JSON"),
        (b"[1]", "expected calibration version 1, got None"),
        (b"\xff\xfe", "cannot read the calibration .*: .*utf-8"),
    ],
)
def test_other_files(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=said):
        load_calibration(path, model_sha256=MODEL, data_sha256=DATA, method="entropy")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"cannot read the calibration .*gone\.json: No such file"):
        load_calibration(tmp_path / "gone.json", model_sha256=MODEL, data_sha256=DATA, method="mse")
