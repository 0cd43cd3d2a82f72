"""Networks that end in softmax, log-softmax or sigmoid: taken apart where that is exact, otherwise refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from segmenters import picture
from tiny_graphs import Conv, lesion_layers, local_layers, save_graph
from tolerances import FINAL_ACTIVATION_ABS
from torch import Tensor, nn
from torch.nn import functional

import atrous
from atrous.bundle import Bundle
from atrous.errors import ExportError
from atrous.exporter.export import export
from atrous.exporter.options import ExportOptions, PackOptions
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import SOFTMAX, Channels

SIZE = (64, 96)
IMAGE = picture(SIZE)
Activation = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """One convolution with stride 4, whose output goes through `end`."""

    def __init__(self, channels: int, end: Activation) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, channels, 5, stride=4, padding=2)
        self.end = end

    def forward(self, image: Tensor) -> Tensor:
        return self.end(self.conv(image) * 3)


def exported(folder: Path, channels: int, end: Activation, size: Any = SIZE, **options: Any) -> Bundle:
    names = ["background", "lesion"] if channels == 1 else [f"class {index}" for index in range(channels)]
    return export(
        Network(channels, end), folder / "a.atrous", classes=names, size=size, options=ExportOptions(**options)
    )


def same(logits: Tensor) -> Tensor:
    return logits


def operators(bundle: Bundle) -> list[str]:
    return [node.op_type for node in onnx.load(bundle.path / "model.fp32.onnx").graph.node]


MODULES = {
    "softmax": (3, lambda y: y.softmax(1)),
    "Softmax2d": (3, nn.Softmax2d()),
    "softmax, channels last": (3, lambda y: y.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2)),
    "softmax over flat positions": (3, lambda y: y.flatten(2).softmax(1).view(y.shape)),
    "log-softmax": (3, lambda y: y.log_softmax(1)),
    "log of softmax": (3, lambda y: y.softmax(1).log()),
    "sigmoid": (1, torch.sigmoid),
    "log-sigmoid": (1, functional.logsigmoid),
}


@pytest.mark.parametrize("size", [SIZE, DynamicSize((32, 32), SIZE, (128, 128))], ids=["fixed", "range"])
@pytest.mark.parametrize("kind", MODULES)
def test_a_module_gives_what_its_logits_give(folder: Path, kind: str, size: Any) -> None:
    channels, end = MODULES[kind]
    bundle = exported(folder, channels, end, size)
    plain = exported(folder / "plain", channels, same, size)
    assert not {"Softmax", "Sigmoid"} & set(operators(bundle)) or kind == "log of softmax"
    found, expected = atrous.load(bundle)(IMAGE), atrous.load(plain)(IMAGE)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=FINAL_ACTIVATION_ABS)
    clear = np.abs(np.diff(np.sort(expected.probabilities, axis=0)[-2:], axis=0))[0] > FINAL_ACTIVATION_ABS
    np.testing.assert_array_equal(found.labels[clear], expected.labels[clear])
    refined = atrous.load(bundle, crf=True)(IMAGE).probabilities
    np.testing.assert_allclose(refined, atrous.load(plain, crf=True)(IMAGE).probabilities, atol=1e-3)
    padding, expected_padding = (each.manifest.input.padding for each in (bundle, plain))
    assert (padding is None) == (expected_padding is None)
    if padding is not None and expected_padding is not None:
        assert padding.sizes == expected_padding.sizes
        assert padding.agreement == pytest.approx(expected_padding.agreement, abs=1e-4)


def test_what_was_removed_is_written_down(folder: Path) -> None:
    manifest = exported(folder, 1, torch.sigmoid).manifest
    assert manifest.artifacts[0].provenance["removed"] == "Sigmoid"
    assert manifest.verification[0].against.endswith("behind Sigmoid")
    assert manifest.output.channels == Channels("sigmoid", 0.5)


def test_softmax_then_nearest_neighbours_commute(folder: Path) -> None:
    end = lambda y: functional.interpolate(y.softmax(1), scale_factor=4, mode="nearest")  # noqa: E731
    bundle = exported(folder, 3, end)
    plain = exported(folder / "plain", 3, lambda y: functional.interpolate(y, scale_factor=4, mode="nearest"))
    found, expected = atrous.load(bundle)(IMAGE), atrous.load(plain)(IMAGE)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=FINAL_ACTIVATION_ABS)


def test_interpolated_log_softmax_is_interpolated_logits(folder: Path) -> None:
    up = lambda y: functional.interpolate(y, scale_factor=4, mode="bilinear")  # noqa: E731
    bundle = exported(folder, 3, lambda y: up(y.log_softmax(1)))
    plain = exported(folder / "plain", 3, up)
    found, expected = atrous.load(bundle)(IMAGE), atrous.load(plain)(IMAGE)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=FINAL_ACTIVATION_ABS)


@pytest.mark.parametrize(
    ("channels", "end", "message"),
    [
        (3, lambda y: y.softmax(2), "ends in Softmax, but not over the channels"),
        (3, lambda y: y.log_softmax(3), "ends in LogSoftmax, but not over the channels"),
        (3, lambda y: y.flatten(1).softmax(1).view(y.shape), "ends in Softmax, but not over the channels"),
        (3, torch.sigmoid, "multi-label"),
        (2, functional.logsigmoid, "multi-label"),
        (3, lambda y: functional.interpolate(y.softmax(1), scale_factor=4, mode="bilinear"), "then interpolated"),
        (1, lambda y: functional.interpolate(y.sigmoid(), scale_factor=4, mode="bicubic"), "then interpolated"),
        (3, lambda y: y.exp() / y.exp().sum(1, keepdim=True), "sum to 1 at every position, as after a softmax"),
        (3, lambda y: (y.softmax(1) + (2 * y).softmax(1)) / 2, "sum to 1 at every position, as after a softmax"),
        (3, lambda y: y.softmax(1) * 255, "sum to 255 at every position, as after a softmax"),
        (3, lambda y: torch.maximum(y.softmax(1), (2 * y).softmax(1)), "as after a sigmoid"),
        (1, lambda y: y.sigmoid().clamp(1e-6, 1 - 1e-6), "as after a sigmoid"),
        (1, lambda y: (y.sigmoid() + (2 * y).sigmoid()) / 2, "as after a sigmoid"),
        (3, lambda y: -y.log_softmax(1), "negative logarithms of probabilities"),
        (3, lambda y: -(y.softmax(1) + 1e-8).log(), "negative logarithms of probabilities"),
        (3, lambda y: torch.logsumexp(y, 1, keepdim=True) - y, "negative logarithms of probabilities"),
        (3, lambda y: y.softmax(1) - 0.5, "from Softmax alone, by Sub,"),
        (3, lambda y: y.softmax(1) * 2 - 1, "from Softmax alone, by Mul, Sub,"),
        (3, lambda y: (0.05 * y.softmax(1)).exp(), "from Exp alone"),
        (1, lambda y: y.sigmoid() * 255, "from Sigmoid alone, by Mul,"),
        (1, lambda y: y.sigmoid() - 0.5, "from Sigmoid alone, by Sub,"),
        (1, lambda y: (y.sigmoid() + 1e-7).log(), "from Sigmoid alone, by Add, Log,"),
        (1, lambda y: 1 / (1 + (-y / 20).exp()), "from Exp alone, by Add, "),
        (1, torch.sign, "ends in Sign"),
        (1, torch.erf, "erf is none"),
        (3, lambda y: functional.gumbel_softmax(y, dim=1), "or it is random"),
        (3, lambda y: y * float("nan"), "itself returns NaN or infinity"),
        (1, lambda y: torch.cat([y, -y], 1).softmax(1)[:, 1:], "ends in Softmax and returns one channel"),
        (1, lambda y: y.softmax(1), "ends in Softmax and returns one channel"),
        (1, functional.hardsigmoid, "ends in HardSigmoid"),
        (1, torch.tanh, "tanh is none"),
        (1, lambda y: (y > 0).float(), "ends in Greater"),
        (1, lambda y: torch.cat([y, -y], 1).argmax(1, keepdim=True).float(), "ends in ArgMax"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(folder: Path, channels: int, end: Activation, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        exported(folder, channels, end)
    assert not (folder / "a.atrous").exists()


@pytest.mark.parametrize(
    "end",
    [
        lambda y: (y.softmax(1) + 1e-7).log(),
        lambda y: y.softmax(1).clamp(min=1e-7).log(),
        lambda y: y - torch.logsumexp(y, 1, keepdim=True),
    ],
)
def test_logarithms_of_probabilities_are_logits(folder: Path, end: Activation) -> None:
    found = atrous.load(exported(folder, 3, end))(IMAGE)
    expected = atrous.load(exported(folder / "plain", 3, same))(IMAGE)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=FINAL_ACTIVATION_ABS)


@pytest.mark.parametrize("end", [lambda y: y * y.sigmoid(), lambda y: y.relu(), lambda y: y.relu() * y.softmax(1)])
def test_what_more_than_probabilities_goes_into_is_logits(folder: Path, end: Activation) -> None:
    assert exported(folder, 3, end).manifest.artifacts[0].provenance.get("removed") is None


def test_a_constant_is_no_probability(folder: Path) -> None:
    assert exported(folder, 3, lambda y: 0 * y).manifest.output.channels == SOFTMAX


def test_channels_that_hardly_differ_are_no_probabilities(folder: Path) -> None:
    """As an untrained network returns: its classifier's biases, and next to nothing of the image."""
    levels = torch.tensor([0.01, 0.02, 0.04]).view(1, 3, 1, 1)
    assert exported(folder, 3, lambda y: levels + 1e-4 * y.tanh()).manifest.output.channels == SOFTMAX


