"""Test-time augmentation against mmsegmentation's rules, written out here on the logits of the same network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from band_bundles import INFRARED, make_band_bundle, scene
from numpy.typing import NDArray
from PIL import Image
from tiny_graphs import local_layers, make_bundle
from tolerances import AUGMENTED_ABSOLUTE

from atrous.bundle import Bundle
from atrous.crf import DenseCRF
from atrous.errors import EvaluationError
from atrous.exporter.sizes import DynamicSize
from atrous.runtime.augmentation import Augmentation, AugmentedSegmenter
from atrous.runtime.evaluation import Pair, evaluate
from atrous.runtime.segmenter import Segmenter, load


@pytest.fixture
def segmenter(tiny_bundle: Bundle) -> Segmenter:
    return load(tiny_bundle, backend="onnxruntime", threads=1)


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (75, 110, 3), dtype=np.uint8)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def slide(
    segmenter: Segmenter, image: NDArray[np.uint8], window: tuple[int, int], stride: tuple[int, int]
) -> NDArray[np.float64]:
    """Sliding-window inference of mmsegmentation, as its documentation describes it, in float64."""
    height, width = image.shape[:2]
    rows = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
    total, times = np.zeros((len(segmenter.classes), height, width)), np.zeros((height, width))
    for row in range(rows):
        for column in range(columns):
            bottom = min(row * stride[0] + window[0], height)
            right = min(column * stride[1] + window[1], width)
            top, left = max(bottom - window[0], 0), max(right - window[1], 0)
            part = segmenter(np.ascontiguousarray(image[top:bottom, left:right])).probabilities
            total[:, top:bottom, left:right] += np.log(part.astype(np.float64))
            times[top:bottom, left:right] += 1
    return softmax(total / times)


def test_flip_is_the_mean_of_both(segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
    found = AugmentedSegmenter(segmenter, Augmentation(flip=True))(image)
    mirrored = segmenter(np.ascontiguousarray(image[:, ::-1])).probabilities[:, :, ::-1]
    expected = (segmenter(image).probabilities + mirrored) / 2
    assert np.abs(found.probabilities - expected).max() <= AUGMENTED_ABSOLUTE
    assert np.array_equal(found.labels, found.probabilities.argmax(axis=0))
    assert not np.array_equal(found.labels, segmenter(image).labels)


@pytest.mark.parametrize(
    ("window", "stride"), [((48, 64), (32, 40)), ((40, 40), None), ((75, 110), None), ((200, 60), (200, 60))]
)
def test_windows_are_averaged_as_mmsegmentation_does(
    segmenter: Segmenter, image: NDArray[np.uint8], window: tuple[int, int], stride: tuple[int, int] | None
) -> None:
    found = AugmentedSegmenter(segmenter, Augmentation(window=window, stride=stride))(image)
    expected = slide(segmenter, image, window, stride or (window[0] * 2 // 3, window[1] * 2 // 3))
    assert np.abs(found.probabilities - expected).max() <= AUGMENTED_ABSOLUTE


def test_both_and_the_crf_behind(tiny_bundle: Bundle, image: NDArray[np.uint8]) -> None:
    augmentation = Augmentation(flip=True, window=(48, 64))
    plain = AugmentedSegmenter(load(tiny_bundle, backend="onnxruntime"), augmentation)(image)
    refining = load(tiny_bundle, backend="onnxruntime", crf=True)
    assert refining.crf is not None
    refined = AugmentedSegmenter(refining, augmentation)(image)
    labels, marginals = refining.crf.labels_and_marginals(plain.probabilities, image)
    assert np.array_equal(refined.labels, labels)
    assert np.array_equal(refined.probabilities, marginals)
    assert refined.timings_ms["crf"] > 0


@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=2)], ids=["plain", "crf"])
def test_bands_and_many_classes_are_those_of_a_segmenter(tmp_path: Path, crf: DenseCRF | None) -> None:
    """One window as large as the image, so that nothing is averaged."""
    bundle, image = make_band_bundle(tmp_path / "many.atrous", INFRARED, classes=300), scene(INFRARED, (64, 96))
    segmenter = load(bundle, backend="onnxruntime", crf=crf or False)
    expected, found = segmenter(image), AugmentedSegmenter(segmenter, Augmentation(window=(64, 96)))(image)
    assert expected.labels.max() > 255
    assert found.labels.dtype == expected.labels.dtype
    assert (found.labels == expected.labels).mean() >= 0.999
    assert np.array_equal(found.picture, expected.picture)


def test_a_sigmoid_keeps_its_threshold(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    bundle = make_bundle(
        tmp_path / "one.atrous",
        local_layers(1),
        sizes=DynamicSize((32, 32), (64, 96), (128, 128), multiple=8),
        threshold=0.7,
    )
    found = AugmentedSegmenter(load(bundle, backend="onnxruntime"), Augmentation(flip=True))(image)
    assert np.array_equal(found.labels, found.probabilities[1] > np.float32(0.7))


def test_scores_and_states_know_of_it(segmenter: Segmenter, tmp_path: Path, image: NDArray[np.uint8]) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    augmented = AugmentedSegmenter(segmenter, Augmentation(flip=True))
    Image.fromarray(augmented(image).labels).save(tmp_path / "mask.png")
    pairs = [Pair(tmp_path / "a.png", tmp_path / "mask.png")]
    assert evaluate(augmented, pairs, state=tmp_path / "state").scores.pixel_accuracy == 1
    assert evaluate(segmenter, pairs).scores.pixel_accuracy < 1
    with pytest.raises(EvaluationError, match="another evaluation"):
        evaluate(segmenter, pairs, state=tmp_path / "state")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": (0, 5)}, "positive height and width"),
        ({"stride": (5, 5)}, "pass the window as well"),
        ({"window": (8, 8), "stride": (9, 8)}, "leaves gaps"),
    ],
)
def test_mistakes(options: dict[str, tuple[int, int]], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        Augmentation(**options)
