from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from command_line import Command
from tiny_graphs import local_layers, make_bundle

from atrous.bundle import Bundle

pytestmark = needs.TENSORRT_RTX.importable("tensorrt_rtx")


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """For 32×32 to 128×128 in multiples of 8; to be changed."""
    return shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous")


def test_builds(atrous: Command, bundle: Path) -> None:
    outcome = atrous("build", bundle, "--precision", "fp32", "--sm", "89", "--sm", "120", "--workspace", 512)
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith(f"wrote {bundle}\n")
    engines = [artifact for artifact in Bundle.open(bundle).manifest.artifacts if artifact.kind == "engine"]
    assert [each.engine.compute_capability for each in engines if each.engine] == ["8.9", "12.0"]
    for each in engines:
        assert each.file in outcome.out
        assert each.provenance["workspace_bytes"] == 512 << 20
    inspected = atrous("inspect", bundle)
    assert "compute capability 8.9, inputs 1×3×32×32 … 1×3×64×96 … 1×3×128×128" in inspected.out


def test_json(atrous: Command, bundle: Path) -> None:
    options = ("--precision", "fp32", "--backend", "tensorrt-rtx", "--sm", "89", "--json")
    atrous("build", bundle, "--precision", "fp32", "--sm", "120")
    outcome = atrous("build", bundle, *options, "--dynamic", "32x32:64x64:64x96", "--batch", "4")
    assert outcome.code == 0, outcome.err
    (engine,) = outcome.json()["engines"]
    assert engine["engine"]["compute_capability"] == "8.9"
    assert engine["engine"]["profile"] == {"min": [1, 3, 32, 32], "opt": [4, 3, 64, 64], "max": [4, 3, 64, 96]}


@pytest.mark.parametrize("form", ["dilated", "taps"])
def test_builds_of_another_form(atrous: Command, tmp_path: Path, form: str) -> None:
    bundle = make_bundle(tmp_path / "atrous.atrous", local_layers(4, dilation=2), fixed=(64, 64)).path
    outcome = atrous("build", bundle, "--precision", "fp32", "--sm", "89", "--atrous", form)
    assert outcome.code == 0, outcome.err
    engine = Bundle.open(bundle).find(kind="engine")
    assert engine is not None
    assert engine.provenance["atrous"] == form
    report = (bundle / engine.provenance["report"]).read_text()
    assert ("tap_0_0" in report) == (form == "taps")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--sm", "89"), 1, "EngineError: "),  # no FP16 graph
        (("--precision", "fp32"), 1, "--sm 89"),  # no GPU
        (("--precision", "fp32", "--sm", "90"), 1, "does not build for SM '90'"),
        (("--precision", "fp32", "--sm", "89", "--size", "60x60"), 1, "The next one is 64×64"),
        (("--precision", "fp32", "--sm", "89", "--batch", "0"), 1, "batch must be 1 or more"),
        (("--precision", "fp32", "--sm", "89", "--version-compatible"), 1, "is not supported by tensorrt-rtx"),
        (("--precision", "fp32", "--sm", "89", "--hardware-compatibility", "ampere+"), 1, "is not supported by"),
        (("--precision", "fp32", "--sm", "89", "--timing-cache", "cache"), 1, "is not supported by tensorrt-rtx"),
        (("--precision", "fp32", "--sm", "89", "--optimization-level", "9"), 1, "must be 0 … 5"),
        (("--precision", "bf16"), 2, "bf16"),
        (("--backend", "trt"), 2, "trt"),
        (("--size", "60"), 2, "not a size"),
    ],
    ids=lambda value: "".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_refusals(
    atrous: Command, bundle: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.setattr("atrous.gpu.driver._LIBRARY", "libno-cuda.so.1")
    before = (bundle / "manifest.json").read_bytes()
    outcome = atrous("build", bundle, *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert (bundle / "manifest.json").read_bytes() == before


#: `atrous` with Ctrl-C pressed once, when it first moves its progress bar.
INTERRUPTED = """
import signal
from rich.progress import Progress
from atrous.cli import main

pressed = []

def press(*_, **__):
    if not pressed:
        pressed.append(True)
        signal.raise_signal(signal.SIGINT)

Progress.update = press
main()
"""


def test_ctrl_c(bundle: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "build", bundle, "--precision", "fp32", "--sm", "89"]
    assert subprocess.run(command, capture_output=True).returncode == 130
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    assert not (bundle / "engines").exists()


def test_what_cannot_be_built(atrous: Command, tmp_path: Path) -> None:
    fixed = make_bundle(tmp_path / "fixed.atrous", local_layers(5), fixed=(64, 96)).path
    outcome = atrous("build", fixed, "--precision", "fp32", "--sm", "89", "--batch", "2")
    assert outcome.code == 1
    assert "takes inputs of [1, 3, 64, 96]" in outcome.err
