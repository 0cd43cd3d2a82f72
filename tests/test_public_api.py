"""What `import atrous` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import atrous
from atrous.bundle import Bundle


def test_every_public_name_is_there() -> None:
    for name in atrous.__all__:
        assert getattr(atrous, name) is not None
    assert set(dir(atrous)) == set(atrous.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'atrous' has no attribute 'segment'"):
        atrous.segment  # noqa: B018


def test_names_are_what_they_say(tiny_bundle: Bundle) -> None:
    segmenter = atrous.load(tiny_bundle.path)
    assert isinstance(segmenter, atrous.Segmenter)
    assert isinstance(segmenter(np.zeros((40, 40, 3), np.uint8)), atrous.Result)
    assert isinstance(segmenter.bundle, atrous.Bundle)


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_a_missing_extra_is_named(package: str, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
import atrous
atrous.load, atrous.DynamicSize, atrous.Preprocessing  # need it not
try:
    atrous.export
except ImportError as exc:
    print(type(exc).__name__, exc.package, exc.extra)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == f"MissingDependencyError {package} export\n", done.stderr
