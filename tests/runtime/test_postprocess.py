from __future__ import annotations

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import RESAMPLE_ABS

from atrous.errors import ShapeError
from atrous.runtime.postprocess import upsample_labels, upsample_logits, upsample_probabilities

torch = needs.TORCH.load("torch")


def torch_upsample(logits, full_size, align_corners):
    source = torch.from_numpy(logits)[None]
    return torch.nn.functional.interpolate(source, full_size, mode="bilinear", align_corners=align_corners)[0]


def assert_all_equal_torch(logits, full_size, crop, align_corners, threads=0):
    height, width = crop or full_size
    expected = torch_upsample(logits, full_size, align_corners)[:, :height, :width]
    options = {"crop": crop, "align_corners": align_corners, "threads": threads}
    got = upsample_logits(logits, full_size, **options)
    assert got.shape == expected.shape
    assert np.abs(got - expected.numpy()).max() <= RESAMPLE_ABS
    probabilities = upsample_probabilities(logits, full_size, **options)
    assert np.abs(probabilities - expected.softmax(dim=0).numpy()).max() <= RESAMPLE_ABS
    labels = upsample_labels(logits, full_size, **options)
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
    assert (upsample_labels(logits, (11, 11), align_corners=True) == 1).all()


def test_probabilities_sum_to_one_even_for_far_apart_logits():
    logits = np.array([1e4, -1e4, 0], np.float32).reshape(3, 1, 1)
    got = upsample_probabilities(logits, (2, 2), align_corners=False)
    assert (got == np.array([1, 0, 0], np.float32).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [upsample_labels, upsample_logits, upsample_probabilities])
def test_values_that_are_not_finite_are_located(function, value):
    logits = np.zeros((5, 6, 7), np.float32)
    logits[3, 2, 6] = value
    with pytest.raises(ShapeError, match="class 3, row 2, column 6"):
        function(logits, (12, 14), align_corners=True)


@pytest.mark.parametrize(
    ("shape", "message"), [((257, 2, 2), "too many classes"), ((2, 2), "shape"), ((2, 0, 2), "shape")]
)
def test_logits_of_another_shape_are_refused(shape, message):
    with pytest.raises(ShapeError, match=message):
        upsample_labels(np.zeros(shape, np.float32), (4, 4), align_corners=True)


@pytest.mark.parametrize("crop", [(5, 4), (4, 5), (0, 1)])
def test_a_crop_outside_the_full_size_is_refused(crop):
    with pytest.raises(ShapeError, match="inside the full size"):
        upsample_labels(np.zeros((2, 2, 2), np.float32), (4, 4), crop=crop, align_corners=True)
