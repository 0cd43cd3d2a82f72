from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command
from tiny_graphs import local_layers, make_bundle

from atrous.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.atrous", local_layers(4, dilation=2), fixed=(64, 64)).path


def test_measures_every_form(atrous: Command, bundle: Path) -> None:
    outcome = atrous("optimize", bundle, "--backend", "onnxruntime")
    assert outcome.code == 0, outcome.err
    for column in ("dilated ms", "deinterlaced ms", "taps ms", "fastest"):
        assert column in outcome.out
    tuned = [artifact for artifact in Bundle.open(bundle).manifest.artifacts if artifact.tuned_for]
    said = f"wrote {tuned[0].file}" if tuned else "the fp32 graph stays as it is: "
    assert said in outcome.out


def test_json(atrous: Command, bundle: Path) -> None:
    outcome = atrous("optimize", bundle, "--backend", "onnxruntime", "--precision", "fp32", "--json")
    assert outcome.code == 0, outcome.err
    answer = outcome.json()
    (graph,) = answer["graphs"]
    assert (answer["backend"], graph["precision"]) == ("onnxruntime", "fp32")
    assert [set(layer["ms"]) for layer in graph["layers"]] == [{"dilated", "deinterlaced", "taps"}]


def test_says_the_rule_where_nothing_can_be_measured(atrous: Command, bundle: Path) -> None:
    outcome = atrous("optimize", bundle, "--backend", "tensorrt")
    assert outcome.code == 0, outcome.err
    assert "dilated by rule: TensorRT times its own kernels" in outcome.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--backend", "abacus"), 1, "unknown backend 'abacus'"),
        (("--precision", "int8"), 1, "has no int8"),
        (("--precision", "fp8"), 2, "fp8"),
    ],
)
def test_refuses(atrous: Command, bundle: Path, options: tuple[str, str], code: int, said: str) -> None:
    outcome = atrous("optimize", bundle, *options)
    assert outcome.code == code
    assert said in outcome.err
