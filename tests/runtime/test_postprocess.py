from __future__ import annotations

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterbox import cells_of_image, letterboxed
from tolerances import LETTERBOX_ABS, RESAMPLE_ABS

from atrous.errors import ShapeError
from atrous.runtime.postprocess import upsample_labels, upsample_logits, upsample_probabilities
from atrous.runtime.preprocess import Geometry

torch = needs.TORCH.load("torch")


def whole(height, width):
    return Geometry((height, width), (height, width), "none")


def torch_upsample(logits, full_size, align_corners):
    source = torch.from_numpy(logits)[None]
    return torch.nn.functional.interpolate(source, full_size, mode="bilinear", align_corners=align_corners)[0]


def assert_all_equal_torch(logits, full_size, crop, align_corners, threads=0):
    height, width = crop or full_size
    expected = torch_upsample(logits, full_size, align_corners)[:, :height, :width]
    geometry = Geometry((height, width), full_size, "none")
    options = {"align_corners": align_corners, "threads": threads}
    got = upsample_logits(logits, geometry, **options)
    assert got.shape == expected.shape
    assert np.abs(got - expected.numpy()).max() <= RESAMPLE_ABS
    probabilities = upsample_probabilities(logits, geometry, **options)
    assert np.abs(probabilities - expected.softmax(dim=0).numpy()).max() <= RESAMPLE_ABS
    labels = upsample_labels(logits, geometry, **options)
    assert labels.dtype == np.uint8
    assert (labels == got.argmax(axis=0)).all()
    top = expected.topk(min(2, len(expected)), dim=0).values
    close = (top[0] - top[-1] < RESAMPLE_ABS).numpy() & (len(expected) > 1)
    assert ((labels == expected.argmax(dim=0).numpy()) | close).all()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "full_size", "crop"),
    [
        ((21, 65, 65), (513, 513), None),
        ((21, 33, 33), (513, 513), (375, 500)),
        ((19, 33, 65), (257, 513), (255, 1)),
        ((1, 1, 1), (9, 7), None),
        ((5, 1, 6), (1, 1), None),
        ((256, 3, 4), (10, 9), None),
        ((4, 40, 60), (13, 29), None),
        ((3, 12, 17), (12, 17), None),
    ],
)
def test_equals_torch(rng, shape, full_size, crop, align_corners):
    assert_all_equal_torch((rng.normal(size=shape) * 5).astype(np.float32), full_size, crop, align_corners)


@given(data=st.data(), align_corners=st.booleans(), threads=st.integers(0, 3))
def test_equals_torch_at_any_size(data, align_corners, threads):
    side = st.integers(1, 40)
    classes, height, width = data.draw(st.tuples(st.integers(1, 12), side, side))
    full_size = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    crop = data.draw(st.none() | st.tuples(st.integers(1, full_size[0]), st.integers(1, full_size[1])))
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(classes, height, width)) * 4
    assert_all_equal_torch(logits.astype(np.float32), full_size, crop, align_corners, threads)


def test_of_equal_logits_the_first_class_wins():
    logits = np.zeros((4, 3, 3), np.float32)
    logits[2] = logits[1] = 1
    assert (upsample_labels(logits, whole(11, 11), align_corners=True) == 1).all()


def test_probabilities_sum_to_one_even_for_far_apart_logits():
    logits = np.array([1e4, -1e4, 0], np.float32).reshape(3, 1, 1)
    got = upsample_probabilities(logits, whole(2, 2), align_corners=False)
    assert (got == np.array([1, 0, 0], np.float32).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [upsample_labels, upsample_logits, upsample_probabilities])
def test_values_that_are_not_finite_are_located(function, value):
    logits = np.zeros((5, 6, 7), np.float32)
    logits[3, 2, 6] = value
    with pytest.raises(ShapeError, match="class 3, row 2, column 6"):
        function(logits, whole(12, 14), align_corners=True)


@pytest.mark.parametrize(
    ("shape", "message"), [((65537, 2, 2), "too many classes"), ((2, 2), "shape"), ((2, 0, 2), "shape")]
)
def test_logits_of_another_shape_are_refused(shape, message):
    with pytest.raises(ShapeError, match=message):
        upsample_labels(np.zeros(shape, np.float32), whole(4, 4), align_corners=True)


@pytest.mark.parametrize("image", [(5, 4), (4, 5), (0, 1)])
def test_an_image_that_is_not_inside_the_input_is_refused(image):
    with pytest.raises(ShapeError, match=r"does not fit|at least 1x1"):
        Geometry(image, (4, 4), "none")


#: coarse shape [C, h, w], image, input
LETTERBOXES = [
    ((21, 65, 65), (480, 640), (513, 513)), ((19, 9, 13), (333, 127), (64, 96)), ((3, 8, 12), (1, 1000), (64, 96)),
    ((3, 8, 12), (700, 1), (64, 96)), ((5, 8, 12), (64, 96), (64, 96)), ((5, 8, 12), (7, 5), (64, 96)),
    ((2, 3, 3), (41, 90), (37, 35)), ((4, 1, 1), (3, 8), (5, 5)),
]  # fmt: skip


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "image", "size"), LETTERBOXES)
class TestLetterbox:
    def test_equals_its_definition(self, rng, shape, image, size, align_corners):
        logits = (rng.normal(size=shape) * 5).astype(np.float32)
        geometry = Geometry(image, size, "letterbox")
        defined = letterboxed(logits, image, size, align_corners=align_corners)
        got = upsample_logits(logits, geometry, align_corners=align_corners)
        assert got.shape == defined.shape
        assert np.abs(got - defined).max() <= LETTERBOX_ABS
        labels = upsample_labels(logits, geometry, align_corners=align_corners)
        np.testing.assert_array_equal(labels, got.argmax(axis=0))
        odds = np.exp(defined - defined.max(axis=0))
        probabilities = upsample_probabilities(logits, geometry, align_corners=align_corners)
        assert np.abs(probabilities - odds / odds.sum(axis=0)).max() <= LETTERBOX_ABS

    def test_logits_of_padding_alone_do_not_matter(self, rng, shape, image, size, align_corners):
        logits = rng.normal(size=shape).astype(np.float32)
        rows, columns = cells_of_image(shape, image, size, align_corners=align_corners)
        other = np.full(shape, 1e6, np.float32)
        other[:, rows, columns] = logits[:, rows, columns]
        geometry, options = Geometry(image, size, "letterbox"), {"align_corners": align_corners}
        for upsample in (upsample_labels, upsample_logits, upsample_probabilities):
            np.testing.assert_array_equal(upsample(logits, geometry, **options), upsample(other, geometry, **options))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("image", [(64, 96), (128, 192), (2, 3), (32, 48)])
def test_a_letterbox_without_padding_is_a_stretch(rng, image, align_corners):
    logits = rng.normal(size=(7, 9, 13)).astype(np.float32)
    for upsample in (upsample_labels, upsample_logits, upsample_probabilities):
        stretched, letterbox = (
            upsample(logits, Geometry(image, (64, 96), resize), align_corners=align_corners)
            for resize in ("stretch", "letterbox")
        )
        np.testing.assert_array_equal(stretched, letterbox)
