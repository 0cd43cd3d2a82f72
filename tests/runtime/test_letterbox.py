"""The three ways to fit images to a network's input, from pixels to labels, against an oracle that shares no code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from letterbox import INPUT, LEVELS, PADDING, Pixels, clear, expected, make_colored, padded
from PIL import Image
from segmenters import picture
from tolerances import LETTERBOX_ABS, RESIZE_ORDER_LEVELS

import atrous
from atrous.calibration.images import CalibrationImages
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import ResizePolicy, Size
from atrous.runtime.evaluation import Pair, evaluate

RESIZES: tuple[ResizePolicy, ...] = ("none", "stretch", "letterbox")
#: Portrait, landscape, tiny, of the input's ratio, and the input's size: `none` pads them.
SMALL = ((60, 31), (29, 90), (7, 5), (32, 48), INPUT)
#: What `none` would tile.
LARGE = ((200, 130), (75, 333), (1, 400))
CASES = [(resize, size) for resize in RESIZES for size in (*SMALL, *LARGE) if resize != "none" or size in SMALL]


def assert_right(result: atrous.Result, image: Pixels, resize: ResizePolicy) -> None:
    logits = expected(image, resize)
    sure = clear(logits)
    assert sure.mean() > 0.7
    assert result.labels.shape == image.shape[:2]
    np.testing.assert_array_equal(result.labels[sure], logits.argmax(axis=0)[sure])
    odds = np.exp(logits - logits.max(axis=0))
    # A softmax changes by at most half of what the logits do.
    np.testing.assert_allclose(
        result.probabilities, odds / odds.sum(axis=0), atol=RESIZE_ORDER_LEVELS / LEVELS + LETTERBOX_ABS
    )


@pytest.mark.parametrize(("resize", "size"), CASES)
def test_labels_and_probabilities(tmp_path: Path, resize: ResizePolicy, size: Size) -> None:
    image = picture(size)
    assert_right(atrous.load(make_colored(tmp_path, resize), backend="onnxruntime")(image), image, resize)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_best_of_a_range_is_what_images_are_fitted_to(tmp_path: Path, resize: ResizePolicy) -> None:
    sizes = DynamicSize((16, 16), INPUT, (256, 256))
    segmenter = atrous.load(make_colored(tmp_path, resize, sizes), backend="onnxruntime")
    for size in (*SMALL, *LARGE):
        assert_right(segmenter(picture(size)), picture(size), resize)


@pytest.mark.parametrize("resize", RESIZES)
def test_images_of_a_batch_keep_their_own_places(tmp_path: Path, resize: ResizePolicy) -> None:
    """All of them have one input size, and go through the network together."""
    sizes = DynamicSize(INPUT, INPUT, (256, 256), multiple=8)
    images = [picture(size, seed) for seed, size in enumerate(SMALL)]
    results = atrous.load(make_colored(tmp_path, resize, sizes), backend="onnxruntime").batch(images)
    assert len({result.timings_ms["inference"] for result in results}) == 1
    for result, image in zip(results, images, strict=True):
        assert_right(result, image, resize)


@pytest.mark.parametrize("resize", RESIZES)
def test_scores_are_those_of_the_labels(tmp_path: Path, resize: ResizePolicy) -> None:
    """Masks are of the image's own pixels, whatever the network's input is."""
    pairs = []
    for index, size in enumerate(size for way, size in CASES if way == resize):
        image = picture(size, index)
        logits = expected(image, resize)
        mask = np.where(clear(logits), logits.argmax(axis=0), 255).astype(np.uint8)
        pair = Pair(tmp_path / f"{index}.png", tmp_path / f"{index}.mask.png")
        Image.fromarray(image).save(pair.image)
        Image.fromarray(mask).save(pair.mask)
        pairs.append(pair)
    scores = evaluate(atrous.load(make_colored(tmp_path, resize), backend="onnxruntime"), pairs).scores
    assert (scores.miou, scores.pixel_accuracy) == (1, 1)
    assert scores.confusion.sum() > 1000


@pytest.mark.parametrize(
    ("resize", "size", "blue"),
    [
        ("none", INPUT, 100), ("none", (60, 90), 255), ("stretch", (60, 31), 100), ("letterbox", (32, 48), 100),
        ("letterbox", (60, 31), 255), ("letterbox", (600, 310), 255),
    ],
)  # fmt: skip
def test_calibration_sees_the_padding(tmp_path: Path, resize: ResizePolicy, size: Size, blue: int) -> None:
    """The largest blue of images without any above 100: ranges are those of what enters the network."""
    inputs = make_colored(tmp_path, resize).manifest.input
    image = np.minimum(picture(size), 100)
    image[0, 0] = image[-1, -1] = 100
    ((_, batch),) = CalibrationImages([image], inputs)
    assert batch.shape == (1, 3, *INPUT)
    assert batch[0, 2].max() * LEVELS == pytest.approx(blue, abs=RESIZE_ORDER_LEVELS if blue < 255 else 1e-3)
    entered = padded(image, INPUT, PADDING, resize).transpose(2, 0, 1)
    np.testing.assert_allclose(batch[0] * LEVELS, entered, atol=RESIZE_ORDER_LEVELS + 1e-3)
