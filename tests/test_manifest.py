"""The manifest: what it accepts, what it refuses and where it points, and that the schema and the values agree."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from atrous.errors import BundleError
from atrous.manifest import (
    SOFTMAX,
    Artifact,
    Channels,
    ClassInfo,
    CrfFit,
    EngineIdentity,
    EngineProfile,
    InputSpec,
    Manifest,
    OutputSpec,
    PaddingCost,
    SizePolicy,
    SkippedInput,
    Verification,
)
from atrous.manifest_schema import SCHEMA_VERSION, load_schema


def full_manifest() -> Manifest:
    """Every field set, none at its default."""
    profile = EngineProfile((1, 3, 16, 16), (1, 3, 32, 32), (4, 3, 64, 64))
    identity = EngineIdentity(
        "tensorrt",
        "11.4.0.106",
        "8.9",
        "13",
        "13.0",
        profile,
        hardware_compatibility="ampere+",
        version_compatible=True,
    )
    return Manifest(
        name="straße",
        created_by="atrous 0.1.0",
        classes=(ClassInfo(0, "道路", (128, 64, 128)), ClassInfo(1, "sky", (0, 0, 255))),
        input=InputSpec(
            size=SizePolicy((16, 32), (32, 64), (48, 96), 16),
            color_order="BGR",
            mean=(104.008, 116.669, 122.675),
            std=(1.0, 2.0, 3.5),
            scale=1.0,
            resize="stretch",
            pad_value=(1, 2, 3),
            dynamic_batch=False,
            padding=PaddingCost(0.953, ((33, 47), (35, 61))),
        ),
        output=OutputSpec(stride=16, align_corners=True, channels=Channels("sigmoid", 0.25)),
        artifacts=(
            Artifact("onnx", "fp32", "model.fp32.onnx", "0" * 64, 10, {"opset": 18}),
            Artifact("engine", "fp16", "engines/a.plan", "f" * 64, 11, {}, identity),
        ),
        verification=(
            Verification(
                "model.fp32.onnx",
                "torch",
                1e-6,
                0.9999,
                True,
                ((2, 3, 16, 32),),
                -0.001,
                pictures=("photo",),
                skipped=(SkippedInput((1, 3, 48, 96), "it would take 9 GB of 4 GB"),),
                failed=((2, 3, 16, 32),),
            ),
        ),
        ignore_index=None,
        crf={"bilateral_weight": 4.0, "gaussian_weight": 3.5, "iterations": 7},
        crf_fit=CrfFit("miou", 75, 25, "1" * 64, "2" * 64, 3, 0.5, 0.5, 0.51, 0.52, (-0.01, 0.03)),
        license="CC BY-NC 4.0",
    )


def as_dict() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(full_manifest().to_json())
    return data


def test_text_and_values_round_trip() -> None:
    manifest = full_manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert "道路" in manifest.to_json()
    assert "ignore_index" not in manifest.to_json()


def test_schema_is_a_schema_and_lists_the_fields_of_the_values() -> None:
    schema = load_schema()
    Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    artifact = properties["artifacts"]["items"]["properties"]
    for cls, described in (
        (Manifest, properties),
        (ClassInfo, properties["classes"]["items"]["properties"]),
        (InputSpec, properties["input"]["properties"]),
        (SizePolicy, properties["input"]["properties"]["size"]["properties"]),
        (OutputSpec, properties["output"]["properties"]),
        (Artifact, artifact),
        (EngineIdentity, artifact["engine"]["properties"]),
        (EngineProfile, artifact["engine"]["properties"]["profile"]["properties"]),
        (Verification, properties["verification"]["items"]["properties"]),
        (CrfFit, properties["crf_fit"]["properties"]),
    ):
        assert {field.name for field in dataclasses.fields(cls)} == set(described), cls.__name__


def change(data: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split("/")
    node: Any = data
    for part in parents:
        node = node[int(part) if isinstance(node, list) else part]
    node[int(last) if isinstance(node, list) else last] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("name", ""),
        ("surprise", 1),
        ("classes", []),
        ("classes/1/id", 5),
        ("classes/1/color", [0, 0, 256]),
        ("classes/1/color", [0, 0]),
        ("ignore_index", 65536),
        ("input/color_order", "GBR"),
        ("input/std", [1, 0, 1]),
        ("input/scale", 0),
        ("input/size/min", [0, 32]),
        ("input/size/min", [64, 64]),
        ("input/size/max", [48, 65537]),
        ("input/size/opt", [True, 64]),
        ("input/size/opt", "32x64"),
        ("input/resize", "crop"),
        ("input/size/multiple", 65537),
        ("output/stride", 65537),
        ("output/stride", 16.5),
        ("output/head", "labels"),
        ("artifacts/0/sha256", "0" * 63 + "G"),
        ("artifacts/0/bytes", -1),
        ("artifacts/0/file", ""),
        ("artifacts/0/kind", "engine"),  # without an engine's identity
        ("artifacts/1/kind", "onnx"),  # with one
        ("artifacts/1/engine/profile/min", [1, 3, 16]),
        ("artifacts/1/engine/profile/min", [1, 3, 16, 48]),  # more than opt
        ("artifacts/1/engine/hardware_compatibility", "all"),
        ("crf", {"bilateral_weight": "4"}),
        ("output/channels", {}),
        ("output/channels", {"activation": "sigmoid"}),
        ("output/channels", {"activation": "softmax", "threshold": 0.5}),
        ("output/channels/activation", "tanh"),
        ("output/channels/threshold", 0),
        ("output/channels/threshold", 1),
        ("classes", [{"id": 0, "name": "only", "color": [0, 0, 0]}]),  # a sigmoid has two
        ("verification/0/argmax_agreement", 1.1),
        ("verification/0/inputs", [[0, 3]]),
    ],
)
def test_a_value_outside_the_schema_is_refused(place: str, value: object) -> None:
    data = as_dict()
    change(data, place, value)
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(data))


def test_the_message_names_the_place_and_the_versions() -> None:
    data = as_dict()
    change(data, "input/size/multiple", 0)
    data["schema_version"] = "1.7"
    with pytest.raises(BundleError, match=r"schema 1\.7, this atrous knows 1\.1.*input/size/multiple"):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_bundle_of_schema_1_0_opens(fixed: bool) -> None:
    data = as_dict()
    data["schema_version"] = "1.0"
    for field in ("dynamic_batch", "padding"):
        del data["input"][field]
    for field in ("pictures", "skipped", "failed"):
        del data["verification"][0][field]
    if fixed:
        data["input"]["size"] |= {"min": [32, 64], "max": [32, 64]}
    manifest = Manifest.from_json(json.dumps(data))
    assert (manifest.schema_version, manifest.input.dynamic_batch, manifest.input.padding) == ("1.0", None, None)
    assert manifest.input.takes_batches is not fixed
    assert (manifest.verification[0].pictures, manifest.verification[0].skipped) == ((), ())


@pytest.mark.parametrize("field", sorted(load_schema()["required"]))
def test_a_required_field_that_is_missing_is_named(field: str) -> None:
    data = as_dict()
    del data[field]
    with pytest.raises(BundleError, match=field):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize("version", ["2.0", "10.0", "0.9", "", "latest"])
def test_another_major_version_is_called_that(version: str) -> None:
    with pytest.raises(BundleError, match=r"this atrous reads 1\.x.*Upgrade"):
        Manifest.from_json(json.dumps({"schema_version": version, "unknown": "from the future"}))


@pytest.mark.parametrize("text", ["null", "[]", '"1.0"', "{}", '{"schema_version": 1.0}'])
def test_json_that_is_no_manifest_is_asked_whether_it_is_one(text: str) -> None:
    with pytest.raises(BundleError, match="Is this an atrous bundle"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda text: text[: len(text) // 2], id="truncated"),
        pytest.param(lambda text: "\ufeff" + text, id="byte order mark"),
        pytest.param(lambda text: text + "}", id="trailing"),
        pytest.param(lambda _: "[" * 100_000, id="nested too deep"),
        pytest.param(lambda text: text.replace('"scale": 1.0', '"scale": NaN'), id="NaN"),
        pytest.param(lambda text: text.replace('"scale": 1.0', '"scale": 1e999'), id="more than a float holds"),
    ],
)
def test_text_that_is_not_json_is_refused(damage: Callable[[str], str]) -> None:
    with pytest.raises(BundleError, match=r"not valid JSON.*export it again"):
        Manifest.from_json(damage(full_manifest().to_json()))


@given(data=st.data())
def test_truncated_anywhere_it_is_refused(data: st.DataObject) -> None:
    text = full_manifest().to_json().rstrip()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BundleError):
        Manifest.from_json(text[:cut])


def test_integers_written_as_16_0_are_integers() -> None:
    """JSON Schema calls 16.0 an integer, and some writers have no other numbers."""
    text = full_manifest().to_json().replace('"stride": 16', '"stride": 16.0')
    stride = Manifest.from_json(text).output.stride
    assert (stride, type(stride)) == (16, int)


def test_class_ids_are_channels() -> None:
    with pytest.raises(BundleError, match=r"must be 0…1, .*; got \[1, 0\]"):
        dataclasses.replace(full_manifest(), classes=tuple(reversed(full_manifest().classes)))


def test_sizes_must_be_ordered_on_both_axes() -> None:
    with pytest.raises(BundleError, match="min ≤ opt ≤ max"):
        SizePolicy((8, 8), (16, 4), (32, 32), 8)


def test_what_is_written_follows_the_schema() -> None:
    Draft202012Validator(load_schema()).validate(as_dict())
    assert as_dict()["schema_version"] == SCHEMA_VERSION


def test_an_artifact_replaces_the_one_of_its_file_and_its_comparisons() -> None:
    first = full_manifest()
    added = dataclasses.replace(first.artifacts[0], file="new.onnx", sha256="0" * 64)
    check = dataclasses.replace(first.verification[0], artifact="new.onnx in openvino (CPU)")
    second = first.with_artifact(added, check)
    assert second.artifacts == (*first.artifacts, added)
    assert second.verification == (*first.verification, check)
    again = dataclasses.replace(added, sha256="1" * 64)
    third = second.with_artifact(again)
    assert third.artifacts == (*first.artifacts, again)
    assert third.verification == first.verification


def test_engines_of_a_replaced_graph_go_with_it() -> None:
    first = full_manifest()
    graph = dataclasses.replace(first.artifacts[0], file="new.onnx", kind="onnx", engine=None, sha256="0" * 64)
    engine = dataclasses.replace(
        first.artifacts[0],
        file="engines/new.plan",
        kind="engine",
        engine=EngineIdentity("tensorrt-rtx", "1.7.1", "8.9"),
        provenance={"from": graph.sha256},
    )
    check = dataclasses.replace(first.verification[0], artifact="engines/new.plan in tensorrt-rtx")
    built = first.with_artifact(graph).with_artifact(engine, check)
    assert built.with_artifact(graph).artifacts == (*first.artifacts, engine, graph)
    other = dataclasses.replace(graph, sha256="1" * 64)
    changed = built.with_artifact(other)
    assert changed.artifacts == (*first.artifacts, other)
    assert changed.verification == first.verification


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((1, 3, 16, 16), True),
        ((4, 3, 64, 64), True),
        ((5, 3, 32, 32), False),
        ((1, 3, 16, 15), False),
        ((1, 3, 32), False),
    ],
)
def test_a_profile_takes_what_is_between(shape: tuple[int, ...], taken: bool) -> None:
    assert EngineProfile((1, 3, 16, 16), (1, 3, 32, 32), (4, 3, 64, 64)).takes(shape) is taken


def test_an_engine_takes_part_of_the_sizes() -> None:
    inputs = InputSpec(SizePolicy((32, 32), (64, 96), (256, 256), 8))
    within = inputs.within(EngineProfile((1, 3, 64, 16), (1, 3, 80, 80), (4, 3, 128, 88)))
    assert (within.size.min, within.size.opt, within.size.max) == ((64, 32), (64, 88), (128, 88))
    assert dataclasses.replace(within, size=inputs.size) == inputs
    with pytest.raises(BundleError, match="min ≤ opt ≤ max"):
        inputs.within(EngineProfile((1, 3, 512, 512), (1, 3, 512, 512), (1, 3, 512, 512)))


def test_a_manifest_of_schema_1_0_has_a_softmax() -> None:
    data = as_dict()
    data["schema_version"] = "1.0"
    del data["output"]["channels"]
    read = Manifest.from_json(json.dumps(data))
    assert (read.output.channels, read.logits_channels) == (SOFTMAX, 2)


def test_a_sigmoid_has_one_channel() -> None:
    assert full_manifest().logits_channels == 1


def test_a_softmax_over_one_class_opens_and_says_what_is_wrong_when_used() -> None:
    data = as_dict()
    del data["classes"][1]
    data["output"]["channels"] = {"activation": "softmax"}
    read = Manifest.from_json(json.dumps(data))
    with pytest.raises(BundleError, match=r"every label would be 0.*classes=\['background', '道路'\]"):
        _ = read.logits_channels


@pytest.mark.parametrize("values", [("softmax", 0.5), ("sigmoid", None), ("sigmoid", 0.0), ("sigmoid", float("nan"))])
def test_channels_of_no_meaning(values: tuple[Any, Any]) -> None:
    with pytest.raises(BundleError, match="threshold"):
        Channels(*values)