class TestClasses:
    def test_one_channel_and_one_class(self, folder: Path) -> None:
        with pytest.raises(ExportError, match=r"every label would be 0.*classes=\['background', 'lesion'\]"):
            export(Network(1, same), folder / "a.atrous", classes=["lesion"], size=SIZE)

    @pytest.mark.parametrize("threshold", [0, 1, -0.5, 7, float("nan")])
    def test_a_threshold_is_a_probability(self, folder: Path, threshold: float) -> None:
        with pytest.raises(ExportError, match="between 0 and 1"):
            exported(folder, 1, same, threshold=threshold)

    def test_a_threshold_needs_one_channel(self, folder: Path) -> None:
        with pytest.raises(ExportError, match="Leave the threshold out"):
            exported(folder, 3, same, threshold=0.3)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_other_numbers_of_classes(self, folder: Path, channels: int) -> None:
        with pytest.raises(ExportError, match=f"returns .1, {channels}, 16, 24.; expected .N, 4, h, w"):
            export(Network(channels, same), folder / "a.atrous", classes=list("abcd"), size=SIZE)


class TestStandalone:
    @pytest.mark.parametrize("threshold", [0.5, 0.2])
    def test_labels_and_probabilities_of_a_sigmoid(self, folder: Path, threshold: float) -> None:
        image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
        logits = functional.interpolate(Network(1, same)(image), size=SIZE, mode="bilinear")
        p = logits.detach().sigmoid().numpy()
        outputs = {}
        for head in ("probabilities", "labels"):
            bundle = exported(folder / head, 1, same, threshold=threshold, head=head)
            session = onnxruntime.InferenceSession(bundle.path / f"model.fp32.{head}.onnx")
            (outputs[head],) = session.run(None, {"image": image.numpy()})
        np.testing.assert_allclose(
            outputs["probabilities"], np.concatenate([1 - p, p], axis=1), atol=FINAL_ACTIVATION_ABS
        )
        clear = np.abs(p[:, 0] - threshold) > FINAL_ACTIVATION_ABS
        assert set(np.unique(outputs["labels"])) == {0, 1}
        np.testing.assert_array_equal(outputs["labels"][clear], p[:, 0][clear] > threshold)

    def test_a_softmax_inside_is_refused(self, folder: Path) -> None:
        with pytest.raises(ExportError, match=r"ends in Softmax, so its logits.*not at hand"):
            exported(folder, 3, lambda y: y.softmax(1), head="labels")


