from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from atrous.bundle import Bundle
from atrous.calibration.accuracy import Reference
from atrous.errors import EngineError, EvaluationError
from atrous.runtime.evaluation import Pair, evaluate
from atrous.runtime.image import load_image
from atrous.runtime.segmenter import load


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    """Three pictures, the last one larger than the tiny bundle takes, so that it is tiled."""
    paths = [tmp_path / "images" / f"{stem}.png" for stem in "abc"]
    paths[0].parent.mkdir()
    for path, size in zip(paths, [(40, 50), (64, 64), (150, 140)], strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def masks(pictures: list[Path], rng: np.random.Generator) -> Path:
    """Masks of classes 0 to 2, with a stripe of 9 for void."""
    folder = pictures[0].parent.with_name("masks")
    folder.mkdir()
    for path in pictures:
        mask = rng.integers(0, 3, load_image(path).shape[:2], np.uint8)
        mask[:, :5] = 9
        Image.fromarray(mask).save(folder / path.name)
    return folder


@pytest.fixture
def graph(tiny_bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(tiny_bundle.path / "model.fp32.onnx")


@pytest.fixture
def changed(graph: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The graph with another classifier."""
    weight = graph.graph.initializer[-1]
    array = numpy_helper.to_array(weight)
    noise = rng.normal(0, 0.1, array.shape).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(array + noise, weight.name))
    return graph


def test_the_same_graph_agrees(tiny_bundle: Bundle, graph: onnx.ModelProto, pictures: list[Path]) -> None:
    comparison = Reference(tiny_bundle, pictures).compare(graph)
    assert comparison.agreements == (1, 1, 1)
    accuracy = comparison.accuracy
    assert (accuracy.images, accuracy.agreement, accuracy.drop, accuracy.metric) == (3, 1, 0, "agreement")


def test_scores_are_those_of_an_evaluation(
    tiny_bundle: Bundle, changed: onnx.ModelProto, pictures: list[Path], masks: Path
) -> None:
    reference = Reference(tiny_bundle, pictures, masks=masks, ignore=(9,))
    accuracy = reference.compare(changed).accuracy
    segmenter = load(tiny_bundle.path, backend="onnxruntime")
    pairs = [Pair(path, masks / path.name) for path in pictures]
    expected = evaluate(segmenter, pairs, ignore=(9,)).scores
    assert accuracy.fp32 is not None
    assert accuracy.int8 is not None
    np.testing.assert_array_equal(accuracy.fp32.confusion, expected.confusion)
    assert (accuracy.fp32.miou, accuracy.metric) == (expected.miou, "miou")
    assert accuracy.int8.miou != expected.miou
    assert accuracy.drop == (expected.miou - accuracy.int8.miou) * 100


def test_agreement_counts_pixels(tiny_bundle: Bundle, changed: onnx.ModelProto, pictures: list[Path]) -> None:
    comparison = Reference(tiny_bundle, pictures).compare(changed)
    pixels = np.array([40 * 50, 64 * 64, 150 * 140])
    assert 0 < comparison.accuracy.agreement < 1
    assert comparison.accuracy.agreement == pytest.approx(float(comparison.agreements @ pixels / pixels.sum()))
    assert comparison.accuracy.drop == (1 - comparison.accuracy.agreement) * 100


def test_samples_are_the_worst(tiny_bundle: Bundle, changed: onnx.ModelProto, pictures: list[Path]) -> None:
    reference = Reference(tiny_bundle, pictures)
    comparison = reference.compare(changed)
    first, second = reference.samples(changed, comparison, most=2)
    order = np.argsort(comparison.agreements)
    assert [first.title, second.title] == [pictures[index].name for index in order[:2]]
    assert first.image.shape[:2] == first.fp32_labels.shape == first.int8_labels.shape
    assert np.mean(first.fp32_labels == first.int8_labels) == comparison.agreements[order[0]]


def test_arrays_have_numbers_for_titles(tiny_bundle: Bundle, graph: onnx.ModelProto, rng: np.random.Generator) -> None:
    images: list[NDArray[np.uint8]] = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2)]
    reference = Reference(tiny_bundle, images)
    samples = reference.samples(graph, reference.compare(graph), most=5)
    assert [sample.title for sample in samples] == ["picture 1", "picture 2"]


def test_an_unreadable_picture_is_left_out(tiny_bundle: Bundle, graph: onnx.ModelProto, pictures: list[Path]) -> None:
    pictures[1].write_bytes(b"")
    reference = Reference(tiny_bundle, pictures)
    assert [(each.name, "is empty" in each.reason) for each in reference.skipped] == [("b.png", True)]
    assert reference.compare(graph).accuracy.images == 2


class TestRefusals:
    def test_masks_for_arrays(self, tiny_bundle: Bundle, masks: Path) -> None:
        with pytest.raises(EvaluationError, match="masks belong to pictures by the names of their files"):
            Reference(tiny_bundle, [np.zeros((40, 50, 3), np.uint8)], masks=masks)

    def test_a_missing_mask(self, tiny_bundle: Bundle, pictures: list[Path], masks: Path) -> None:
        (masks / "b.png").unlink()
        with pytest.raises(EvaluationError, match="1 of 3 pictures have no mask"):
            Reference(tiny_bundle, pictures, masks=masks, ignore=(9,))

    def test_ids_out_of_range(self, tiny_bundle: Bundle, pictures: list[Path], masks: Path) -> None:
        with pytest.raises(EvaluationError, match="has ids 9; expected the classes 0 to 4"):
            Reference(tiny_bundle, pictures, masks=masks)

    def test_a_mask_of_another_size(self, tiny_bundle: Bundle, pictures: list[Path], masks: Path) -> None:
        Image.fromarray(np.zeros((41, 50), np.uint8)).save(masks / "a.png")
        with pytest.raises(EvaluationError, match="expected the same size"):
            Reference(tiny_bundle, pictures, masks=masks, ignore=(9,))

    def test_a_graph_that_fails(self, tiny_bundle: Bundle, graph: onnx.ModelProto, pictures: list[Path]) -> None:
        graph.graph.node[0].op_type = "Colorize"
        with pytest.raises(EngineError, match="refuses the quantized graph"):
            Reference(tiny_bundle, pictures).compare(graph)
