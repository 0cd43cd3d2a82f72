"""The library's tests from the inside, in every preset; `tests/cpp/*.cpp` are what runs."""

from __future__ import annotations

import json

import pytest
from cpp_library import SOURCE, build, run

PRESETS = ("release", "asan", "tsan")
SUITES = ("bundle", "segmenter", "c_header")


def listed(preset: str) -> set[str]:
    shown = json.loads(run("ctest", "--preset", preset, "--show-only=json-v1", cwd=SOURCE))
    return {test["name"] for test in shown["tests"]}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "preset", [preset if preset == "release" else pytest.param(preset, marks=pytest.mark.slow) for preset in PRESETS]
)
def test_suite(preset, suite):
    build(preset)
    run("ctest", "--preset", preset, "-R", f"^{suite}$", cwd=SOURCE)


@pytest.mark.slow
def test_the_gpu_part_in_the_emulator():
    build("emulator")
    run("ctest", "--preset", "emulator", "-R", "^cuda$", cwd=SOURCE)


@pytest.mark.usefixtures("release")
def test_every_suite_is_run():
    assert listed("release") == set(SUITES)
