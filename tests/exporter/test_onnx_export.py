from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_networks import Answering, BranchingOnPixels, Interrupted, TinyDeepLab
from torch import Tensor, nn

from atrous.errors import ExportError
from atrous.exporter.module_names import MODULE_KEY
from atrous.exporter.onnx_export import StandaloneHead, coarse_shape, export_graph
from atrous.exporter.opset import OPSET
from atrous.manifest import Size, SizePolicy

pytestmark = pytest.mark.slow  # in sum

FIXED = SizePolicy((24, 40), (24, 40), (24, 40), 4)
DYNAMIC = SizePolicy((16, 16), (32, 32), (64, 64), 8)


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module", params=[FIXED, DYNAMIC], ids=["fixed", "dynamic"])
def graph(request: pytest.FixtureRequest, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_graph(network, path, request.param)
    return path


class TestExportGraph:
    def test_one_file(self, graph: Path) -> None:
        assert list(graph.parent.iterdir()) == [graph]
        assert not any(tensor.external_data for tensor in onnx.load(graph).graph.initializer)

    def test_axes(self, graph: Path) -> None:
        model = onnx.load(graph)
        (image,), (logits,) = model.graph.input, model.graph.output
        assert (image.name, logits.name) == ("image", "logits")
        if axes(image) == [1, 3, 24, 40]:
            assert axes(logits) == [1, 5, 6, 10]
        else:
            batch, channels, height, width = axes(image)
            assert channels == 3
            assert all(isinstance(axis, str) for axis in (batch, height, width))
            assert len({batch, height, width}) == 3

    def test_nothing_but_the_network(self, graph: Path) -> None:
        model = onnx.load(graph)
        assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Concat"}
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET

    def test_atrous_rates_stay(self, graph: Path) -> None:
        rates = [
            attribute.ints[0]
            for node in onnx.load(graph).graph.node
            for attribute in node.attribute
            if attribute.name == "dilations"
        ]
        assert rates == [1, 1, 2, 5, 1]

    def test_says_how_it_was_made(self, network: nn.Module, tmp_path: Path) -> None:
        made = export_graph(network, tmp_path / "model.onnx", FIXED)
        assert made == {"exporter": f"torch {torch.__version__}", "opset": OPSET}

    def test_names_no_place_on_this_machine(self, graph: Path) -> None:
        model = onnx.load(graph)
        assert {entry.key for node in model.graph.node for entry in node.metadata_props} == {MODULE_KEY}
        assert str(Path(__file__).parents[2]).encode() not in graph.read_bytes()

    def test_leaves_logging_and_warnings_as_they_were(self, tmp_path: Path) -> None:
        before = logging.getLogger("torch.onnx").level, list(warnings.filters)
        with pytest.raises(ExportError):
            export_graph(BranchingOnPixels().eval(), tmp_path / "model.onnx", FIXED)
        assert (logging.getLogger("torch.onnx").level, list(warnings.filters)) == before

    def test_what_cannot_be_traced_is_said_whole(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """The cause first, without colours, and torch's log in the error instead of on the terminal."""
        with pytest.raises(
            ExportError, match=r"torch cannot export BranchingOnPixels to ONNX: .*data-dependent"
        ) as caught:
            export_graph(BranchingOnPixels().eval(), tmp_path / "model.onnx", FIXED)
        message = str(caught.value)
        assert "def forward" not in message.partition("torch's log")[0].splitlines()[0]
        assert "return self.network(image) if image.mean() > 0" in message  # the line of the network
        assert "\x1b" not in message + caught.value.log
        assert "aten.mean" in caught.value.log
        assert caught.value.__cause__ is not None
        assert capfd.readouterr() == ("", "")

    def test_what_a_network_prints_arrives(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        class Printing(TinyDeepLab):
            def forward(self, image: Tensor) -> Tensor:
                print("a word", file=sys.stderr)
                return super().forward(image)

        export_graph(Printing().eval(), tmp_path / "model.onnx", FIXED)
        assert "a word" in capsys.readouterr().err

    def test_an_unwritable_path(self, network: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="cannot export"):
            export_graph(network, tmp_path / "missing" / "model.onnx", FIXED)

    def test_ctrl_c_is_not_swallowed(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            export_graph(Interrupted(1).eval(), tmp_path / "model.onnx", FIXED)


class TestCoarseShape:
    @pytest.mark.parametrize(("size", "coarse"), [((32, 48), (8, 12)), ((33, 1), (9, 1))])
    def test_of_the_logits(self, network: nn.Module, size: Size, coarse: Size) -> None:
        assert coarse_shape(network, size) == (1, 5, *coarse)

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("dict", r"returns a dict with out, aux; .*Wrap it in a module"),
            ("tuple", r"returns a tuple; expected one float32 tensor \[N, C, h, w\]"),
            ("three axes", r"returns torch\.float32 \[1, 8, 12\]; expected"),
            ("float16", r"returns torch\.float16 \[1, 5, 8, 12\]; expected"),
            ("labels", r"returns torch\.int64 \[1, 1, 8, 12\]; expected"),
            ("one batch", r"returns torch\.float32 \[2, 5, 8, 12\]; expected"),
        ],
    )
    def test_other_answers_are_refused(self, kind: str, said: str) -> None:
        with pytest.raises(ExportError, match=said):
            coarse_shape(Answering(kind).eval(), (32, 48))

    def test_a_network_for_other_inputs(self) -> None:
        with pytest.raises(ExportError, match=r"Conv2d fails on an input \[1, 3, 32, 48\]"):
            coarse_shape(nn.Conv2d(1, 2, 3), (32, 48))


class TestStandaloneHead:
    @pytest.mark.parametrize("align_corners", [False, True])
    def test_probabilities_and_labels_agree(self, network: nn.Module, align_corners: bool) -> None:
        image = torch.randn(2, 3, 33, 45, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            probabilities = StandaloneHead(network, "probabilities", align_corners=align_corners)(image)
            labels = StandaloneHead(network, "labels", align_corners=align_corners)(image)
        assert probabilities.shape == (2, 5, 33, 45)
        assert labels.dtype == torch.uint8
        assert torch.equal(probabilities.argmax(dim=1).to(torch.uint8), labels)
        np.testing.assert_allclose(probabilities.sum(dim=1), 1, atol=1e-6)


def test_training_shows_in_the_tiny_network() -> None:
    """Otherwise no test here would notice an export in training mode."""
    network, image = TinyDeepLab(), torch.randn(1, 3, 32, 32)
    assert not torch.allclose(network.train()(image), network.eval()(image), atol=0.1)
