from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Command
from tiny_graphs import color_layers, save_graph

from atrous.bundle import Bundle
from atrous.exporter.options import PackOptions
from atrous.exporter.pack import pack


def test_prints_what_a_bundle_holds(atrous: Command, tiny_bundle: Bundle) -> None:
    outcome = atrous("inspect", tiny_bundle.path)
    assert outcome.code == 0
    artifact = tiny_bundle.manifest.artifacts[0]
    for text in ("class 4", "32×32 … 64×96 … 128×128", "stride 8", artifact.file, artifact.sha256[:12], "passed"):
        assert text in outcome.out


def test_lines_end_where_their_text_ends(atrous: Command, tiny_bundle: Bundle) -> None:
    lines = atrous("inspect", tiny_bundle.path).out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


def test_tables_in_the_provenance_are_counted(atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous")
    assert atrous("add-fp16", bundle, "--keep", "*").code == 0
    artifact = Bundle.open(bundle).manifest.artifacts[1]
    assert f"fp32_nodes {len(artifact.provenance['fp32_nodes'])}" in atrous("inspect", bundle).out


def test_json_is_the_manifest(atrous: Command, tiny_bundle: Bundle) -> None:
    outcome = atrous("inspect", tiny_bundle.path, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.json() == json.loads((tiny_bundle.path / "manifest.json").read_text())


@pytest.mark.parametrize("text", ["[bold]licence[/bold]", "[/]", "CC BY-NC 4.0 :copyright: [research only]"])
def test_texts_are_taken_literally(atrous: Command, tmp_path: Path, text: str) -> None:
    graph = save_graph(tmp_path / "model.onnx", color_layers(8), size=(32, 32))
    pack(graph, tmp_path / "[x].atrous", classes=[text, "b", "c"], options=PackOptions(license=text))
    outcome = atrous("inspect", tmp_path / "[x].atrous")
    assert outcome.code == 0
    assert outcome.out.count(text) == 2
    assert "[x]" in outcome.out


def test_a_truncated_graph_is_found(atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "street.atrous"
    folder.mkdir()
    for file in tiny_bundle.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.fp32.onnx").write_bytes(b"")
    outcome = atrous("inspect", folder)
    assert outcome.code == 1
    assert "has 0 bytes" in outcome.err
