from __future__ import annotations

import importlib.util

import pytest
from command_line import Command
from needs import needs_no_driver

from atrous import __version__
from atrous.cli.doctor import examine


def test_says_what_is_here_and_what_to_install(atrous: Command) -> None:
    outcome = atrous("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    for text in (__version__, "onnxruntime", "ready", "optional packages", "torch"):
        assert text in outcome.out
    for name, entry in examine()["packages"].items():
        installed = entry["version"] is not None
        assert (f"pip install 'atrous[{entry['extra']}]'" in _line(outcome.out, name)) is not installed


def test_lines_end_where_their_text_ends(atrous: Command) -> None:
    lines = atrous("doctor").out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


def test_json(atrous: Command) -> None:
    outcome = atrous("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json() == examine()


def test_says_what_a_gpu_needs(atrous: Command) -> None:
    gpu = examine()["gpu"]
    outcome = atrous("doctor")
    for key in ("driver", "gpus", "kernels", "python library", "nvcc", "tensorrt", "tensorrt-rtx", "onnxruntime"):
        assert key in gpu
        assert key in outcome.out
    assert "CPUExecutionProvider" in gpu["onnxruntime providers"]


@needs_no_driver
def test_without_a_driver(atrous: Command) -> None:
    gpu = atrous("doctor", "--json").json()["gpu"]
    assert gpu["driver"].startswith("no GPU can be used: there is no NVIDIA driver")
    assert gpu["gpus"] == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_are_those_that_import(backend: str) -> None:
    (entry,) = (entry for entry in examine()["backends"] if entry["name"] == backend)
    assert entry["available"] is (importlib.util.find_spec(backend) is not None)


def _line(text: str, package: str) -> str:
    table = text[text.index("optional packages") :]  # backends have the names of packages
    return next(line for line in table.splitlines() if line.startswith(f"│ {package} "))
