from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command
from tiny_graphs import lesion_layers, local_layers, save_graph

from atrous.bundle import Bundle
from atrous.manifest import Channels


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return save_graph(tmp_path / "model.onnx", local_layers(3))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("road\ncar\nsky\n")
    return path


def test_packs_verifies_and_runs(atrous: Command, graph: Path, names: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.atrous"
    options = ("--dynamic", "32x32:48x64:96x96", "--normalization", "caffe", "--license", "[mine]")
    packed = atrous("pack", graph, out, "--classes", names, *options)
    assert packed.code == 0, packed.err
    assert packed.out.endswith(f"wrote {out}\n")
    for name in ("model.fp32.onnx: ", "model.fp32.onnx in openvino (CPU): "):
        assert name in packed.out
    assert packed.out.count("against onnxruntime without graph optimizations, on ") == 2
    manifest = Bundle.open(out).manifest
    assert [entry.name for entry in manifest.classes] == ["road", "car", "sky"]
    assert (manifest.input.color_order, manifest.license, manifest.input.resize) == ("BGR", "[mine]", "none")
    assert atrous("verify", out).code == 0
    assert atrous("run", out, photos, "--out", tmp_path / "out").code == 0


def test_a_letterbox_at_one_size(atrous: Command, graph: Path, names: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.atrous"
    options = ("--size", "33x49", "--resize", "letterbox", "--align-corners")
    assert atrous("pack", graph, out, "--classes", names, *options).code == 0
    manifest = Bundle.open(out).manifest
    assert manifest.input.size.opt == (33, 49)
    assert manifest.input.resize == "letterbox"
    assert manifest.output.align_corners


def test_overwrites_on_purpose_only(atrous: Command, graph: Path, names: Path, tmp_path: Path) -> None:
    arguments = ("pack", graph, tmp_path / "street.atrous", "--classes", names, "--size", "32x32")
    assert atrous(*arguments).code == 0
    again = atrous(*arguments)
    assert again.code == 1
    assert "exists already" in again.err
    assert atrous(*arguments, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--size", "32x32"), 2, "--classes FILE"),
        (("--classes", "{names}", "--size", "32"), 2, "is not a size"),
        (("--classes", "{names}", "--size", "8x8", "--dynamic", "8x8:8x8:9x9"), 2, "exclude each other"),
        (("--classes", "{names}", "--size", "8x8", "--normalization", "torch"), 1, "imagenet, caffe, lite"),
        (
            ("--classes", "{names}", "--size", "8x8", "--normalization", "lite", "--mean", "1,1,1"),
            2,
            "--normalization and --mean exclude each other",
        ),
        (("--classes", "{names}", "--size", "8x8", "--mean", "1,1"), 1, "is not three numbers"),
        (("--classes", "{names}"), 1, "a size is required"),
        (("--classes", "{names}", "--dynamic", "64x64:32x32:96x96"), 1, "min ≤ opt ≤ max"),
        (("--classes", "{names}.missing", "--size", "32x32"), 1, "cannot read classes"),
        (("--classes", "{names}.json", "--size", "32x32"), 1, "expected [N, 2, h, w]"),
    ],
)
def test_mistakes(
    atrous: Command, graph: Path, names: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    names.with_suffix(".txt.json").write_text('[{"name": "road"}, {"name": "car"}]')
    out = tmp_path / "out" / "street.atrous"
    outcome = atrous("pack", graph, out, *(text.format(names=names) for text in options))
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert not out.parent.exists()


@pytest.mark.parametrize("content", [None, b"", b"not a graph"])
def test_what_is_no_graph(atrous: Command, names: Path, tmp_path: Path, content: bytes | None) -> None:
    graph = tmp_path / "[/x].onnx"
    graph.parent.mkdir()  # its path has a closing tag of rich's markup in it
    if content is not None:
        graph.write_bytes(content)
    outcome = atrous("pack", graph, tmp_path / "street.atrous", "--classes", names, "--size", "32x32")
    assert outcome.code == 1
    assert outcome.err.startswith("ExportError: ")
    assert "[/x].onnx" in outcome.err


@pytest.mark.parametrize("out", ["model.onnx/street.atrous", "street.zip"])
def test_where_nothing_can_be_written(atrous: Command, graph: Path, names: Path, tmp_path: Path, out: str) -> None:
    outcome = atrous("pack", graph, tmp_path / out, "--classes", names, "--size", "32x32")
    assert outcome.code == 1
    assert outcome.err.startswith("BundleError: ")


def test_one_channel_and_its_threshold(atrous: Command, photos: Path, tmp_path: Path) -> None:
    graph, names, out = save_graph(tmp_path / "l.onnx", lesion_layers(4)), tmp_path / "n.txt", tmp_path / "l.atrous"
    names.write_text("lesion\n")
    refused = atrous("pack", graph, out, "--classes", names, "--size", "32x32")
    assert refused.code == 1
    assert "every label would be 0" in " ".join(refused.err.split())
    names.write_text("background\nlesion\n")
    packed = atrous("pack", graph, out, "--classes", names, "--size", "32x32", "--threshold", "0.25")
    assert packed.code == 0, packed.err
    assert Bundle.open(out).manifest.output.channels == Channels("sigmoid", 0.25)
    assert "sigmoid of one: lesion above 0.25" in atrous("inspect", out).out
    assert atrous("run", out, photos, "--out", tmp_path / "out", "--crf").code == 0
