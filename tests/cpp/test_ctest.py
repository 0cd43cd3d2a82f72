"""The library's tests from the inside, `tests/cpp/*.cpp`, built as the presets say."""

from __future__ import annotations

import json

import pytest
from cpp_library import SOURCE, build, run

#: ThreadSanitizer has nothing to say where there is one thread. The emulator's tests run under AddressSanitizer.
SUITES = {
    "release": ("bundle", "segmenter", "wrapper", "openvino", "c_header"),
    "asan": ("bundle", "segmenter", "wrapper", "openvino", "cuda", "tensorrt"),
    "tsan": ("segmenter",),
}


def cases() -> list[object]:
    return [
        pytest.param(preset, suite, marks=[] if preset == "release" else pytest.mark.slow)
        for preset, suites in SUITES.items()
        for suite in suites
    ]


@pytest.mark.parametrize(("preset", "suite"), cases())
def test_suite(preset, suite):
    build(preset)
    run("ctest", "--preset", preset, "-R", f"^{suite}$", "--no-tests=error", cwd=SOURCE)


@pytest.mark.usefixtures("release")
def test_every_suite_is_run():
    shown = json.loads(run("ctest", "--preset", "release", "--show-only=json-v1", cwd=SOURCE))
    assert {test["name"] for test in shown["tests"]} == set(SUITES["release"])


def test_every_preset_can_be_configured_built_and_tested():
    presets = json.loads((SOURCE / "CMakePresets.json").read_text(encoding="utf-8"))
    visible = {"release", "asan", "tsan", "emulator"}
    for kind in ("configurePresets", "buildPresets", "testPresets", "workflowPresets"):
        assert {entry["name"] for entry in presets[kind] if not entry.get("hidden")} == visible
