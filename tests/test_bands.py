"""What a manifest says of bands."""

from __future__ import annotations

import dataclasses
import json

import pytest
from band_bundles import ALL, FLOATS, GREY16, INFRARED, RGBN

from atrous.bands import Bands
from atrous.errors import BundleError, ExportError
from atrous.exporter.read_bands import parse_bands, read_bands
from atrous.manifest import InputSpec, Manifest, OutputSpec, SizePolicy

SIZE = SizePolicy((8, 8), (8, 8), (8, 8), 8)


def manifest(inputs: InputSpec) -> Manifest:
    return Manifest("m", "atrous", (), inputs, OutputSpec(8))


def as_text(inputs: InputSpec) -> str:
    data = json.loads(manifest(inputs).to_json())
    data["classes"] = [{"id": index, "name": str(index), "color": [0, 0, index]} for index in range(2)]
    return json.dumps(data)


def spec(bands: Bands) -> InputSpec:
    count = len(bands.names)
    return InputSpec(SIZE, mean=(0.5,) * count, std=(2.0,) * count, scale=1.0, pad_value=(1.5,) * count, bands=bands)


@pytest.mark.parametrize("bands", [*ALL.values(), INFRARED], ids=str)
def test_a_manifest_gives_back_its_bands(bands: Bands) -> None:
    assert Manifest.from_json(as_text(spec(bands))).input == spec(bands)


def test_a_manifest_of_rgb_is_what_it_was() -> None:
    stored = json.loads(as_text(InputSpec(SIZE)))["input"]
    assert stored.keys() == {"size", "color_order", "mean", "std", "scale", "resize", "pad_value"}
    assert (stored["mean"], stored["pad_value"]) == ([0.485, 0.456, 0.406], [124, 116, 104])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color_order": "BGR"}, "color_order"),
        ({"mean": [0.5] * 3}, "4 channels"),
        ({"pad_value": [0.5] * 33}, "pad_value"),
        ({"bands": {"names": ["x"]}}, "bands"),
    ],
)
def test_a_manifest_that_contradicts_its_bands_is_refused(change: dict[str, object], said: str) -> None:
    data = json.loads(as_text(spec(RGBN)))
    data["input"] |= change
    with pytest.raises(BundleError, match=said):
        Manifest.from_json(json.dumps(data))


def test_four_means_without_bands_are_refused() -> None:
    data = json.loads(as_text(spec(RGBN)))
    del data["input"]["bands"]
    with pytest.raises(BundleError, match="input/"):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("a", "a", "b", "c")}, "name of its own"),
        ({"names": ("a", "", "b", "c")}, "name of its own"),
        ({"names": ()}, "1 to 32 bands; got 0"),
        ({"names": tuple(map(str, range(33)))}, "1 to 32 bands; got 33"),
        ({"ranges": ((0, 1),) * 3}, "each of 4 bands"),
        ({"ranges": ((1, 1),) * 4}, "each of 4 bands"),
        ({"ranges": ((0, float("nan")),) * 4}, "finite"),
        ({"ranges": ((0, 256),) * 4}, "uint8 holds 0 to 255"),
        ({"colors": (0, 0)}, "one to three different"),
        ({"colors": (4,)}, "from 0 to 3"),
        ({"crf_weights": (1.0, 1.0)}, "weight above 0"),
        ({"crf_weights": (1.0, 0.0, 1.0)}, "weight above 0"),
    ],
)
def test_what_bands_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        dataclasses.replace(RGBN, **change)


def test_defaults() -> None:
    assert (RGBN.colors, RGBN.crf_weights, RGBN.ranges) == ((0, 1, 2), (1.0,) * 3, ((0.0, 255.0),) * 4)
    assert (GREY16.colors, FLOATS.colors, Bands.of(2).names) == ((0,), (0,), ("band 1", "band 2"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", Bands.of(4)),
        ("red, green,blue,near infrared", RGBN),
        ("1:uint16", Bands.of(1, "uint16")),
        ("grey:uint16:0..4095", GREY16),
        ("vv,vh:float32:-30..1e1", Bands.of(("vv", "vh"), "float32", ranges=((-30, 10),))),
    ],
)
def test_bands_of_a_command_line(text: str, expected: Bands) -> None:
    assert parse_bands(text) == expected


@pytest.mark.parametrize("text", ["", "0", "33", "4:int8", "4:uint8:5", "4:uint8:9..1", "4:uint8:..", "a,,b", ":uint8"])
def test_text_that_is_no_bands(text: str) -> None:
    with pytest.raises(ExportError, match=r"^bands="):
        parse_bands(text)


def test_bands_of_a_file(tmp_path) -> None:
    file = tmp_path / "bands.json"
    file.write_text(json.dumps({"names": RGBN.names, "colors": [3, 0, 1], "crf_weights": [1, 0.5, 0.25]}))
    assert read_bands(file) == INFRARED
    for wrong in ("[", "[]", '{"names": 4, "more": 1}', '{"names": 4, "colors": [9]}', '{"dtype": "uint8"}'):
        file.write_text(wrong)
        with pytest.raises(ExportError, match=r"cannot read bands from .*bands\.json"):
            read_bands(file)