class TestPack:
    """The same for ONNX files, also as exporters before opset 13 wrote them."""

    @staticmethod
    def graph(path: Path, layers: list[Conv], nodes: list[onnx.NodeProto], *, opset: int = 18) -> Path:
        """The layers, and `nodes` from their output, "logits", to "out"."""
        model = onnx.load(save_graph(path, layers))
        last = model.graph.node[-1].output[0]
        for node in nodes:
            node.input[:] = [last if name == "logits" else name for name in node.input]
        model.graph.node.extend(nodes)
        output = model.graph.output[0]
        output.CopyFrom(
            helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", len(layers[-1].weight), "h", "w"])
        )
        model.opset_import[0].version = opset
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path

    @staticmethod
    def packed(graph: Path, names: list[str], **options: Any) -> Bundle:
        return pack(graph, graph.with_suffix(".atrous"), classes=names, size=(64, 96), options=PackOptions(**options))

    def final(self, *operators: tuple[str, dict[str, Any]]) -> list[onnx.NodeProto]:
        values = ["logits", *(f"v{index}" for index in range(len(operators) - 1)), "out"]
        return [
            helper.make_node(name, [values[index]], [values[index + 1]], **attributes)
            for index, (name, attributes) in enumerate(operators)
        ]

    @pytest.mark.parametrize("opset", [11, 18])
    def test_softmax_between_transposes(self, folder: Path, opset: int) -> None:
        """As torch wrote `softmax(1)` before opset 13."""
        nodes = self.final(
            ("Transpose", {"perm": [0, 3, 2, 1]}), ("Softmax", {"axis": 3}), ("Transpose", {"perm": [0, 3, 2, 1]})
        )
        bundle = self.packed(self.graph(folder / "a.onnx", local_layers(3), nodes, opset=opset), list("abc"))
        assert bundle.manifest.artifacts[0].provenance["removed"] == "Softmax"
        plain = self.packed(save_graph(folder / "b.onnx", local_layers(3)), list("abc"))
        np.testing.assert_allclose(
            atrous.load(bundle)(IMAGE).probabilities,
            atrous.load(plain)(IMAGE).probabilities,
            atol=FINAL_ACTIVATION_ABS,
        )

    def test_softmax_of_old_opsets_is_over_all_that_follows(self, folder: Path) -> None:
        """Before opset 13 `axis=1` means channels, rows and columns together."""
        graph = self.graph(folder / "a.onnx", local_layers(3), self.final(("Softmax", {"axis": 1})), opset=11)
        with pytest.raises(ExportError, match="not over the channels"):
            self.packed(graph, list("abc"))

    def test_sigmoid_behind_identity_and_cast(self, folder: Path) -> None:
        nodes = self.final(("Sigmoid", {}), ("Identity", {}), ("Cast", {"to": TensorProto.FLOAT}))
        bundle = self.packed(
            self.graph(folder / "a.onnx", lesion_layers(4), nodes), ["background", "lesion"], threshold=0.3
        )
        assert bundle.manifest.output.channels == Channels("sigmoid", 0.3)
        plain = self.packed(save_graph(folder / "b.onnx", lesion_layers(4)), ["background", "lesion"], threshold=0.3)
        found, expected = atrous.load(bundle)(IMAGE), atrous.load(plain)(IMAGE)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)

    def test_log_softmax_is_packed_as_it_is(self, folder: Path) -> None:
        graph = self.graph(folder / "a.onnx", local_layers(3), self.final(("LogSoftmax", {"axis": 1})))
        bundle = self.packed(graph, list("abc"))
        assert (bundle.path / "model.fp32.onnx").read_bytes() == graph.read_bytes()

    def test_another_consumer_of_the_logits_keeps_them(self, folder: Path) -> None:
        """A Softmax whose input also goes elsewhere in the graph."""
        nodes = [
            helper.make_node("Softmax", ["logits"], ["p"], axis=1),
            helper.make_node("Shape", ["logits"], ["shape"]),
            helper.make_node("Reshape", ["p", "shape"], ["out"]),
        ]
        bundle = self.packed(self.graph(folder / "a.onnx", local_layers(3), nodes), list("abc"))
        assert bundle.manifest.artifacts[0].provenance["removed"] == "Softmax"

    @pytest.mark.parametrize(
        ("layers", "operator", "attributes", "message"),
        [
            (local_layers(3), "Sigmoid", {}, "multi-label"),
            (local_layers(3), "Softmax", {"axis": 2}, "not over the channels"),
            (local_layers(3), "LogSoftmax", {"axis": 3}, "not over the channels"),
            (lesion_layers(4), "Softmax", {"axis": 1}, "returns one channel"),
            (lesion_layers(4), "HardSigmoid", {}, "ends in HardSigmoid"),
        ],
    )
    def test_refused(
        self, folder: Path, layers: list[Conv], operator: str, attributes: dict[str, Any], message: str
    ) -> None:
        graph = self.graph(folder / "a.onnx", layers, self.final((operator, attributes)))
        names = ["background", "lesion"] if len(layers[-1].weight) == 1 else list("abc")
        with pytest.raises(ExportError, match=message):
            self.packed(graph, names)

    def test_one_channel_and_one_class(self, folder: Path) -> None:
        with pytest.raises(ExportError, match="every label would be 0"):
            self.packed(save_graph(folder / "a.onnx", lesion_layers(4)), ["lesion"])
