"""Python and C++ open the same bundles and refuse the same ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cpp_library import BUNDLE, CppError, Library

from atrous.bundle import MANIFEST_FILE, Bundle
from atrous.errors import BundleError

ROUNDS = 1500
#: What a mutation puts in the place of a value, or adds. Integers that only Python can hold are left out.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 8, 16.0, 0.5, 255, 256, 65536, 65537, 1e-300, 1e300, "", "x", "RGB", "BGR",
    "none", "stretch", "letterbox", "1.0", "1.7", "2.0", "01.0", "logits", "onnx", "engine", "fp16",
    "model.fp32.onnx", "../x",
    "/x", [], {}, [1, 2], [1, 2, 3], [64, 96], [1.5, 2, 3], [0, 0, 0], {"a": 1}, {"flavor": "tensorrt"}, "0" * 64, "é",
    "softmax", "sigmoid", {"activation": "softmax"}, {"activation": "sigmoid", "threshold": 0.5},
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in entries:
        yield value, key
        yield from places(inside)


def mutate(original: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    manifest = copy.deepcopy(original)
    for _ in range(rng.choice([1, 1, 1, 2])):
        container, key = rng.choice(list(places(manifest)))
        action = rng.randrange(4)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            added = rng.choice(["extra", "engine", "license", "id", "channels", "threshold", key])
            container[added] = rng.choice(VALUES)
        elif action == 2 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))
    return manifest


def python_says(path: Path) -> str:
    try:
        Bundle.open(path)
    except BundleError as exc:
        return str(exc) or "refused"
    return ""


def cpp_says(library: Library, path: Path) -> str:
    try:
        with library.bundle(path):
            return ""
    except CppError as exc:
        return exc.text if exc.status == BUNDLE else f"not as a bad bundle: {exc}"


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "b.atrous"
    path.mkdir()
    for file in tiny_bundle.path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_both_judge_mutated_manifests_alike(library, folder):
    original = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    rng = random.Random(20)
    accepted = 0
    for _ in range(ROUNDS):
        manifest = mutate(original, rng)
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
        python, cpp = python_says(folder), cpp_says(library, folder)
        assert not cpp.startswith("not as a bad bundle"), f"{cpp}\n{manifest}"
        assert bool(python) == bool(cpp), f"Python: {python or 'accepted'}\nC++: {cpp or 'accepted'}\n{manifest}"
        accepted += not python
    assert ROUNDS / 50 < accepted < ROUNDS / 2  # both answers were tried


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "NaN", '{"schema_version": 1e999}', "[" * 5000, '{"schema_version": "2.0"}', "\ufeff{}"],
)
def test_both_refuse_what_is_no_manifest(library, folder, content):
    (folder / MANIFEST_FILE).write_text(content, encoding="utf-8")
    assert python_says(folder)
    assert cpp_says(library, folder)


@pytest.mark.parametrize("file", ["../outside.onnx", "/etc/hostname", "a/../../x", "x\\y", "missing.onnx", ".", "\0"])
def test_both_refuse_paths(library, folder, file):
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["artifacts"][0]["file"] = file
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    assert python_says(folder)
    assert cpp_says(library, folder)
